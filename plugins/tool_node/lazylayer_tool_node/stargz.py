"""Translate the configuration of stargz-snapshotter into ours.

`KEYS` has every key of it: the key of ours that means the same, and otherwise a reason.
docs/moving-from-stargz.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["KEYS", "Key", "Translation", "translate"]


class Key(NamedTuple):
    """A key of ours for one of theirs; without `ours`, `reason` says why there is none.

    `how` changes the value: `same`, `not` for its opposite, `seconds`, `milliseconds`, `cache` for the kind of cache,
    or `zero` for a number that is 0 when it is true.
    """

    ours: str = ""
    how: str = "same"
    reason: str = ""


KEYS: Mapping[str, Key] = {
    "metrics_address": Key("plugin.state_prometheus.address"),
    "no_prometheus": Key(reason="metrics are served only if plugin.state_prometheus.address is set"),
    "debug_address": Key(reason="no profiles over a socket; use py-spy, and `lazylayer status` and `explain`"),
    "ipfs": Key(reason="no plugin for ipfs:// references yet"),
    "metadata_store": Key(reason="tables of contents are kept compactly in memory, and cached on disk"),
    "fuse_manager.enable": Key(reason="with EROFS, mounts outlive the daemon by themselves"),
    "fuse_manager.address": Key(reason="as fuse_manager.enable"),
    "fuse_manager.path": Key(reason="as fuse_manager.enable"),
    "fuse_manager.metrics_address": Key(reason="as fuse_manager.enable"),
    "http_cache_type": Key("cache.ranges", "cache"),
    "filesystem_cache_type": Key("cache.chunks", "cache"),
    "resolve_result_entry_ttl_sec": Key(reason="unused layers are kept by number (resolve.keep), not by time"),
    "resolve_result_entry": Key("resolve.keep"),
    "prefetch_size": Key("prefetch.size"),
    "prefetch_timeout_sec": Key("prefetch.timeout", "seconds"),
    "prefetch_async_size": Key(reason="containers wait for no prefetch, unless wait_for_prefetch is set"),
    "noprefetch": Key("prefetch.enabled", "not"),
    "no_background_fetch": Key("background.enabled", "not"),
    "max_concurrency": Key("background.concurrency"),
    "debug": Key("mount.debug"),
    "allow_no_verification": Key("fetch.allow_skip_verify"),
    "disable_verification": Key("fetch.verify", "not"),
    "log_file_access": Key(reason='log.level = "DEBUG" shows fetches; `lazylayer convert --record` notes files'),
    "blob.valid_interval": Key("resolve.check_interval", "seconds"),
    "blob.check_always": Key("resolve.check_interval", "zero"),
    "blob.chunk_size": Key(reason="requests follow the layer's own chunks; see fetch.window_min"),
    "blob.fetching_timeout_sec": Key("fetch.read_timeout", "seconds"),
    "blob.fetching_tieout_sec": Key("fetch.read_timeout", "seconds"),
    "blob.force_single_range_mode": Key("plugin.resolver_registry.multi_range", "not"),
    "blob.prefetch_chunk_size": Key(reason="a prefetch is one request for each run of missing bytes"),
    "blob.max_retries": Key("plugin.resolver_registry.attempts"),
    "blob.min_wait_msec": Key(reason="waits double from a tenth of a second, and follow Retry-After"),
    "blob.max_wait_msec": Key(reason="as blob.min_wait_msec"),
    "directory_cache.max_lru_cache_entry": Key(reason="the kernel's page cache does that"),
    "directory_cache.max_cache_fds": Key(reason="open chunks are few and bounded"),
    "directory_cache.sync_add": Key(reason="a reader never waits for the cache to write"),
    "directory_cache.direct": Key(reason="there is one copy: on disk"),
    "directory_cache.fadv_dontneed": Key(reason="the kernel's page cache decides"),
    "fuse.attr_timeout": Key("plugin.frontend_fuse.attribute_timeout", "seconds"),
    "fuse.entry_timeout": Key("plugin.frontend_fuse.entry_timeout", "seconds"),
    "fuse.passthrough": Key(reason="use EROFS: complete layers are read by the kernel alone"),
    "fuse.merge_buffer_size": Key(reason="as fuse.passthrough"),
    "fuse.merge_worker_count": Key(reason="as fuse.passthrough"),
    "resolver.request_timeout_sec": Key("resolver.request_timeout_sec"),
    "resolver.host": Key("resolver.host"),
    "resolver.connection_pool_entry": Key("plugin.resolver_registry.connections"),
    "registry.config_path": Key("resolver.config_path"),
    "registry.mirrors": Key(reason="write them as [[resolver.hosts]], or as hosts.toml"),
    "registry.configs": Key(reason="logins belong into a keychain, TLS into [[resolver.hosts]] or hosts.toml"),
    "kubeconfig_keychain.enable_keychain": Key(reason="the plugin keychain_kube is used where it is installed"),
    "kubeconfig_keychain.kubeconfig_path": Key("plugin.keychain_kube.kubeconfig"),
    "cri_keychain.enable_keychain": Key(reason="run `lazylayer cri-proxy`; see docs/credentials.md"),
    "cri_keychain.image_service_path": Key("plugin.keychain_cri.backend"),
    "cri_keychain.listen_path": Key("plugin.keychain_cri.listen"),
    "cri_keychain_image_service_path": Key("plugin.keychain_cri.backend"),
    "snapshotter.allow_invalid_mounts_on_restart": Key(reason="always so: a layer that fails is mounted later"),
    "root_path": Key("root"),
}


class Translation(NamedTuple):
    """Ours, nested as in TOML, and a line for each key of theirs that has no equal."""

    tables: dict[str, Any]
    left_out: tuple[str, ...]


def translate(theirs: Mapping[str, Any]) -> Translation:
    """Translate a whole configuration."""
    tables: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in _leaves(theirs):
        key = KEYS.get(name)
        if key is None:
            left_out.append(f"{name}: not a key of stargz-snapshotter that we know")
        elif not key.ours:
            left_out.append(f"{name}: {key.reason}")
        else:
            translated = _value(key.how, value)
            if translated is not None:
                _put(tables, key.ours, translated)
    return Translation(tables, tuple(left_out))


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and path not in KEYS:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _value(how: str, value: Any) -> Any:
    """Return the value in our words; None if ours has the same meaning without it. Their 0 means the default."""
    if how == "not":
        return not value
    if how == "zero":
        return 0 if value else None
    if how == "cache":
        return "cache_memory" if value == "memory" else "cache_dir"
    if how == "seconds":
        return f"{value}s" if value else None
    return value if value != 0 or isinstance(value, bool) else None


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for part in above:
        tables = tables.setdefault(part, {})
    tables[last] = value
