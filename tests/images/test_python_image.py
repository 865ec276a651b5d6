"""The image with Python in it runs, as it is and as the Go tools convert it."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.go_image import GoImages
from images.python_image import PYTHON
from lazylayer_testing.servers.containerd import Containerd

_SCRIPT = "import asyncio, ctypes, json, sqlite3, ssl; print('all of it', 'loads')"


@pytest.mark.servers
@pytest.mark.parametrize("form", ["plain", "estargz"])
def test_a_container_runs_the_python_image(
    containerd: Containerd, go_images: GoImages, python_layers: list[Path], form: str
) -> None:
    assert len(python_layers) == 2
    reference = go_images.push_plain(python_layers) if form == "plain" else go_images.push_estargz(python_layers)
    containerd.ctr("images", "pull", "--plain-http", reference)
    assert containerd.ctr("run", "--rm", reference, f"python-{form}", PYTHON, "-c", _SCRIPT) == "all of it loads\n"
