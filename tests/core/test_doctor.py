"""What the doctor finds on a machine, and what it advises."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lazylayer.api.mounting import Missing, Works
from lazylayer.api.settings import CacheSettings, MountSettings, Settings
from lazylayer.cli.doctor import Finding, examine
from lazylayer.errors import MountError
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins
from lazylayer_testing.synthetic import DictCache
from synthetic.hooks import plugin


def plugins_of(answers: dict[str, str | Exception], *records: PluginRecord) -> Plugins:
    """Frontends that answer so, and a cache; and what else is known."""
    plugins = Plugins(records, {})
    plugins.configure(Settings())
    for name, answer in reversed(answers.items()):
        plugins.add(name, plugin(probe_frontend=functools.partial(probe, answer), mount_tree=lambda: None))
    plugins.add("cache_memory", plugin(open_cache=DictCache))
    return plugins


def probe(answer: str | Exception) -> Works | Missing:
    if isinstance(answer, Exception):
        raise answer
    return Missing(answer) if answer else Works()


def find(tmp_path: Path, plugins: Plugins, **settings: Any) -> dict[str, Finding]:
    found = examine(Settings(root=str(tmp_path), run=str(tmp_path), **settings), plugins)
    return {finding.topic: finding for finding in found}


def test_the_frontend_that_mounts_are_made_with(tmp_path: Path) -> None:
    found = find(tmp_path, plugins_of({"frontend_erofs": "the kernel is old", "frontend_fuse": ""}))
    assert found["frontend frontend_erofs"] == Finding("frontend frontend_erofs", "note", "the kernel is old")
    assert found["frontend frontend_fuse"].verdict == "ok"
    assert found["mounting"].verdict == "ok"
    assert "frontend_fuse" in found["mounting"].text


def test_nothing_can_mount(tmp_path: Path) -> None:
    found = find(tmp_path, plugins_of({"frontend_fuse": MountError("broken")}))
    assert found["frontend frontend_fuse"].text == "broken"
    assert found["mounting"].verdict == "problem"


def test_a_frontend_that_is_named_and_does_not_work(tmp_path: Path) -> None:
    plugins = plugins_of({"frontend_erofs": "no", "frontend_fuse": ""})
    found = find(tmp_path, plugins, mount=MountSettings(frontend="frontend_erofs"))
    assert found["mounting"].verdict == "problem"
    assert found["mounting"].remedy == 'set mount.frontend = "frontend_fuse"'


def test_cache_is_the_preferred_one(tmp_path: Path) -> None:
    assert find(tmp_path, plugins_of({}))["cache for chunks"] == Finding("cache for chunks", "ok", "cache_memory")
    found = find(tmp_path, Plugins((), {}))
    assert found["cache for ranges"].verdict == "problem"
    assert "no cache plugin is usable" in found["cache for ranges"].text


def test_plugins_that_cannot_be_used(tmp_path: Path) -> None:
    plugins = plugins_of(
        {"frontend_fuse": ""},
        PluginRecord("broken", status="error", reason="no module"),
        PluginRecord("shy", status="skipped", reason="not here"),
        PluginRecord("off", status="disabled"),
    )
    found = find(tmp_path, plugins, cache=CacheSettings(chunks="broken", ranges="missing"))
    assert found["plugin broken"].verdict == "problem"
    assert found["plugin shy"].verdict == "note"
    assert "plugin off" not in found
    assert "no module" in found["cache for chunks"].text
    assert "not installed" in found["cache for ranges"].text


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(root=str(tmp_path / "new" / "deep"), run=str(tmp_path / "file"))
    found = {each.topic: each for each in examine(settings, plugins_of({}))}
    assert found["directory root"].verdict == "ok"
    assert found["directory run"].verdict == "problem"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("json_wanted", [False, True])
def test_command(tmp_path: Path, json_wanted: bool) -> None:
    options = [f"--set=root={tmp_path}", f"--set=run={tmp_path}"]
    arguments = ["doctor", *(["--json"] if json_wanted else [])]
    done = subprocess.run(
        [sys.executable, "-m", "lazylayer", *options, *arguments],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    if json_wanted:
        topics = [each["topic"] for each in json.loads(done.stdout)["findings"]]
        assert {"machine", "mounting", "overlayfs"} <= set(topics)
    else:
        assert done.stdout.startswith("ok      machine ")
