"""Implement `lazylayer login-check REF`, which shows how a mount would reach an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from lazylayer.api.text import one_line, scrub
from lazylayer.cli import IMAGE, load_program, plain_http_override
from lazylayer.errors import LazylayerError
from lazylayer_resolver_registry.steps import Step, following

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference
    from lazylayer.program import Program

__all__ = ["login_check"]


class _Report(msgspec.Struct):
    """The outcome; fields of steps that were not reached are None."""

    reference: str
    ok: bool = False
    image: str | None = None
    layers: int | None = None
    layer: str | None = None
    source: str | None = None
    error: str | None = None
    steps: list[Step] = msgspec.field(default_factory=list)


@click.command("login-check")
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--plain-http", is_flag=True, help="Speak HTTP without TLS to the registry of REF.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, also when the image cannot be read.")
@click.pass_context
def login_check(context: click.Context, reference: Reference, plain_http: bool, as_json: bool) -> None:
    """Show how a mount would reach the image REF.

    Resolves REF and reads one byte of its lowest layer. Prints each host and mirror asked, its answer, the keychain
    that had credentials, the token server, and where the layer is. Never prints secrets.
    """
    say = _say_nothing if as_json else click.echo
    report = _Report(one_line(str(reference)))
    with load_program(context, plain_http_override(reference, plain_http)) as program:
        try:
            _check(program, reference, report, say)
            report.ok = True
        except LazylayerError as error:
            report.error = scrub(str(error))
            raise
        finally:
            if as_json:
                click.echo(msgspec.json.encode(report))


def _check(program: Program, reference: Reference, report: _Report, say: Callable[[str], None]) -> None:
    """Resolve the image, read one byte of its first layer, and report each step."""
    from lazylayer.api.oci import Platform

    def tell(step: Step) -> None:
        report.steps.append(step)
        say(f"  {one_line(step.message)}")

    wanted = program.settings.resolve.platform
    platform = Platform.parse(wanted) if wanted else Platform.of_this_machine()
    with following(tell):
        say(one_line(str(reference)))
        image = program.hooks.resolve_image(reference, platform)
        report.image, report.layers = image.digest, len(image.manifest.layers)
        say(f"image {report.image}, {report.layers} layers")
        for layer in image.manifest.layers[:1]:
            source = program.hooks.resolve_blob(reference, layer)
            try:
                source.check()
                report.layer, report.source = layer.digest, source.describe()
                say(f"layer {report.layer} can be read from {report.source}")
            finally:
                source.close()


def _say_nothing(_: str) -> None:
    """Print nothing: `--json` prints the whole report at the end."""
