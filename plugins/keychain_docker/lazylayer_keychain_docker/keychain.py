"""The plugin: find Docker's config.json and answer from it.

Each question reads the file anew, so that a `docker login` counts at once. A missing file is not an
error, since most machines have none, unless the options name it. Any other failure raises an error that
names file and entry: a broken login never becomes an anonymous request.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lazylayer import hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import DEFAULT_REGISTRY, Reference
from lazylayer.api.units import PositiveDuration
from lazylayer.errors import FormatError, PluginError
from lazylayer_keychain_docker.helper import CredentialHelper
from lazylayer_logins.dockerconfig import DOCKER_HUB_KEY, MAX_CONFIG_SIZE, DockerAuths, canonical_host, host_of_key
from lazylayer_logins.helperprograms import HelperError

__all__ = ["DockerKeychain", "Options"]

_NAME = "keychain_docker"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin.keychain_docker]`."""

    config: str = ""
    """The config.json to use; empty for `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`."""
    helper_timeout: PositiveDuration = 20.0
    """Seconds that a credential helper may take."""


class _Helpers(msgspec.Struct, frozen=True, rename={"default": "credsStore", "by_key": "credHelpers"}):
    """The part of config.json that names helpers."""

    default: str | None = None
    by_key: dict[str, str] | None = None

    def helper_for(self, host: str) -> str:
        for key, name in (self.by_key or {}).items():
            if host_of_key(key) == host:
                return name
        return self.default or ""


class DockerKeychain:
    """The plugin. It keeps its options, and nothing of the file."""

    def __init__(self) -> None:
        self._options = Options()

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Take `[plugin.keychain_docker]`."""
        self._options = options

    @hookimpl
    def lazylayer_get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """Ask the helper that the file names for `host`, if any, then look at the entries of the file."""
        path = self._config_path()
        data = None if path is None else self._read(path)
        if path is None or data is None:
            return None
        try:
            helpers = decode_json(data, _Helpers)
            auths = DockerAuths.decode(data)
            from_helper = self._ask_helper(helpers, canonical_host(host), path)
            return from_helper or auths.find(host, reference.repository, str(path))
        except FormatError as error:
            blame = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise _failure(f"{blame}; log in again with `docker login {host}`, or repair or remove the file") from None

    def _ask_helper(self, helpers: _Helpers, host: str, path: Path) -> Credentials | None:
        name = helpers.helper_for(host)
        if not name:
            return None
        helper = CredentialHelper(name, self._options.helper_timeout)
        try:
            return helper.get(DOCKER_HUB_KEY if host == DEFAULT_REGISTRY else host)
        except HelperError as error:
            raise _failure(f"{path} names a credential helper for {host}, and {error}") from error

    def _config_path(self) -> Path | None:
        if self._options.config:
            return Path(self._options.config)
        directory = os.environ.get("DOCKER_CONFIG", "")
        if directory:
            return Path(directory, "config.json")
        try:
            return Path.home() / ".docker" / "config.json"
        except RuntimeError:  # a user without a home
            return None

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CONFIG_SIZE + 1)
        except (FileNotFoundError, NotADirectoryError):
            if self._options.config:
                raise _failure(
                    f"{path} does not exist, but [plugin.{_NAME}] config names it; create it, or change the option"
                ) from None
            return None
        except OSError as error:
            raise _failure(f"cannot read {path}: {error.strerror}; make it readable to this user") from error
        if len(data) > MAX_CONFIG_SIZE:
            raise _failure(f"{path} is larger than {MAX_CONFIG_SIZE} bytes; it is not a config.json of Docker's")
        return data


def _failure(message: str) -> PluginError:
    return PluginError(message, plugin=_NAME, distribution="lazylayer-keychain-docker")
