"""`lazylayer ls` and `lazylayer cat`: look into an image without mounting it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from lazylayer.cli.references import IMAGE_PATH, plain_http_override

if TYPE_CHECKING:
    from lazylayer.api.mounting import MountableTree
    from lazylayer.api.oci import Reference
    from lazylayer.api.tree import Entry

_PIECE = 1024 * 1024


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Only layer N, 0 the lowest.")
@click.option("-l", "--long", is_flag=True, help="Show mode, links, owner, size and time too.")
@click.option("-R", "--recursive", is_flag=True, help="List subdirectories too, with paths.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("image", type=IMAGE_PATH, metavar="REF[:PATH]")
@click.pass_context
def ls(
    context: click.Context,
    image: tuple[Reference, bytes],
    plain_http: bool,
    layer: int | None,
    long: bool,
    recursive: bool,
    as_json: bool,
) -> None:
    """List what lies at PATH, by default the root, in the image REF.

    Fetches only tables of contents.
    """
    reference, path = image
    with _opened(context, reference, plain_http, layer) as tree:
        entry = _find(tree, reference, path)
        show = _show_json if as_json else _show_long if long else _show_name
        for name, each in _listed(path, entry, recursive):
            show(sys.stdout.buffer, name, each)


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Only layer N, 0 the lowest.")
@click.option("--stats", is_flag=True, help="Report on standard error how much was fetched, as JSON.")
@click.argument("image", type=IMAGE_PATH, metavar="REF[:PATH]")
@click.argument("paths", nargs=-1, type=click.Path(path_type=bytes), metavar="[PATH]...")
@click.pass_context
def cat(
    context: click.Context,
    image: tuple[Reference, bytes],
    paths: tuple[bytes, ...],
    plain_http: bool,
    layer: int | None,
    stats: bool,
) -> None:
    """Write the files at PATH in the image REF to standard output.

    Fetches only the chunks of these files, and verifies each.
    """
    from lazylayer.errors import LayerError

    reference, first = image
    paths = paths if first == b"/" else (first, *paths)
    if not paths:
        raise click.UsageError("Missing argument 'PATH': cat REF:/PATH, or cat REF PATH...", context)
    with _opened(context, reference, plain_http, layer) as tree:
        for path in paths:
            entry = _find(tree, reference, path)
            if not entry.is_file:
                raise LayerError(f"{reference}: {os.fsdecode(path)} is not a regular file")
            for offset in range(0, entry.size, _PIECE):
                sys.stdout.buffer.write(tree.read(entry, offset, _PIECE))
        if stats:
            click.echo(_fetched(tree), err=True)


def _fetched(tree: MountableTree) -> bytes:
    import msgspec

    from lazylayer.layers.layer import Layer
    from lazylayer.layers.merged import MergedLayers

    assert isinstance(tree, Layer | MergedLayers)
    states = [layer.state() for layer in (tree.layers if isinstance(tree, MergedLayers) else (tree,))]
    return msgspec.json.encode(
        {
            "size": sum(state.size for state in states),
            "fetched": sum(state.fetched for state in states),
            "requests": sum(state.requests for state in states),
        }
    )


@contextmanager
def _opened(
    context: click.Context, reference: Reference, plain_http: bool, layer: int | None
) -> Iterator[MountableTree]:
    from lazylayer.cli.program import load_program
    from lazylayer.mounts.filesystem import Filesystem

    with load_program(context, plain_http_override(reference, plain_http)) as program:
        filesystem = Filesystem(program)
        try:
            image = filesystem.open_image(reference, layer)
            yield image.merged() if layer is None else image.layers[0]
            image.close()
        finally:
            filesystem.close()


def _find(tree: MountableTree, reference: Reference, path: bytes) -> Entry:
    from lazylayer.errors import LayerError
    from lazylayer.layers.overlay import follow

    found = follow((tree.tree,), path)
    if found is not None:
        return found.entry
    entry = tree.tree.lookup(path)
    if entry is not None and entry.whiteout:
        return entry  # a layer by itself shows its whiteouts
    raise LayerError(f"{reference}: there is no {os.fsdecode(path)}")


def _listed(path: bytes, entry: Entry, recursive: bool) -> Iterator[tuple[bytes, Entry]]:
    if entry.children is None:
        yield path, entry
        return
    stack = [(name, entry.children[name]) for name in reversed(entry.children)]
    while stack:
        name, each = stack.pop()
        yield name, each
        if recursive and each.children:
            stack.extend((name + b"/" + below, each.children[below]) for below in reversed(each.children))


def _show_name(out: IO[bytes], name: bytes, _: Entry) -> None:
    out.write(name + b"\n")


def _show_long(out: IO[bytes], name: bytes, entry: Entry) -> None:
    import datetime

    try:
        moment = datetime.datetime.fromtimestamp(entry.mtime // 10**9, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):
        moment = f"@{entry.mtime // 10**9}"
    is_device = stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)
    size = f"{os.major(entry.rdev)}, {os.minor(entry.rdev)}" if is_device else str(entry.size)
    fields = f"{stat.filemode(entry.mode)} {entry.nlink:3} {entry.uid:5} {entry.gid:5} {size:>10} {moment} "
    out.write(fields.encode() + name + (b" -> " + entry.target if entry.is_symlink else b"") + b"\n")


def _show_json(out: IO[bytes], name: bytes, entry: Entry) -> None:
    import msgspec

    fields: dict[str, Any] = {
        "name": os.fsdecode(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "mode": f"{entry.mode:o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime_ns": entry.mtime,
        "nlink": entry.nlink,
    }
    if entry.is_symlink:
        fields["target"] = entry.target.decode("utf-8", "replace")
    if entry.rdev:
        fields["rdev"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    if entry.whiteout:
        fields["whiteout"] = True
    if entry.opaque:
        fields["opaque"] = True
    out.write(msgspec.json.encode(fields) + b"\n")
