"""`lazylayer status`: show what is mounted, and how much of it is local."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli.invocation import Invocation, warn, warn_of_silence
from lazylayer.errors import LazylayerError

if TYPE_CHECKING:
    from rich.console import Console

    from lazylayer.api.events import LayerState, MountState
    from lazylayer.cli.control import ProcessState
    from lazylayer.cli.deadmounts import DeadMount
    from lazylayer.program import Program


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one line, or one each second with --watch.")
@click.option("--watch", is_flag=True, help="Repeat every second until interrupted.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    """Show every mount of this machine's lazylayer processes, and how much of it was fetched."""
    from lazylayer.cli.control import processes

    run = Path(context.ensure_object(Invocation).configuration().settings.run)
    with ExitStack() as stack:
        find_dead = _Dead(context, stack, run).find
        console = _console() if watch and not as_json else None
        if console is not None:
            from lazylayer.cli.watch import watch as watch_table

            watch_table(lambda: _look(run, find_dead), console)
        while True:
            found = list(processes(run, warn_of_silence))
            dead = find_dead()
            if as_json:
                click.echo(_as_json(found, dead))
            else:
                if watch:
                    click.clear()
                click.echo(_as_text(found, dead))
            if not watch:
                return
            time.sleep(1)


def _console() -> Console | None:
    """Return the terminal to draw a live table on; None if there is none, or no rich."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def _look(run: Path, find_dead: Callable[[], list[DeadMount]]) -> tuple[list[MountState], str]:
    from lazylayer.cli.control import processes

    mounts = [mount for process in processes(run, warn_of_silence) for mount in process.mounts]
    return mounts, "\n".join(map(_dead_lines, find_dead())) or ("" if mounts else "nothing is mounted")


class _Dead:
    """Finds mounts of processes that have died. Loads plugins only if a process has died."""

    def __init__(self, context: click.Context, stack: ExitStack, run: Path) -> None:
        self._context = context
        self._stack = stack
        self._run = run
        self._program: Program | None = None

    def find(self) -> list[DeadMount]:
        """Return the mounts that no process serves."""
        from lazylayer.cli.control import left_directories

        if not left_directories(self._run):
            return []
        from lazylayer.cli.deadmounts import forget_the_dead
        from lazylayer.cli.program import load_program

        if self._program is None:
            try:
                self._program = self._stack.enter_context(load_program(self._context))
            except LazylayerError as error:
                warn(f"a process has died; whether it left mounts is unknown: {error}")
                return []
        return forget_the_dead(self._run, self._program)


def _as_json(found: list[ProcessState], dead: list[DeadMount]) -> bytes:
    import msgspec

    mounts = [{**_mount_fields(mount), "pid": process.pid} for process in found for mount in process.mounts]
    return msgspec.json.encode({"mounts": mounts, "dead": dead})


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


def _as_text(found: list[ProcessState], dead: list[DeadMount]) -> str:
    lines = [_mount_lines(mount) for process in found for mount in process.mounts]
    lines += [_dead_lines(mount) for mount in dead]
    return "\n".join(lines or ["nothing is mounted"])


def _dead_lines(mount: DeadMount) -> str:
    directory = shlex.quote(mount.mountpoint)
    advice = f"`lazylayer umount {directory}` removes it, `lazylayer mount` there replaces it"
    return f"{mount.mountpoint}  {mount.reference}  ({mount.frontend})\n  dead: its process has ended; {advice}"


def _mount_lines(mount: MountState) -> str:
    lines = [f"{mount.mountpoint}  {mount.reference}  ({mount.frontend})"]
    lines += [f"  {_layer_line(layer)}" for layer in mount.layers]
    return "\n".join(lines)


def _layer_line(layer: LayerState) -> str:
    here = f"{layer.fetched / 1e6:9.1f} of {layer.size / 1e6:.1f} MB"
    line = f"{layer.digest[7:19]}  {layer.percent:5.1f} %  {here}, {layer.requests} requests"
    line += f"  from {layer.source}" if layer.source else ""
    return f"{line}  error: {layer.error}" if layer.error else line
