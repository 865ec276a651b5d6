"""`lazylayer index`: make ordinary images start lazily without touching their layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lazylayer.cli import IMAGE, load_program, plain_http_overrides

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference, ResolvedImage
    from lazylayer.program import Program
    from lazylayer_tool_index.imageindexing import IndexReport, LayerReport


@click.command()
@click.option(
    "--span-size",
    type=click.IntRange(64 << 10, 1 << 30),
    metavar="BYTES",
    default=4 << 20,
    show_default=True,
    help="Plain bytes of a layer that are fetched at once.",
)
@click.option(
    "--min-layer-size",
    type=click.IntRange(min=0),
    metavar="BYTES",
    default=10 << 20,
    show_default=True,
    help="Leave smaller layers to be fetched whole.",
)
@click.option("--platform", "platform_name", metavar="OS/ARCH", help="The image to index; by default this machine's.")
@click.option("--all-platforms", is_flag=True, help="Index the images of all platforms.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Layers at once; by default one per core.")
@click.option("--force", is_flag=True, help="Index layers again that are indexed already.")
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the indexes of finished layers are until the image is complete.",
)
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registries of SRC and DST.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.argument("source", type=IMAGE, metavar="SRC")
@click.argument("destination", type=IMAGE, metavar="DST", required=False)
@click.pass_context
def index(context: click.Context, /, source: Reference, destination: Reference | None, **given: Any) -> None:
    """Index the image SRC, so that its layers start lazily as they are, and write it to DST.

    The index is one of SOCI, version 2, which the SOCI snapshotter reads too. Without DST, the tag of SRC names
    the indexed image afterwards. Layers that were indexed before are not read again.
    """
    from lazylayer_tool_index.finished import FinishedZtocs
    from lazylayer_tool_index.imageindexing import ImageIndexer, IndexOptions

    choices = _Choices(**given)
    destination = destination or source
    _refuse_contradictions(choices, destination)
    options = IndexOptions(choices.span_size, choices.min_layer_size, choices.jobs or 0, choices.force)
    with load_program(context, plain_http_overrides([source, destination], choices.plain_http)) as program:
        image = _resolve(program, source, choices)
        finished = FinishedZtocs(choices.work or Path(program.settings.root) / "index")
        indexer = ImageIndexer(program.hooks, finished, options)
        report = indexer.index_image(image, destination, all_platforms=choices.all_platforms)
    click.echo(_as_json(report) if choices.as_json else _as_text(report, destination))


class _Choices(NamedTuple):
    """The options of the command line, by the names that click gives them."""

    span_size: int
    min_layer_size: int
    platform_name: str | None
    all_platforms: bool
    jobs: int | None
    force: bool
    work: Path | None
    plain_http: bool
    as_json: bool


def _refuse_contradictions(choices: _Choices, destination: Reference) -> None:
    """Raise UsageError for options that exclude each other, or a destination that cannot hold an index."""
    if choices.all_platforms and choices.platform_name:
        raise click.UsageError("--all-platforms excludes --platform")
    if destination.scheme in ("dir", "docker-archive"):
        raise click.UsageError(f"an indexed image cannot be written to {destination.scheme}:; name a DST elsewhere")
    if destination.digest:
        raise click.UsageError("the indexed image has another digest; name a tag as DST")


def _resolve(program: Program, source: Reference, choices: _Choices) -> ResolvedImage:
    from lazylayer.api.oci import Platform
    from lazylayer.layers import resolve_image

    if choices.all_platforms:
        return program.hooks.resolve_image(source, Platform())
    if choices.platform_name:
        return program.hooks.resolve_image(source, Platform.parse(choices.platform_name))
    return resolve_image(program.hooks, program.settings, source)


def _as_text(report: IndexReport, destination: Reference) -> str:
    return "\n".join([*map(_line, report.layers), f"{destination}@{report.index.digest}"])


def _line(report: LayerReport) -> str:
    if report.ztoc is None:
        outcome = f"fetched whole: {report.reason}"
    else:
        outcome = f"{'indexed before' if report.kept else 'indexed'}: {report.ztoc.size / 1e6:.1f} MB"
    return f"{report.layer.digest[7:19]}  {report.layer.size / 1e6:8.1f} MB  {outcome}"


def _as_json(report: IndexReport) -> bytes:
    import msgspec

    return msgspec.json.encode(
        {
            "digest": report.index.digest,
            "size": report.index.size,
            "layers": [
                {
                    "digest": each.layer.digest,
                    "size": each.layer.size,
                    "ztoc": each.ztoc.digest if each.ztoc is not None else None,
                    "ztoc_size": each.ztoc.size if each.ztoc is not None else 0,
                    "kept": each.kept,
                    "reason": each.reason,
                }
                for each in report.layers
            ],
        }
    )
