"""`lazylayer status`: show what is mounted, and how much of it is local."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli.invocation import Invocation, warn_of_silence

if TYPE_CHECKING:
    from lazylayer.api.events import LayerState, MountState
    from lazylayer.cli.control import ProcessState


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one line, or one each second with --watch.")
@click.option("--watch", is_flag=True, help="Repeat every second until interrupted.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    """Show every mount of this machine's lazylayer processes, and how much of it was fetched."""
    from lazylayer.cli.control import processes

    run = Path(context.ensure_object(Invocation).configuration().settings.run)
    while True:
        found = list(processes(run, warn_of_silence))
        if as_json:
            click.echo(_as_json(found))
        else:
            if watch:
                click.clear()
            click.echo(_as_text(found))
        if not watch:
            return
        time.sleep(1)


def _as_json(found: list[ProcessState]) -> bytes:
    import msgspec

    mounts = [{**_mount_fields(mount), "pid": process.pid} for process in found for mount in process.mounts]
    return msgspec.json.encode({"mounts": mounts})


def _mount_fields(mount: MountState) -> dict[str, object]:
    layers = [
        {
            "digest": layer.digest,
            "size": layer.size,
            "fetched": layer.fetched,
            "percent": round(layer.percent, 2),
            "requests": layer.requests,
            "network_bytes": layer.network_bytes,
            "source": layer.source,
            "error": layer.error,
        }
        for layer in mount.layers
    ]
    size = sum(layer.size for layer in mount.layers)
    fetched = sum(layer.fetched for layer in mount.layers)
    return {
        "mountpoint": mount.mountpoint,
        "reference": mount.reference,
        "frontend": mount.frontend,
        "size": size,
        "fetched": fetched,
        "percent": round(100.0 * fetched / size, 2) if size else 100.0,
        "layers": layers,
    }


def _as_text(found: list[ProcessState]) -> str:
    mounts = [mount for process in found for mount in process.mounts]
    if not mounts:
        return "nothing is mounted"
    return "\n".join(_mount_lines(mount) for mount in mounts)


def _mount_lines(mount: MountState) -> str:
    lines = [f"{mount.mountpoint}  {mount.reference}  ({mount.frontend})"]
    lines += [f"  {_layer_line(layer)}" for layer in mount.layers]
    return "\n".join(lines)


def _layer_line(layer: LayerState) -> str:
    here = f"{layer.fetched / 1e6:9.1f} of {layer.size / 1e6:.1f} MB"
    line = f"{layer.digest[7:19]}  {layer.percent:5.1f} %  {here}, {layer.requests} requests"
    line += f"  from {layer.source}" if layer.source else ""
    return f"{line}  error: {layer.error}" if layer.error else line
