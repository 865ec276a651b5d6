"""Fixtures that several end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.go_image import GoImages


@pytest.fixture(scope="session")
def reference(go_images: GoImages, python_layers: list[Path]) -> str:
    """An eStargz image in which a container can run Python, unless a module has another."""
    return go_images.push_estargz(python_layers)
