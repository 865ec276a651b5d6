"""The tree of exceptions that lazylayer raises.

    LazylayerError
    ├── ConfigurationError       a setting is unknown, has a wrong type, or contradicts another
    ├── PluginError              a plugin failed; the message names plugin, version and hook
    │   └── PluginRequiredError  a plugin that is required or selected by name is not usable
    ├── InvalidReferenceError    an invalid image reference
    ├── ResolveError             an image or blob is not available
    │   ├── NotFoundError        the source says that it does not exist
    │   ├── AuthenticationError  the source rejects the credentials, or demands some
    │   └── UnavailableError     network failure, time-out, overload: the same call may work later
    ├── LayerError               a layer cannot be used
    │   ├── FormatError          its bytes violate its format
    │   └── VerificationError    its bytes do not match their digest
    ├── MountError               a mount could not be made, checked or removed
    │   └── NotMountedError      lazylayer did not mount anything at this mountpoint
    └── BuildError               a layer or image could not be built or written

    SkipPlugin                   not an error: a plugin cannot work on this machine

Every message says what failed, where, and why; if there is a remedy, it names it. Code that makes
system calls may let `OSError` through, which names path and reason itself.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "BuildError",
    "ConfigurationError",
    "FormatError",
    "InvalidReferenceError",
    "LayerError",
    "LazylayerError",
    "MountError",
    "NotFoundError",
    "NotMountedError",
    "PluginError",
    "PluginRequiredError",
    "ResolveError",
    "SkipPlugin",
    "UnavailableError",
    "VerificationError",
]


class LazylayerError(Exception):
    """The base of every error that lazylayer raises on purpose."""


class ConfigurationError(LazylayerError):
    """A setting is unknown, has a wrong type or value, or contradicts another.

    `key` is the setting to blame, in dotted form, or empty. The message names it, and the file or
    variable that it came from.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class PluginError(LazylayerError):
    """A plugin failed.

    `plugin`, `distribution`, `version` and `hook` say which one and where, as far as they are known;
    the cause is chained (`__cause__`).
    """

    def __init__(self, message: str, *, plugin: str, distribution: str = "", version: str = "", hook: str = "") -> None:
        package = " ".join(filter(None, (distribution, version)))
        where = f"plugin {plugin}" + (f" ({package})" if package else "") + (f", {hook}" if hook else "")
        super().__init__(f"{where}: {message}")
        self.plugin = plugin
        self.distribution = distribution
        self.version = version
        self.hook = hook


class PluginRequiredError(PluginError):
    """A plugin that is required, or selected by name, is missing or not usable."""


class InvalidReferenceError(LazylayerError):
    """An image reference is invalid."""


class ResolveError(LazylayerError):
    """An image or a blob is not available."""


class NotFoundError(ResolveError):
    """The source says that the image or blob does not exist."""


class AuthenticationError(ResolveError):
    """The source rejects the credentials, or demands some and no keychain had any."""


class UnavailableError(ResolveError):
    """The source did not answer properly (network failure, time-out, overload). Later it may."""


class LayerError(LazylayerError):
    """A layer cannot be used."""


class FormatError(LayerError):
    """The bytes of a layer violate its format."""


class VerificationError(LayerError):
    """Bytes do not match the digest that was promised."""


class MountError(LazylayerError):
    """A mount could not be made, checked or removed."""


class NotMountedError(MountError):
    """lazylayer has not mounted anything at the mountpoint."""


class BuildError(LazylayerError):
    """A layer or an image could not be built or written."""


class SkipPlugin(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a plugin that cannot work on this machine; the text says why, and what would help.

    A plugin may raise it at import, or from `lazylayer_configure`. It is recorded as `skipped`, and
    the other plugins are used.
    """
