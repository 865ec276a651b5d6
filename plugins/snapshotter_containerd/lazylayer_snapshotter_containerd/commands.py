"""`lazylayer serve` and `lazylayer pull`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli import IMAGE, TEXT, load_options, load_program, plain_http_override

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference

__all__ = ["pull", "serve"]

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--address", metavar="SOCK", type=TEXT, default="", help="The socket to serve; by default snapshotter.sock in run."
)
@click.option(
    "--root", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Where everything is kept."
)
@click.option(
    "--config", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="The configuration file."
)
@click.pass_context
def serve(context: click.Context, address: str, root: Path | None, config: Path | None) -> None:
    """Serve containerd's snapshots from lazily mounted layers.

    containerd finds the socket by a proxy plugin in its configuration:

    \b
    [proxy_plugins.lazylayer]
      type = "snapshot"
      address = "/run/lazylayer/snapshotter.sock"
    """
    from lazylayer_snapshotter_containerd.options import Options
    from lazylayer_snapshotter_containerd.serving import serve as serve_snapshots

    overrides = [f"root={json.dumps(str(root.absolute()))}"] if root is not None else []
    with load_program(context, overrides, config) as program:
        serve_snapshots(program, load_options(context, "snapshotter_containerd", Options), address)
    # Python would wait for threads that wait for a registry, though no client waits for them.
    sys.stderr.flush()
    os._exit(0)


@click.command()
@click.option(
    "--containerd",
    "socket",
    metavar="SOCK",
    type=TEXT,
    default="/run/containerd/containerd.sock",
    show_default=True,
    envvar="CONTAINERD_ADDRESS",
    help="containerd's socket.",
)
@click.option(
    "-n",
    "--namespace",
    metavar="NS",
    type=TEXT,
    default="default",
    show_default=True,
    envvar="CONTAINERD_NAMESPACE",
    help="containerd's namespace.",
)
@click.option(
    "--snapshotter", metavar="NAME", type=TEXT, default="lazylayer", show_default=True, help="Our name at containerd."
)
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--json", "as_json", is_flag=True, help="Say what came of it as JSON.")
@click.argument("reference", type=IMAGE, metavar="REF")
@click.pass_context
def pull(
    context: click.Context,
    reference: Reference,
    socket: str,
    namespace: str,
    snapshotter: str,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Pull the image REF into containerd without waiting for its layers.

    Layers that can be mounted lazily are; the others are fetched and unpacked. Containers can be
    started as soon as this returns. The last line says for each layer whether it is lazy and, if not,
    why. The daemon (`lazylayer serve`) must know the registry too: --plain-http is for this command only.
    """
    from lazylayer_snapshotter_containerd.client import Containerd
    from lazylayer_snapshotter_containerd.pulling import as_text, pull_image

    def progress(line: str) -> None:
        if not as_json:
            click.echo(line)

    with (
        load_program(context, plain_http_override(reference, plain_http)) as program,
        Containerd(socket, namespace) as containerd,
    ):
        pulled = pull_image(program, containerd, reference, snapshotter, progress)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(pulled))
    else:
        click.echo(as_text(pulled))
