"""The faces of the engine's rooms: what programs that are plugins import."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

ROOMS = ("lazylayer.fetching", "lazylayer.layers", "lazylayer.mounts")


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_face_can_be_imported(room: str) -> None:
    face = importlib.import_module(room)
    for name in face.__all__:
        assert getattr(face, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = face.nothing


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_imports_nothing_before_it_is_asked(room: str) -> None:
    script = f"import sys, {room}; print([each for each in sys.modules if each.startswith('{room}.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
