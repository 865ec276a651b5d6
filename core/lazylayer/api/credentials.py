"""Credentials for registries, and how a resolver asks for them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["Credentials", "Keychain"]


class Credentials(msgspec.Struct, frozen=True):
    """How to authenticate to a registry host.

    Either `username` and `password`, or an `identity_token` (an OAuth refresh token), or a
    `registry_token` (a bearer token, used as it is). `source` names where they were found, for
    messages. Secrets stay out of `repr` and `str`.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    source: str = ""

    def __repr__(self) -> str:
        kind = "identity token" if self.identity_token else "registry token" if self.registry_token else "password"
        return f"Credentials({kind} from {self.source or 'unknown'})"

    __str__ = __repr__


Keychain = Callable[[str], Credentials | None]
"""Asks the keychain plugins, in configured order, for the credentials of a host (`name[:port]`).

The core hands one to resolvers, bound to the reference at hand. It returns None where no keychain
knows the host, and raises PluginError where one failed. It may be called again at any time, from
any thread; each call asks afresh.
"""
