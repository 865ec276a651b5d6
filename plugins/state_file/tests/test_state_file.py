"""The state of layers as files: in the mount, in the run directory, and the journal of failures."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lazylayer.api.events import LayerState, StateEvent
from lazylayer.api.oci import Digest, sha256_digest
from lazylayer.api.settings import Settings
from lazylayer_state_file import FAILURES, STATE_DIRECTORY, StateFile, encode_state
from lazylayer_testing.configuring import configured

DIGEST = sha256_digest(b"layer")
STATE = LayerState(DIGEST, 1000, 250)


class OpenLayer:
    digest: Digest = DIGEST
    error = ""
    fetched = 0

    def state(self) -> LayerState:
        return LayerState(self.digest, 1000, self.fetched, self.error)


def make_plugin(run: Path, **options: object) -> StateFile:
    return configured(StateFile(), "state_file", options, Settings(run=str(run)))


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "processes" / str(os.getpid()) / "state").glob("*")}


@pytest.mark.seed(16)
def test_state_is_a_json_object_with_the_fields_that_readers_expect() -> None:
    assert encode_state(STATE) == (
        b'{"digest":"%s","size":1000,"fetchedSize":250,"fetchedPercent":25.0}\n' % DIGEST.encode()
    )


@pytest.mark.seed(16)
def test_error_comes_first() -> None:
    state = encode_state(LayerState(DIGEST, 10, 0, 'no "network"'))
    assert list(json.loads(state)) == ["error", "digest", "size", "fetchedSize", "fetchedPercent"]
    assert json.loads(state)["error"] == 'no "network"'


@pytest.mark.seed(16)
def test_mount_has_a_hidden_directory_that_is_up_to_date(tmp_path: Path) -> None:
    layer = OpenLayer()
    plugin = make_plugin(tmp_path)
    entries: Any = plugin.lazylayer_add_virtual_entries(layer)  # type: ignore[arg-type]
    directory = entries[STATE_DIRECTORY]
    assert directory.mode == 0o500
    file = directory.files[b"%s.json" % DIGEST.encode()]
    assert file.mode == 0o400
    assert json.loads(file.content())["fetchedPercent"] == 0
    layer.fetched, layer.error = 500, "broken"
    assert json.loads(file.content()) == {
        "error": "broken",
        "digest": DIGEST,
        "size": 1000,
        "fetchedSize": 500,
        "fetchedPercent": 50.0,
    }


def test_both_can_be_switched_off(tmp_path: Path) -> None:
    plugin = make_plugin(tmp_path / "run", in_mount=False, in_run=False)
    assert plugin.lazylayer_add_virtual_entries(OpenLayer()) is None  # type: ignore[arg-type]
    plugin.lazylayer_report_state(StateEvent("failed", layers=(STATE,), error="x"))
    assert not (tmp_path / "run").exists()


def test_run_directory_follows_the_events(tmp_path: Path) -> None:
    plugin = make_plugin(tmp_path / "run")
    plugin.lazylayer_report_state(StateEvent("resolved", "r", (STATE,)))
    assert files(tmp_path / "run") == {f"{DIGEST}.json": encode_state(STATE)}
    whole = LayerState(DIGEST, 1000, 1000)
    plugin.lazylayer_report_state(StateEvent("completed", "r", (whole,)))
    assert files(tmp_path / "run") == {f"{DIGEST}.json": encode_state(whole)}
    plugin.lazylayer_report_state(StateEvent("closed", "r", (whole,)))
    assert files(tmp_path / "run") == {}
    plugin.lazylayer_report_state(StateEvent("closed", "r", (whole,)))


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        plugin = make_plugin(tmp_path / "run")
        plugin.lazylayer_report_state(StateEvent("failed", "r", (STATE,), error="x"))
    finally:
        os.umask(old)
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_failures_are_kept_in_a_journal(tmp_path: Path) -> None:
    plugin = make_plugin(tmp_path)
    plugin.lazylayer_report_state(StateEvent("failed", "host/image:1", error="a lying table of contents"))
    plugin.lazylayer_report_state(StateEvent("failed", "host/image:1", (STATE,), error="x" * 100_000))
    first, second = map(json.loads, (tmp_path / FAILURES).read_text().splitlines())
    assert (first["reference"], first["error"]) == ("host/image:1", "a lying table of contents")
    assert second["layers"] == [DIGEST]
    assert len(second["error"]) == 4096


def test_journal_is_bounded(tmp_path: Path) -> None:
    plugin = make_plugin(tmp_path, max_journal_bytes=3000)
    for number in range(100):
        plugin.lazylayer_report_state(StateEvent("failed", "r", error=f"failure {number:04}"))
    written = (tmp_path / FAILURES).read_text() if (tmp_path / FAILURES).exists() else ""
    before = (tmp_path / f"{FAILURES}.1").read_text()
    assert "failure 0099" in before + written
    assert len(written) < 3000 <= len(before) < 3300


def test_journal_is_no_way_to_write_elsewhere(tmp_path: Path) -> None:
    (tmp_path / FAILURES).symlink_to(tmp_path / "elsewhere")
    make_plugin(tmp_path).lazylayer_report_state(StateEvent("failed", "r", error="x"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_directory_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    script = (
        "import sys; from loguru import logger\n"
        "from lazylayer.api.events import StateEvent\n"
        "from lazylayer.api.settings import Settings\n"
        "from lazylayer_state_file import Options, StateFile\n"
        "logger.enable('lazylayer_state_file')\n"
        "plugin = StateFile()\n"
        "plugin.lazylayer_configure(Settings(run=sys.argv[1]), Options())\n"
        "for _ in range(3): plugin.lazylayer_report_state(StateEvent('failed', error='x'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("cannot write state files to the run directory") == 1


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    plugin = make_plugin(tmp_path)
    plugin.lazylayer_report_state(StateEvent("resolved", "r", (STATE,)))
    (path,) = (tmp_path / "processes" / str(os.getpid()) / "state").iterdir()
    with path.open("rb") as held:
        plugin.lazylayer_report_state(StateEvent("completed", "r", (LayerState(DIGEST, 1000, 1000),)))
        assert held.read() == encode_state(STATE)
