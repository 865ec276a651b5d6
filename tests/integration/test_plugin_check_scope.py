"""`lazylayer plugins check` leaves alone what a configured cache holds, and skips what a cache cannot do."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from lazylayer_cache_dir.directory import DirectoryCache
from synthetic.distributions import install

# As a server would be: shared by all processes, without a limit that a client could set, without files of its own.
SHARED = """
import contextlib, sqlite3, threading
import msgspec
from lazylayer import hookimpl
from lazylayer.api.cache import Cache

class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    database: str
    prefix: str = ""

class SharedCache(Cache):
    def __init__(self, options, purpose):
        self._prefix, self._lock = f"{options.prefix}/{purpose}/", threading.Lock()
        self._rows = sqlite3.connect(options.database, timeout=60, check_same_thread=False, isolation_level=None)
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute("CREATE TABLE IF NOT EXISTS cached (key TEXT PRIMARY KEY, value BLOB)")

    def _ask(self, statement, *values):
        with self._lock, contextlib.closing(self._rows.execute(statement, values)) as answer:
            return answer.fetchone()

    def get(self, key):
        row = self._ask("SELECT value FROM cached WHERE key = ?", self._prefix + key)
        return row[0] if row else None

    def put(self, key, data):
        self._ask("INSERT OR REPLACE INTO cached VALUES (?, ?)", self._prefix + key, bytes(data))

    def remove(self, key):
        self._ask("DELETE FROM cached WHERE key = ?", self._prefix + key)

    def close(self):
        with self._lock:
            self._rows.close()

class Plugin:
    SCOPE
    @hookimpl
    def lazylayer_open_cache(self, purpose, options):
        return SharedCache(options, purpose)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store in use, with one value."""
    path = tmp_path / "production.sqlite"
    with sqlite3.connect(path) as rows:
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("CREATE TABLE cached (key TEXT PRIMARY KEY, value BLOB)")
        rows.execute("INSERT INTO cached VALUES ('/chunks/precious', 'kept')")
    rows.close()
    return path


@pytest.fixture
def command_line(tmp_path: Path, database: Path) -> CommandLine:
    site = tmp_path / "site"
    for name, scope in {"cache_scoped": 'scope_option = "prefix"', "cache_unscoped": ""}.items():
        install(site, f"tst-{name}", {name: f"tst_{name}:Plugin"}, {f"tst_{name}": SHARED.replace("SCOPE", scope)})
    tables = {f"plugin.{name}.database": str(database) for name in ("cache_scoped", "cache_unscoped")}
    command_line = CommandLine(tmp_path, **tables)
    command_line.environment["PYTHONPATH"] = str(site)
    return command_line


def rows_in(database: Path) -> list[tuple[str, str]]:
    rows = sqlite3.connect(database)
    try:
        return rows.execute("SELECT key, value FROM cached").fetchall()
    finally:
        rows.close()


def test_shared_cache_without_limit_and_files_passes(command_line: CommandLine, database: Path) -> None:
    said = command_line.run("plugins", "check", "cache_scoped", "--", "-q", "-rs").stdout.decode()
    assert re.search(r"\d+ passed", said)
    assert "this cache takes no limit" in said
    assert "this cache does not keep its values in files" in said
    assert rows_in(database) == [("/chunks/precious", "kept")], "the kit left a value, or removed one"


def test_cache_that_cannot_be_set_apart_is_not_touched(command_line: CommandLine, database: Path) -> None:
    said = command_line.run("plugins", "check", "cache_unscoped", "--", "-q", "-rs").stdout.decode()
    assert "does not say by `scope_option` which option sets a store apart" in said
    assert " passed" not in said
    assert rows_in(database) == [("/chunks/precious", "kept")]


def test_configured_directory_is_left_alone(command_line: CommandLine, tmp_path: Path) -> None:
    directory = tmp_path / "production"
    values = {f"key-{number}": bytes([number]) * 500_000 for number in range(4)}
    cache = DirectoryCache(directory, max_bytes=100_000_000)
    for key, value in values.items():
        cache.put(key, value)
    cache.close()
    settings = {"plugin.cache_dir.directory": str(directory)}
    said = command_line.run("plugins", "check", "cache_dir", "--", "-q", "-k", "limit", settings=settings).stdout
    assert b" passed" in said
    cache = DirectoryCache(directory, max_bytes=100_000_000)
    assert {key: cache.get(key) for key in values} == values
    cache.close()
