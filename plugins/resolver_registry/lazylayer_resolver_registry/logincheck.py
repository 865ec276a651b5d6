"""`lazylayer login-check REF`: which way a mount would take to an image, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazylayer.cli.references import IMAGE, plain_http_override

if TYPE_CHECKING:
    from lazylayer.oci import Reference

__all__ = ["login_check"]


@click.command("login-check")
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--plain-http", is_flag=True, help="Speak HTTP without TLS to the registry of REF.")
@click.pass_context
def login_check(context: click.Context, reference: Reference, plain_http: bool) -> None:
    """Show the way that a mount would take to the image REF.

    REF is resolved, and one byte of its lowest layer is read. What is printed is which hosts and mirrors were asked,
    what they answered, which keychain had credentials, where a token came from, and where the layer is; no secrets.
    """
    from lazylayer.cli.program import load_program
    from lazylayer.log import one_line
    from lazylayer.oci import Platform
    from lazylayer_resolver_registry.trail import following

    with load_program(context, plain_http_override(reference, plain_http)) as program:
        wanted = program.settings.resolve.platform
        platform = Platform.parse(wanted) if wanted else Platform.of_this_machine()
        with following(lambda line: click.echo(f"  {one_line(line)}")):
            click.echo(f"{reference}")
            image = program.hooks.resolve_image(reference, platform)
            click.echo(f"image {image.digest}, {len(image.manifest.layers)} layers")
            for layer in image.manifest.layers[:1]:
                source = program.hooks.resolve_blob(reference, layer)
                try:
                    source.check()
                    click.echo(f"layer {layer.digest} can be read from {source.describe()}")
                finally:
                    source.close()
