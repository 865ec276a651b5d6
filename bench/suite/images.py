"""Convert trees to images, and serve them from a registry if one is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazylayer_testing.servers.docker_registry import DockerRegistry
from suite.commands import lazylayer
from suite.machine import why_not

__all__ = ["TAG", "convert_directory", "served_image"]

TAG = "estargz"


def convert_directory(tree: Path, layout: Path, scratch: Path) -> None:
    """Convert the tree to an eStargz image of one layer, tagged `TAG`, in a new OCI image layout."""
    settings = {"root": str(scratch / "convert-root"), "run": str(scratch / "convert-run")}
    lazylayer("convert", f"dir:{tree}", f"oci:{layout}:{TAG}", settings=settings)


@contextmanager
def served_image(tree: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """Yield the reference of an image of the tree and its registry's host, "" for an image on disk."""
    layout = scratch / "layout"
    convert_directory(tree, layout, scratch)
    if why_not(["registry"]):
        yield f"oci:{layout}:{TAG}", ""
        return
    with DockerRegistry(scratch / "registry") as registry:
        yield registry.push_layout(layout, TAG, f"bench/tree:{TAG}"), registry.host
