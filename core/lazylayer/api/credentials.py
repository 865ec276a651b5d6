"""Credentials for registries, and the function by which a resolver gets them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["Credentials", "Keychain"]


class Credentials(msgspec.Struct, frozen=True):
    """A login at a registry host.

    It has a `username` and `password`, an `identity_token` (an OAuth refresh token), or a
    `registry_token` (a bearer token, used as it is). `source` says where it was found, for messages.
    `repr` and `str` hide the secrets.
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
"""Ask the keychain plugins, in configured order, for the credentials of a host (`name[:port]`).

The core gives resolvers such a function, bound to their reference. It returns None if no keychain
knows the host, and raises PluginError if one failed. Call it at any time, from any thread; each call
asks the keychains again.
"""
