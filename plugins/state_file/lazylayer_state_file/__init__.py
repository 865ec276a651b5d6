"""Write each layer's state as JSON, in the mount and in the run directory.

The mount's root has an unlisted directory `.stargz-snapshotter`; its `<layer digest>.json` is generated
on each open. The run directory has the same for each open layer of this process, as of the last event, in
`processes/<pid>/state/<layer digest>.json`, and a journal of failures, `failures.jsonl`. Only root can
read them. Names and contents are those of the Go stargz-snapshotter, so its tools work here too.

`StateFile._lock` is held while a file is written, never while a mount is read.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.events import LayerState, StateEvent
from lazylayer.api.mounting import VirtualDirectory, VirtualFile
from lazylayer.api.oci import Digest
from lazylayer.api.settings import Settings, process_directory

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedLayer

__all__ = ["FAILURES", "STATE_DIRECTORY", "Options", "StateFile", "encode_state"]

STATE_DIRECTORY = b".stargz-snapshotter"
FAILURES = "failures.jsonl"

_FILES = "state"
_LONGEST_ERROR = 4096

logger.disable(__name__)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.state_file]`."""

    in_mount: bool = True
    """Show the hidden directory in mounts."""
    in_run: bool = True
    """Write the state of open layers and the journal of failures to the run directory."""
    max_journal_bytes: int = 1024 * 1024
    """Size at which the journal is renamed to `failures.jsonl.1`."""


def encode_state(state: LayerState) -> bytes:
    """Return the state as a JSON object and a newline, without its source."""
    fields: dict[str, object] = {"error": state.error[:_LONGEST_ERROR]} if state.error else {}
    fields["digest"] = state.digest
    fields["size"] = state.size
    fields["fetchedSize"] = state.fetched
    fields["fetchedPercent"] = state.percent
    return msgspec.json.encode(fields) + b"\n"


class StateFile:
    """The plugin."""

    def __init__(self) -> None:
        self._options = Options()
        self._run = Path("/nonexistent")
        self._lock = threading.Lock()
        self._warned = False

    @hookimpl
    def lazylayer_configure(self, settings: Settings, options: Options) -> None:
        """Store `[plugin.state_file]` and the run directory."""
        self._options = options
        self._run = Path(settings.run)

    @hookimpl
    def lazylayer_add_virtual_entries(self, layer: OpenedLayer) -> Mapping[bytes, VirtualDirectory] | None:
        """Return the hidden directory of a layer's mount."""
        if not self._options.in_mount:
            return None
        file = VirtualFile(0o400, lambda: encode_state(layer.state()))
        return {STATE_DIRECTORY: VirtualDirectory(0o500, {_file_name(layer.digest).encode(): file})}

    @hookimpl
    def lazylayer_report_state(self, event: StateEvent) -> None:
        """Update the run directory."""
        if not self._options.in_run:
            return
        try:
            with self._lock:
                if event.kind == "failed":
                    self._write_failure(event)
                self._write_states(event)
        except OSError as error:
            # Logged once: without write permission, as for ordinary users, every event fails.
            if not self._warned:
                self._warned = True
                logger.warning("cannot write state files to the run directory: {error}", error=error)

    def _write_states(self, event: StateEvent) -> None:
        if not event.layers:
            return
        directory = process_directory(self._run) / _FILES
        directory.mkdir(mode=0o700, exist_ok=True)
        for state in event.layers:
            path = directory / _file_name(state.digest)
            if event.kind == "closed":
                path.unlink(missing_ok=True)
            else:
                _replace(path, encode_state(state))
        if event.kind == "closed" and not any(directory.iterdir()):
            directory.rmdir()

    def _write_failure(self, event: StateEvent) -> None:
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._run / FAILURES
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "pid": os.getpid(),
            "reference": event.reference,
            "layers": [state.digest for state in event.layers],
            "error": event.error[:_LONGEST_ERROR],
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # One write(2), so that lines of several processes never mix.
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size >= self._options.max_journal_bytes:
            path.replace(path.with_name(f"{FAILURES}.1"))


def _file_name(digest: Digest) -> str:
    return f"{digest}.json"


def _replace(path: Path, data: bytes) -> None:
    """Replace a file atomically; only its owner can read it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
