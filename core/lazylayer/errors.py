"""The tree of exceptions that lazylayer raises.

    LazylayerError
    ├── ConfigurationError       a setting is unknown, has a wrong type, or contradicts another
    ├── PluginError              a plugin failed; the message names plugin, version and hook
    │   └── PluginRequiredError  a plugin that was required or selected by name is not usable
    ├── InvalidReferenceError    an image reference that cannot be understood
    ├── ResolveError             an image or blob cannot be had
    │   ├── NotFoundError        the source says that it does not exist
    │   ├── AuthenticationError  the source refuses these credentials, or wants some
    │   └── UnavailableError     network, time-out, overload: the same call may work later
    ├── LayerError               a layer cannot be used
    │   ├── FormatError          its bytes are not what its format demands
    │   └── VerificationError    its bytes do not have the digest they were promised to have
    ├── MountError               a mount could not be made, checked or removed
    │   └── NotMountedError      the mountpoint is not one of ours
    └── BuildError               a layer or image could not be built or written

    SkipPlugin                   not an error: a plugin says that it has no place on this machine

Every message says what failed and where; where there is a way out, it says what to do. Code that
talks to an operating system call may let `OSError` through, which names path and reason itself.
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
    """The root of every error that lazylayer raises on purpose."""


class ConfigurationError(LazylayerError):
    """A setting is unknown, has a wrong type or value, or contradicts another.

    `key` is the setting in dotted form, where one is to blame; the message names it, and the file
    or variable that it came from.
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
    """A plugin that was required, or selected by name, is missing or not usable."""


class InvalidReferenceError(LazylayerError):
    """An image reference that cannot be understood."""


class ResolveError(LazylayerError):
    """An image or a blob cannot be had."""


class NotFoundError(ResolveError):
    """The source says that the image or blob does not exist."""


class AuthenticationError(ResolveError):
    """The source refuses the credentials, or wants some where none were found."""


class UnavailableError(ResolveError):
    """The source did not answer as it should (network, time-out, overload); later it may."""


class LayerError(LazylayerError):
    """A layer cannot be used."""


class FormatError(LayerError):
    """The bytes of a layer are not what its format demands."""


class VerificationError(LayerError):
    """Bytes do not have the digest that they were promised to have."""


class MountError(LazylayerError):
    """A mount could not be made, checked or removed."""


class NotMountedError(MountError):
    """The mountpoint is not one of ours."""


class BuildError(LazylayerError):
    """A layer or an image could not be built or written."""


class SkipPlugin(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a plugin that has no place on this machine; the text says why, and what would help.

    May be raised at import, or from `lazylayer_configure`. The plugin is recorded as `skipped` and
    the others go on.
    """
