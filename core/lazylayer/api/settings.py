"""The settings of lazylayer as typed, frozen structs: every key, its type and its default.

`lazylayer.configuration` fills them from files, the environment and the command line. Sizes are in
bytes and times in seconds. Nothing here is looked up on a read: what a mount needs is taken once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

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
]

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all tables: keys that are not listed are errors."""


class PluginsSettings(_Table, frozen=True):
    """`[plugins]`: which plugins are loaded, and in which order they are asked."""

    enabled: tuple[str, ...] = ()
    """Only these, first asked first; `*` stands for all others, by name. Empty is the same as `*`.
    `NAME@DISTRIBUTION` chooses, where two distributions offer a plugin of one name."""
    disabled: tuple[str, ...] = ()
    """Not these, even when enabled; they are not even imported."""
    required: tuple[str, ...] = ()
    """Start-up fails when one of these is missing, broken or skipped."""


class CacheSettings(_Table, frozen=True):
    """`[cache]`: which cache plugin keeps what."""

    chunks: str = "auto"
    """The plugin for verified, uncompressed chunks; `auto` takes the cache with the highest preference."""
    ranges: str = "auto"
    """The plugin for compressed bytes, mostly tables of contents; `auto` as above."""


class FetchSettings(_Table, frozen=True):
    """`[fetch]`: how reads become requests."""

    threads: Positive = 16
    """How many requests may be under way for readers at once, in the whole process."""
    window_min: Positive = 128 * 1024
    """Bytes. A miss fetches at least this much of the neighbourhood, when it is missing too."""
    window_max: Positive = 8 * 1024 * 1024
    """Bytes. Sequential reading grows the window up to this."""
    verify: bool = True
    """Whether layers without verifiable digests are refused. Without it nothing is promised."""
    allow_skip_verify: bool = False
    """Whether the label `containerd.io/snapshot/remote/stargz.skipverify` is obeyed."""


class PrefetchSettings(_Table, frozen=True):
    """`[prefetch]`: what is fetched before first use."""

    enabled: bool = True
    """Whether anything is."""
    size: Natural = 0
    """Bytes, for layers without landmarks; a label may say otherwise."""
    timeout: Seconds = 10.0
    """Seconds. How long a check waits for a prefetch that is under way, where it does; a time-out only warns."""


class BackgroundSettings(_Table, frozen=True):
    """`[background]`: fetching the rest of a layer when nothing else is to be done."""

    enabled: bool = True
    """Whether it is."""
    concurrency: Positive = 2
    """How many background requests may be under way at once, in the whole process."""
    silence: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Seconds. Background fetching goes on this long after the last reader's request has ended."""
    starvation: Seconds = 30.0
    """Seconds. After waiting this long on a busy node, one background request is let through."""
    request_size: Positive = 4 * 1024 * 1024
    """Bytes. How much one background request asks for."""


class ResolveSettings(_Table, frozen=True):
    """`[resolve]`: how images and layers are found and kept."""

    timeout: Seconds = 30.0
    """Seconds. How long a mount waits for its layer."""
    keep: Natural = 100
    """How many opened layers are kept for the next mount when nothing uses them."""
    check_interval: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Seconds. A check asks the registry again only when the last answer is older than this."""
    platform: str = ""
    """`os/architecture[/variant]`; empty for this machine's."""
    plain_http: tuple[str, ...] = ()
    """Registry hosts (`name[:port]`, as in references) that are spoken to without TLS."""


class MountSettings(_Table, frozen=True):
    """`[mount]`: how trees are shown."""

    frontend: str = "auto"
    """The name of a frontend plugin; `auto` takes the first that works here."""
    prefer: tuple[str, ...] = ()
    """The frontends that `auto` tries, in this order; empty for all, by their own preference."""
    allow_other: bool = True
    """Let other users see a mount; needed under containerd."""
    debug: bool = False
    """Let the frontend trace every request."""


class LogSettings(_Table, frozen=True):
    """`[log]`: what is written to stderr."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lines of this level and above. INFO has nothing that happens per read; TRACE names every hook."""
    format: Literal["text", "json"] = "text"
    """One line for people, or one JSON object a line for machines."""


def default_root() -> str:
    """`/var/lib/lazylayer` for root, else `$XDG_CACHE_HOME/lazylayer`, by default in `~/.cache`."""
    if os.geteuid() == 0:
        return "/var/lib/lazylayer"
    return str((_xdg_directory("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazylayer")


def default_run() -> str:
    """`/run/lazylayer` for root, else `$XDG_RUNTIME_DIR/lazylayer`, or `run` below the default root."""
    if os.geteuid() == 0:
        return "/run/lazylayer"
    directory = _xdg_directory("XDG_RUNTIME_DIR")
    return str(directory / "lazylayer" if directory else Path(default_root()) / "run")


def _xdg_directory(variable: str) -> Path | None:
    """The directory that the variable names; the XDG specification says to ignore a relative one."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None


class Settings(_Table, frozen=True):
    """All settings of one program; the options of plugins are not among them."""

    root: str = msgspec.field(default_factory=default_root)
    """Where caches and state that outlive a process are kept; for the user's eyes only."""
    run: str = msgspec.field(default_factory=default_run)
    """Where state of running mounts is kept; for the user's eyes only."""
    plugins: PluginsSettings = PluginsSettings()
    cache: CacheSettings = CacheSettings()
    fetch: FetchSettings = FetchSettings()
    prefetch: PrefetchSettings = PrefetchSettings()
    background: BackgroundSettings = BackgroundSettings()
    resolve: ResolveSettings = ResolveSettings()
    mount: MountSettings = MountSettings()
    log: LogSettings = LogSettings()
