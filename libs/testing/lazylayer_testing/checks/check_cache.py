"""The cache kit, run on an installed plugin by `lazylayer plugins check`, in a scope of its own.

The kit never touches what the configured cache holds. Each test has a store below a directory of its own,
unless an option leads elsewhere: then the plugin says by `scope_option` which option sets a store apart.
What a cache cannot do is skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazylayer.api.cache import Cache
from lazylayer_testing.cache import LIMIT, VALUE_SIZE, MakeCache, PersistentCacheConformance
from lazylayer_testing.cache.recording import RecordingCache, forget
from lazylayer_testing.cache.values import value_of
from lazylayer_testing.checks.plugin import CheckedPlugin

_LIMIT_OPTION = "max_bytes"


class _Store(msgspec.Struct, frozen=True):
    """A store of the plugin that nothing else uses. Picklable."""

    plugin: CheckedPlugin
    root: Path
    scope_option: str
    limited: bool

    def open(self, *, max_bytes: int) -> Cache:
        """Open the plugin's cache for chunks, as a new program does."""
        options: dict[str, Any] = {_LIMIT_OPTION: max_bytes} if self.limited else {}
        if self.scope_option:
            options[self.scope_option] = str(self.root / "root" / "scope")
        return self.plugin.open(self.root, **options).of(self.plugin.name).open_cache("chunks")

    def is_persistent(self) -> bool:
        """Return True if what one program puts is found by the next one."""
        cache = self.open(max_bytes=LIMIT)
        cache.put("probe", b"value")
        cache.close()
        cache = self.open(max_bytes=LIMIT)
        found = cache.get("probe") is not None
        forget(cache, {"probe"})
        return found


@pytest.fixture(scope="session")
def first_store(checked_plugin: CheckedPlugin, tmp_path_factory: pytest.TempPathFactory) -> _Store:
    """A store. Skips everything if the plugin's options may lead to values that matter."""
    root = tmp_path_factory.mktemp("store")
    plugins = checked_plugin.load(root)
    record, plugin = plugins.record(checked_plugin.name), plugins.manager.get_plugin(checked_plugin.name)
    options = record.options if record is not None else None
    names = set(options.__struct_encode_fields__) if options is not None else set()
    scope_option = getattr(plugin, "scope_option", None)
    if scope_option is None and names - {_LIMIT_OPTION}:
        pytest.skip(
            f"the kit might change what {checked_plugin.name} holds: the plugin does not say by "
            "`scope_option` which option sets a store apart"
        )
    return _Store(checked_plugin, root, scope_option or "", _LIMIT_OPTION in names)


@pytest.fixture(scope="session")
def persistent(first_store: _Store) -> bool:
    """True if values outlive the process."""
    return first_store.is_persistent()


class TestCache(PersistentCacheConformance):
    """The checks of every cache, and those of caches that outlive their process."""

    @pytest.fixture
    def store(self, first_store: _Store, tmp_path: Path) -> _Store:
        """The store of this test."""
        return msgspec.structs.replace(first_store, root=tmp_path)

    @pytest.fixture
    def limited(self, store: _Store) -> bool:
        """True if the plugin has an option for its limit."""
        return store.limited

    @pytest.fixture
    def make_cache(self, request: pytest.FixtureRequest, store: _Store, persistent: bool) -> Iterator[MakeCache]:
        """Open the plugin's cache, each time as a new program. Leaves no value behind."""
        if request.function.__name__ in vars(PersistentCacheConformance) and not persistent:
            pytest.skip("the cache does not outlive its process")
        touched: set[str] = set()
        yield partial(RecordingCache.over, store.open, touched)
        forget(store.open(max_bytes=LIMIT), touched)

    @pytest.fixture
    def stored_in(self, store: _Store) -> Path | None:
        """The directory of this test, if the plugin keeps its values in files there."""
        cache = store.open(max_bytes=LIMIT)
        cache.put("probe", value_of("probe"))
        cache.close()
        held = sum(file.stat().st_size for file in store.root.rglob("*") if file.is_file())
        forget(store.open(max_bytes=LIMIT), {"probe"})
        return store.root / "root" if held >= VALUE_SIZE else None
