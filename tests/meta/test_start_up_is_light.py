"""The command line explains itself without importing what only some commands need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"dynaconf", "fuse", "grpc", "httpx", "prometheus_client", "pytest", "rich", "sqlite3", "zstandard"}
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


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["mount", "--help"], ["config", "--help"]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    assert imported(*arguments) & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--version"], ["mount", "--help"]])
def test_plugins_are_imported_for_the_list_of_commands_only(arguments: list[str]) -> None:
    assert [name for name in imported(*arguments) if name.startswith("lazylayer_")] == []


@pytest.mark.parametrize("module", ["lazylayer_resolver_registry.transport", "lazylayer_keychain_kube.api"])
def test_a_client_brings_no_command_line(module: str) -> None:
    """httpx would import its own, with rich and pygments, where they are installed; here they are."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    modules = set(json.loads(done.stdout))
    assert "httpx" in modules
    assert modules & {"pygments", "rich"} == set()
