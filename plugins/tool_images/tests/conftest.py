"""Fixtures of the image tools' tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def as_root() -> None:
    """Skip where devices, owners and mounts cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root: devices, owners and mounts")
