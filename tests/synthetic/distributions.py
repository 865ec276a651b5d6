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
) -> None:
    """Puts a distribution into `directory`, which is to be on `sys.path`.

    :param entry_points: plugins by name, `module` or `module:Class`.
    :param modules: source texts by module name.
    """
    info = directory / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = [f"{name} = {value}\n" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("[lazylayer.plugins]\n" + "".join(lines))
    for name, source in (modules or {}).items():
        (directory / f"{name}.py").write_text("from __future__ import annotations\n" + source)
