"""A keychain that reads logins from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from lazylayer import SkipPlugin, hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.errors import AuthenticationError

__all__ = ["KeychainToml", "Options"]


class Options(msgspec.Struct, frozen=True):
    """`[plugin.keychain_toml]`."""

    file: str = ""
    """The file with a table for each host, with `username` and `password`."""


class KeychainToml:
    """The plugin. It reads the file for every question, so that a new password counts at once."""

    def __init__(self) -> None:
        self._file = Path()

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Take the options."""
        if not options.file:
            raise SkipPlugin("[plugin.keychain_toml] names no file; set file to use it")
        self._file = Path(options.file)

    @hookimpl
    def lazylayer_get_credentials(self, host: str) -> Credentials | None:
        """Return the login for exactly this host, or None. Raises AuthenticationError for an unusable file."""
        try:
            login = tomllib.loads(self._file.read_text()).get(host)
            return None if login is None else Credentials(login["username"], login["password"], source=str(self._file))
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise AuthenticationError(f"{self._file}: cannot read logins: {reason}; mend the file") from None
