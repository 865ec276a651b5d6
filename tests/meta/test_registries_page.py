"""The examples of docs/registries.md are understood."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lazylayer.configuration.loading import load_configuration
from lazylayer.plugin.options import read_options
from lazylayer_resolver_registry.hosts import Hosts
from lazylayer_resolver_registry.options import Options
from meta.repository import ROOT

PAGE = (ROOT / "docs" / "registries.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
README = (ROOT / "plugins" / "resolver_registry" / "README.md").read_text()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_understood(example: str, tmp_path: Path) -> None:
    for file in re.findall(r'"(/etc/lazylayer/[^"]+)"', example):
        local = tmp_path / Path(file).name
        local.touch()
        example = example.replace(file, str(local))
    if example.startswith("server"):
        directory = tmp_path / "docker.io"
        directory.mkdir()
        (directory / "mirror.crt").touch()
        (directory / "hosts.toml").write_text(example)
        example = f'[resolver]\nconfig_path = "{tmp_path}"'
    file = tmp_path / "lazylayer.toml"
    file.write_text(example)
    tables = load_configuration(file, (), {}).plugin_tables
    hosts = Hosts(read_options(tables, "resolver_registry", Options, "resolver").resolver)
    assert hosts.endpoints("docker.io")[-1].url == "https://registry-1.docker.io/v2"


def test_all_options_are_explained() -> None:
    for name, default in zip(Options.__struct_fields__, Options.__struct_defaults__, strict=True):
        assert name == "resolver" or f"| `{name}` | `{str(default).lower()}` |" in README
