"""The command line explains itself without importing what only some commands need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lazylayer

HEAVY = {"dynaconf", "fuse", "grpc", "httpx", "prometheus_client", "pytest", "rich", "sqlite3", "zstandard"}
OF_PROGRAMS = {"asyncio", "loguru", "stevedore"}
"""Only commands that load plugins, or log, need these."""

RUN = """
import json, sys
from lazylayer.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def plugins_in(modules: set[str]) -> set[str]:
    ours = {path.name for path in Path(__file__).parents[2].glob("plugins/*/lazylayer_*")}
    return {name.partition(".")[0] for name in modules} & ours


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["mount", "--help"], ["config", "--help"], ["plugins", "--help"]]
)
def test_help_imports_nothing_heavy_and_no_plugin(arguments: list[str], tmp_path: Path) -> None:
    modules = imported(*arguments)
    assert modules & (HEAVY | OF_PROGRAMS | {"msgspec", "tomllib"}) == set()
    assert plugins_in(modules) == set()
    file = tmp_path / "lazylayer.toml"
    file.write_text('[plugins]\ndisabled = ["keychain_kube"]\n')
    modules = imported("--config", str(file), *arguments)
    assert modules & (HEAVY | OF_PROGRAMS | {"msgspec"}) == set()
    assert plugins_in(modules) == set()


def test_only_help_looks_for_commands_of_plugins() -> None:
    assert "lazylayer.cli.plugincommands" in imported("--help")
    assert "lazylayer.cli.plugincommands" not in imported("status", "--help")


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["config", "show"]])
def test_looking_at_a_machine_loads_no_plugin_and_no_log(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "lazylayer.toml").write_text(f'run = "{tmp_path}"\n')
    # dynaconf joins the layers of a configuration that says anything at all.
    modules = imported("--config", str(tmp_path / "lazylayer.toml"), *arguments)
    assert modules & (HEAVY - {"dynaconf"} | OF_PROGRAMS) == set()
    assert plugins_in(modules) == set()


def test_a_client_of_the_daemon_imports_nothing_but_the_standard_library_and_click(tmp_path: Path) -> None:
    (tmp_path / "lazylayer.toml").write_text(f'run = "{tmp_path}"\n')
    command = ["--config", str(tmp_path / "lazylayer.toml"), "pull", "registry.test/a:1"]
    done = subprocess.run([sys.executable, "-c", RUN, *command], stderr=subprocess.PIPE, check=False)
    assert b"no lazylayer daemon offers pull" in done.stderr
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert plugins_in(modules) == {"lazylayer_snapshotter_containerd"}
    assert modules & (HEAVY | OF_PROGRAMS | {"msgspec"}) == set()


@pytest.mark.parametrize(
    ("command", "plugin"),
    [
        ("convert", "lazylayer_tool_images"),
        ("index", "lazylayer_tool_index"),
        ("cri-proxy", "lazylayer_keychain_cri"),
        ("login-check", "lazylayer_resolver_registry"),
        ("metrics", "lazylayer_state_prometheus"),
        ("serve", "lazylayer_snapshotter_containerd"),
        ("verify", "lazylayer_tool_images"),
        ("explain", "lazylayer_tool_node"),
        ("fetch", "lazylayer_tool_node"),
    ],
)
def test_command_imports_its_own_plugin_only(command: str, plugin: str) -> None:
    modules = imported(command, "--help")
    assert plugins_in(modules) == {plugin}
    assert modules & HEAVY == set()


def test_library_is_silent_until_a_program_sets_up_the_log() -> None:
    script = """
import lazylayer.plugin.registry, lazylayer.program, lazylayer.mounts.filesystem, lazylayer.layers.store
from lazylayer.logger import logger
exec(compile("logger.error('from the core')", "x", "exec"), {"logger": logger, "__name__": "lazylayer.layers.store"})
exec(compile("logger.error('from elsewhere')", "x", "exec"), {"logger": logger, "__name__": "elsewhere"})
"""
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=True, text=True)
    assert "from elsewhere" in done.stderr
    assert "from the core" not in done.stderr


def test_core_takes_its_logger_from_one_place() -> None:
    core = Path(lazylayer.__file__).parent
    own = re.compile(r"^(?:from loguru import|import loguru)", re.MULTILINE)
    assert [path.name for path in sorted(core.rglob("*.py")) if own.search(path.read_text())] == ["logger.py"]


@pytest.mark.parametrize("module", ["lazylayer_resolver_registry.transport", "lazylayer_keychain_kube.api"])
def test_a_client_brings_no_command_line(module: str) -> None:
    """httpx would import its own, with rich and pygments, where they are installed; here they are."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    modules = set(json.loads(done.stdout))
    assert "httpx" in modules
    assert modules & {"pygments", "rich"} == set()
