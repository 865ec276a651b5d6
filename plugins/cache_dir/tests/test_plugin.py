from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer.api.settings import Settings
from lazylayer.errors import ConfigurationError
from lazylayer_cache_dir import CacheDir, Options
from lazylayer_testing import configuring as testing


def configured(root: Path, **table: object) -> CacheDir:
    return testing.configured(CacheDir(), "cache_dir", table, Settings(root=str(root)))


def test_opens_below_the_root_by_default(tmp_path: Path) -> None:
    cache = configured(tmp_path / "root").lazylayer_open_cache("chunks", Options())
    cache.put("key", b"value")
    cache.close()
    assert [file.name for file in (tmp_path / "root" / "cache").rglob("chunks-*")] == ["chunks-key"]


def test_opens_where_and_as_large_as_it_is_told(tmp_path: Path) -> None:
    plugin = configured(tmp_path / "root", directory=str(tmp_path / "elsewhere"))
    cache = plugin.lazylayer_open_cache("ranges", Options(max_bytes=12345))
    statistics = cache.statistics()
    assert statistics is not None
    assert statistics.limit == 12345
    cache.close()
    assert (tmp_path / "elsewhere" / "v1" / "usage").exists()
    assert not (tmp_path / "root").exists()


def test_configuring_touches_nothing(tmp_path: Path) -> None:
    configured(tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"directory": "relative"}, "plugin.cache_dir.directory"),
        ({"max_bytes": 0}, "plugin.cache_dir.max_bytes"),
        ({"max_size": 1}, "plugin.cache_dir.max_size"),
    ],
)
def test_bad_options_are_errors_that_name_the_key(tmp_path: Path, table: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configured(tmp_path, **table)
    assert caught.value.key == key


def test_unusable_directory_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    plugin = configured(tmp_path, directory=str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"set plugin\.cache_dir\.directory"):
        plugin.lazylayer_open_cache("chunks", Options())
