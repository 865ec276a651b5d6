"""The core's settings as typed, frozen structs: every key, its type and its default.

`lazylayer.configuration` fills them from files, the environment and the command line. Sizes and durations
may have units, as in `lazylayer.api.units`. No setting is looked up on a read: a mount takes what it needs once.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from lazylayer.api.units import Duration, PositiveDuration, PositiveSize, Size

__all__ = [
    "BackgroundSettings",
    "CacheSettings",
    "FetchSettings",
    "LogSettings",
    "MountSettings",
    "PluginsSettings",
    "PrefetchSettings",
    "ResolveSettings",
    "Settings",
    "process_directory",
]

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all tables: unknown keys are errors."""


class PluginsSettings(_Table, frozen=True):
    """`[plugins]`: which plugins are loaded, and in which order they are asked."""

    enabled: tuple[str, ...] = ()
    """Load only these, in this order; `*` stands for all others, by name. Empty means `*`.
    `NAME@DISTRIBUTION` chooses between distributions that offer a plugin of the same name."""
    disabled: tuple[str, ...] = ()
    """Never load or import these, even if enabled."""
    required: tuple[str, ...] = ()
    """Refuse to start if one of these is missing, broken or skipped."""


class CacheSettings(_Table, frozen=True):
    """`[cache]`: which plugin caches what."""

    chunks: str = "auto"
    """The cache plugin for verified, uncompressed chunks; `auto` takes the one with the highest preference."""
    ranges: str = "auto"
    """The cache plugin for compressed bytes, mostly tables of contents; `auto` as above."""
    scope: Literal["shared", "registry", "repository"] = "shared"
    """The images that find what an image cached: all, or those of its registry, or of its repository."""

    def scope_of(self, host: str, repository: str) -> str:
        """Return the beginning of all keys under which an image's bytes are cached; empty where all images share."""
        if self.scope == "shared":
            return ""
        place = host if self.scope == "registry" else f"{host}/{repository}"
        return f"{hashlib.sha256(place.encode()).hexdigest()[:20]}:"


class FetchSettings(_Table, frozen=True):
    """`[fetch]`: how reads become requests."""

    threads: Positive = 16
    """Requests in flight for readers, in the whole process."""
    window_min: PositiveSize = 128 * 1024
    """Bytes. A miss fetches at least this much of its surroundings, as far as they are missing."""
    window_max: PositiveSize = 8 * 1024 * 1024
    """Bytes. Sequential reading grows the window up to this size."""
    stall_timeout: PositiveDuration = 60.0
    """Seconds without any byte after which a waiting read fails with EIO."""
    read_timeout: PositiveDuration = 300.0
    """Seconds after which a waiting read fails with EIO, even if bytes still arrive."""
    verify: bool = True
    """Reject layers without verifiable digests. If false, no content is guaranteed."""
    allow_skip_verify: bool = False
    """Obey the label `containerd.io/snapshot/remote/stargz.skipverify`."""


class PrefetchSettings(_Table, frozen=True):
    """`[prefetch]`: fetching before first use."""

    enabled: bool = True
    """Prefetch before first use."""
    size: Size = 0
    """Bytes to prefetch of layers without landmarks; a label may override it."""
    timeout: PositiveDuration = 10.0
    """Seconds that a check waits for a prefetch in flight, if it waits; a time-out only warns."""


class BackgroundSettings(_Table, frozen=True):
    """`[background]`: fetching the rest of a layer while readers are quiet."""

    enabled: bool = True
    """Fetch the rest of each layer in the background."""
    concurrency: Positive = 2
    """Background requests in flight, in the whole process."""
    silence: Duration = 1.0
    """Seconds of quiet before background fetching resumes."""
    starvation: PositiveDuration = 30.0
    """Seconds after which a busy node lets one background request through."""
    request_size: PositiveSize = 4 * 1024 * 1024
    """Bytes per background request."""


class ResolveSettings(_Table, frozen=True):
    """`[resolve]`: how images and layers are found and kept open."""

    timeout: PositiveDuration = 30.0
    """Seconds that a mount waits for its layer."""
    keep: Natural = 100
    """Unused layers to keep open."""
    check_interval: Duration = 60.0
    """Seconds for which the registry's last answer satisfies a check."""
    platform: str = ""
    """`os/architecture[/variant]`; empty for this machine's."""
    plain_http: tuple[str, ...] = ()
    """Registry hosts (`name[:port]`, as in references) to use without TLS."""


class MountSettings(_Table, frozen=True):
    """`[mount]`: how trees are mounted."""

    frontend: str = "auto"
    """The frontend plugin; `auto` takes the first that works on this machine."""
    prefer: tuple[str, ...] = ()
    """The frontends that `auto` tries, in this order; empty means all, in order of their preference."""
    allow_other: bool = True
    """Let other users see a mount; needed under containerd."""
    debug: bool = False
    """Let the frontend trace every request."""


class LogSettings(_Table, frozen=True):
    """`[log]`: what is written to stderr."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level to write. INFO logs nothing per read; TRACE logs every hook."""
    format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per message."""


def default_root() -> str:
    """Return `/var/lib/lazylayer` for root, else `$XDG_CACHE_HOME/lazylayer`, by default in `~/.cache`."""
    if os.geteuid() == 0:
        return "/var/lib/lazylayer"
    return str((_xdg_directory("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazylayer")


def default_run() -> str:
    """Return `/run/lazylayer` for root, else `$XDG_RUNTIME_DIR/lazylayer`, or `run` below the default root."""
    if os.geteuid() == 0:
        return "/run/lazylayer"
    directory = _xdg_directory("XDG_RUNTIME_DIR")
    return str(directory / "lazylayer" if directory else Path(default_root()) / "run")


def _xdg_directory(variable: str) -> Path | None:
    """Return the directory in the variable; a relative one is ignored, as the XDG specification demands."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


class Settings(_Table, frozen=True):
    """All settings of the core. The options of plugins are not among them."""

    root: str = msgspec.field(default_factory=default_root)
    """The directory for caches and persistent state; only its owner may access it."""
    run: str = msgspec.field(default_factory=default_run)
    """The directory for the state of running mounts; only its owner may access it."""
    plugins: PluginsSettings = PluginsSettings()
    cache: CacheSettings = CacheSettings()
    fetch: FetchSettings = FetchSettings()
    prefetch: PrefetchSettings = PrefetchSettings()
    background: BackgroundSettings = BackgroundSettings()
    resolve: ResolveSettings = ResolveSettings()
    mount: MountSettings = MountSettings()
    log: LogSettings = LogSettings()


def process_directory(run: Path) -> Path:
    """Return the directory of this process below the run directory `run`; make it, root-only, if need be.

    It is removed when the process ends; if that died, by `lazylayer status`, once nothing of it is mounted any more.
    """
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = run / "processes" / str(os.getpid())
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
