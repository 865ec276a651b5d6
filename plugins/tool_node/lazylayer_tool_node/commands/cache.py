"""`lazylayer cache …`: look into the caches, and make them smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from lazylayer.cli import SIZE, pass_program

if TYPE_CHECKING:
    from lazylayer.api.cache import Cache, CachePurpose
    from lazylayer.program import Program


@click.group()
def cache() -> None:
    """Look into the caches, and make them smaller."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_program
def stats(program: Program, as_json: bool) -> None:
    """Show how full the caches are, as all processes left them."""
    import msgspec

    rows = []
    for purpose, plugin, opened in _caches(program):
        with closing(opened):
            known = opened.statistics()
        rows.append({"purpose": purpose, "plugin": plugin, **(msgspec.structs.asdict(known) if known else {})})
    if as_json:
        click.echo(msgspec.json.encode({"caches": rows}))
        return
    for row in rows:
        if "bytes" not in row:
            click.echo(f"{row['purpose']:<8}{row['plugin']}  does not say how full it is")
            continue
        limit = f" of {row['limit'] / 1e9:.1f} GB" if row["limit"] else ""
        click.echo(f"{row['purpose']:<8}{row['plugin']}  {row['entries']} values, {row['bytes'] / 1e9:.3f} GB{limit}")


@cache.command("ls")
@pass_program
def list_values(program: Program) -> None:
    """List the values in the caches: purpose, bytes on disk, last use, and key; the least recently used first."""
    for purpose, plugin, opened in _caches(program):
        with closing(opened):
            for entry in sorted(_entries(plugin, opened), key=lambda each: each.used):
                used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                click.echo(f"{purpose:<8}{entry.size:>12}  {used}  {entry.key}")


@cache.command()
@click.option("--to", type=SIZE, metavar="SIZE", default="0", show_default=True, help="Keep up to this much.")
@pass_program
def prune(program: Program, to: int) -> None:
    """Remove the least recently used values until the caches together take up at most SIZE.

    What mounts read is fetched again. Values that are being read stay readable until then.
    """
    found = []
    opened_caches = list(_caches(program))
    try:
        for _, plugin, opened in opened_caches:
            found += [(entry, opened) for entry in _entries(plugin, opened)]
        found.sort(key=lambda each: each[0].used)
        left = sum(entry.size for entry, _ in found)
        removed = freed = 0
        for entry, opened in found:
            if left <= to:
                break
            opened.remove(entry.key)
            left, freed, removed = left - entry.size, freed + entry.size, removed + 1
    finally:
        for _, _, opened in opened_caches:
            opened.close()
    click.echo(f"removed {removed} values, {freed / 1e6:.1f} MB; {left / 1e6:.1f} MB are left")


def _caches(program: Program) -> Iterator[tuple[CachePurpose, str, Cache]]:
    wanted: dict[CachePurpose, str] = {"chunks": program.settings.cache.chunks, "ranges": program.settings.cache.ranges}
    for purpose, name in wanted.items():
        plugin = program.hooks.choose_cache(name)
        yield purpose, plugin.name, plugin.open_cache(purpose)


def _entries(plugin: str, opened: Cache) -> Iterator[CacheEntry]:
    from lazylayer.errors import LazylayerError

    entries = opened.entries()
    if entries is None:
        raise LazylayerError(f"the cache plugin {plugin} cannot list what it holds")
    yield from entries


if TYPE_CHECKING:
    from lazylayer.api.cache import CacheEntry
