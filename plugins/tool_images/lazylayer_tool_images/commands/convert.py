"""`lazylayer convert`: make images that start lazily."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lazylayer.cli import DURATION, IMAGE, SIZE, load_program, plain_http_overrides
from lazylayer_tool_images.commands.progress import ProgressBar

if TYPE_CHECKING:
    from lazylayer.api.oci import Platform, Reference
    from lazylayer.program import Program
    from lazylayer_tool_images.conversion import ConversionOptions, ConversionReport
    from lazylayer_tool_images.profiles import ProfileEntry

_SHORTEST_RECORD = 0.1
_LEVEL_HELP = "Compression level, 1 to 12; by default the fastest of the usual size."


@click.command()
@click.option("--format", "format_name", metavar="NAME", default="estargz", show_default=True, help="The layer format.")
@click.option("--level", type=click.IntRange(1, 22), metavar="N", help=_LEVEL_HELP)
@click.option("--chunk-size", type=SIZE, metavar="SIZE", default="4MiB", show_default=True,
              help="The largest piece of a file that is fetched at once.")  # fmt: skip
@click.option("--min-chunk-size", type=SIZE, metavar="SIZE", default=0,
              help="Compress small files together up to this size.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Threads that compress; by default one per core.")
@click.option("--prefetch", multiple=True, metavar="GLOB", help="Files to fetch before the first use; repeatable.")
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A record of the files that a workload reads, to fetch before the first use.",
)
@click.option(
    "--record",
    metavar="COMMAND",
    help="Run COMMAND in a container of SRC and fetch what it reads before the first use; '' runs the image's own.",
)
@click.option(
    "--record-seconds",
    type=DURATION,
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="End COMMAND after this time.",
)
@click.option("--record-network", is_flag=True, help="Let COMMAND use the host's network; by default it has none.")
@click.option(
    "--record-out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the record, as a profile.",
)
@click.option("--external-toc", is_flag=True, help="Put tables of contents into a second image, DST-esgztoc.")
@click.option("--keep-diff-id", is_flag=True, help="Keep what layers unpack to; needs --external-toc.")
@click.option("--reuse", is_flag=True, help="Take over layers that are in a lazy format already.")
@click.option(
    "--platform",
    "platform_name",
    metavar="OS/ARCH",
    help="The image of an index to convert; by default this machine's.",
)
@click.option("--all-platforms", is_flag=True, help="Convert the images of all platforms, and write an index.")
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registries of SRC and DST.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.argument("source", type=IMAGE, metavar="SRC")
@click.argument("destination", type=IMAGE, metavar="DST")
@click.pass_context
def convert(context: click.Context, /, source: Reference, destination: Reference, **given: Any) -> None:
    """Convert the image SRC and write it to DST.

    SRC and DST are in a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE. SRC may also
    be dir:PATH, a directory on this machine, which becomes an image of one layer. DST is visible only once it
    is complete.
    """
    from lazylayer.api.oci import Platform
    from lazylayer_tool_images.conversion import Conversion
    from lazylayer_tool_images.profiles import read_profile

    choices = _Choices(**given)
    _refuse_contradictions(choices, source, destination)
    listed = tuple(read_profile(choices.profile)) if choices.profile is not None else ()
    platform = Platform.parse(choices.platform_name) if choices.platform_name else None
    overrides = plain_http_overrides([source, destination], choices.plain_http)
    with load_program(context, overrides) as program, ProgressBar() as progress:
        if choices.record is not None:
            listed = _record(program, source, platform, choices, progress)
        options = _conversion_options(choices, listed)
        if choices.all_platforms:
            progress.begin(str(source), None)
            conversion = Conversion(program.hooks, destination, options, progress.advance)
            reports = conversion.convert_platforms(source)
        else:
            reports = [_convert(program, source, destination, options, platform, progress)]
    for report in reports:
        click.echo(_as_json(report) if choices.as_json else _as_text(report, destination))


class _Choices(NamedTuple):
    """The options of the command line, by the names that click gives them."""

    format_name: str
    level: int | None
    chunk_size: int
    min_chunk_size: int
    jobs: int | None
    prefetch: tuple[str, ...]
    profile: Path | None
    record: str | None
    record_seconds: float
    record_network: bool
    record_out: Path | None
    external_toc: bool
    keep_diff_id: bool
    reuse: bool
    platform_name: str | None
    all_platforms: bool
    plain_http: bool
    as_json: bool


def _refuse_contradictions(choices: _Choices, source: Reference, destination: Reference) -> None:
    """Raise UsageError for options that exclude each other."""
    records = choices.record is not None
    if not choices.chunk_size or choices.record_seconds < _SHORTEST_RECORD:
        raise click.UsageError(f"--chunk-size is at least 1 byte, and --record-seconds at least {_SHORTEST_RECORD} s")
    if destination.scheme == "dir":
        raise click.UsageError("an image cannot be written to dir:; mount it, or use oci:DIR")
    if records and choices.profile is not None:
        raise click.UsageError("--record and --profile exclude each other: --record makes a profile")
    if choices.keep_diff_id and not choices.external_toc:
        raise click.UsageError("--keep-diff-id needs --external-toc: a table of contents inside changes the diff ID")
    if choices.keep_diff_id and (choices.prefetch or choices.profile is not None or records):
        raise click.UsageError(
            "--keep-diff-id excludes --prefetch, --profile and --record, which change the order of files"
        )
    if choices.all_platforms and (choices.platform_name or records or source.scheme == "dir"):
        raise click.UsageError("--all-platforms excludes --platform, --record and dir:")


def _conversion_options(choices: _Choices, listed: tuple[ProfileEntry, ...]) -> ConversionOptions:
    from lazylayer_building import BuildOptions
    from lazylayer_tool_images.conversion import ConversionOptions

    build = BuildOptions(
        chunk_size=choices.chunk_size,
        level=choices.level,
        min_chunk_size=choices.min_chunk_size,
        jobs=choices.jobs or 0,
        external_toc=choices.external_toc,
        keep_diff_id=choices.keep_diff_id,
    )
    return ConversionOptions(
        format=choices.format_name,
        build=build,
        reuse=choices.reuse,
        profile=listed,
        prefetch_globs=tuple(os.fsencode(glob) for glob in choices.prefetch),
    )


def _convert(
    program: Program,
    source: Reference,
    destination: Reference,
    options: ConversionOptions,
    platform: Platform | None,
    progress: ProgressBar,
) -> ConversionReport:
    from lazylayer.api.oci import Platform
    from lazylayer.layers import resolve_image
    from lazylayer_tool_images.conversion import Conversion

    conversion = Conversion(program.hooks, destination, options, progress.advance)
    if source.scheme == "dir":
        progress.begin(source.repository, None)
        return conversion.convert_directory(Path(source.repository), platform or Platform.of_this_machine())
    if platform is not None:
        image = program.hooks.resolve_image(source, platform)
    else:
        image = resolve_image(program.hooks, program.settings, source)
    progress.begin(str(source), sum(layer.size for layer in image.manifest.layers))
    return conversion.convert_image(image)


def _record(
    program: Program, source: Reference, platform: Platform | None, choices: _Choices, progress: ProgressBar
) -> tuple[ProfileEntry, ...]:
    """Return what the workload of `choices` reads of SRC, and keep the record if it is wanted.

    SRC is converted quickly for it, since only a lazy image can tell.
    """
    import tempfile

    from lazylayer.api.oci import Reference
    from lazylayer_building import BuildOptions
    from lazylayer_tool_images.conversion import ConversionOptions
    from lazylayer_tool_images.profiles import write_profile
    from lazylayer_tool_images.recording import record_workload

    with tempfile.TemporaryDirectory(prefix="lazylayer-record-", dir="/var/tmp") as scratch:
        lazy = Reference(scheme="oci", repository=f"{scratch}/image", tag="record")
        quickly = ConversionOptions(build=BuildOptions(level=1), reuse=True)
        _convert(program, source, lazy, quickly, platform, progress)
        progress.begin("recording", None)
        command, seconds = choices.record or "", choices.record_seconds
        listed = tuple(record_workload(program, lazy, command, seconds, network=choices.record_network))
    if choices.record_out is not None:
        write_profile(choices.record_out, listed)
    return listed


def _as_text(report: ConversionReport, destination: Reference) -> str:
    lines = [
        f"{layer.result.digest[7:19]}  {layer.source_size / 1e6:8.1f} MB {'kept' if layer.reused else '→'}"
        + ("" if layer.reused else f" {layer.result.size / 1e6:.1f} MB")
        for layer in report.layers
    ]
    return "\n".join([*lines, f"{destination}@{report.manifest.digest}"])


def _as_json(report: ConversionReport) -> bytes:
    import msgspec

    return msgspec.json.encode(
        {
            "digest": report.manifest.digest,
            "size": report.manifest.size,
            "layers": [
                {
                    "source": layer.source,
                    "source_size": layer.source_size,
                    "digest": layer.result.digest,
                    "size": layer.result.size,
                    "annotations": layer.result.annotations,
                    "reused": layer.reused,
                }
                for layer in report.layers
            ],
        }
    )
