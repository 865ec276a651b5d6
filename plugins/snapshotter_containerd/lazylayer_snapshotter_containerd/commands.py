"""`lazylayer serve` and `lazylayer pull`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from lazylayer.cli import IMAGE_TEXT, TEXT, load_options, load_program

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
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry, as the daemon must too.")
@click.option("--json", "as_json", is_flag=True, help="Say what came of it as JSON.")
@click.argument("reference", type=IMAGE_TEXT, metavar="REF")
@click.pass_context
def pull(
    context: click.Context,
    reference: str,
    socket: str,
    namespace: str,
    snapshotter: str,
    plain_http: bool,
    as_json: bool,
) -> None:
    """Pull the image REF into containerd without waiting for its layers.

    The daemon (`lazylayer serve`) does the work, with its own configuration and credentials. Layers that can be
    mounted lazily are; the others are fetched and unpacked. Containers can be started as soon as this
    returns. The last line says for each layer whether it is lazy and, if not, why. Ctrl-C ends the pull.
    """
    from lazylayer.cli import InvalidRequestError, NoDaemonError, ask_daemon, run_directory

    # Names as in `lazylayer_snapshotter_containerd.pullservice.PullArguments`, which this command does not import.
    arguments = {
        "reference": reference,
        "directory": os.getcwd(),  # noqa: PTH109 - as it is called, not where it is
        "containerd": os.path.abspath(socket),  # noqa: PTH100 - likewise
        "namespace": namespace,
        "snapshotter": snapshotter,
        "plain_http": plain_http,
    }

    def show(line: str) -> None:
        if not as_json:
            click.echo(line)

    try:
        pulled = ask_daemon(run_directory(context), "pull", arguments, show)
    except InvalidRequestError as error:
        raise click.BadParameter(str(error), context, param_hint="'REF'") from error
    except PermissionError as error:
        raise NoDaemonError(f"{error.filename}: only root may ask the daemon to pull; use sudo") from error
    except NoDaemonError as error:
        said = f"{error} (systemctl start lazylayer), or name its run directory with --set run=DIR"
        raise NoDaemonError(said) from error
    click.echo(json.dumps(pulled, separators=(",", ":")) if as_json else _as_text(pulled))


def _as_text(image: dict[str, Any]) -> str:
    """Return one line that says for each layer that it is lazy, or why it is not."""
    layers = image["layers"]
    lazy = sum(layer["lazy"] for layer in layers)
    others = [
        f"{number} {layer['digest'][7:19]}: {layer['reason']}"
        for number, layer in enumerate(layers)
        if not layer["lazy"]
    ]
    return "; ".join([f"{image['name']}: {lazy} of {len(layers)} layers are lazy", *others])
