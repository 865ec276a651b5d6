"""Installed distributions with plugins, made of files on disk, as pip would leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["install"]


def install(
    directory: Path,
    distribution: str,
    entry_points: Mapping[str, str],
    modules: Mapping[str, str] | None = None,
    version: str = "1.0",
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Put a distribution into `directory`, which is to be on `sys.path`.

    :param entry_points: plugins by name, `module` or `module:Class`.
    :param modules: source texts by module name.
    :param groups: more entry points, by group: `{"lazylayer.commands": {"hello": "module:hello"}}`.
    """
    info = directory / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines: list[str] = []
    for group, members in {"lazylayer.plugins": entry_points, **(groups or {})}.items():
        lines += [f"[{group}]\n", *(f"{name} = {value}\n" for name, value in members.items())]
    (info / "entry_points.txt").write_text("".join(lines))
    for name, source in (modules or {}).items():
        (directory / f"{name}.py").write_text("from __future__ import annotations\n" + source)
