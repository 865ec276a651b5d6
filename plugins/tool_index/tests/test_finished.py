"""Finished indexes of layers are kept whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer.api.oci import sha256_digest
from lazylayer.errors import BuildError
from lazylayer_tool_index.finished import FinishedZtocs


def test_a_damaged_finished_index_is_not_taken(tmp_path: Path) -> None:
    finished = FinishedZtocs(tmp_path / "work")
    layer = sha256_digest(b"a layer")
    finished.keep(layer, 5, b"its zTOC")
    assert finished.find(layer, 5) == b"its zTOC"
    assert finished.find(layer, 6) is None
    (path,) = (tmp_path / "work").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert finished.find(layer, 5) is None


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    finished = FinishedZtocs(tmp_path / "file" / "work")
    assert finished.find(sha256_digest(b""), 5) is None
    with pytest.raises(BuildError, match="cannot write: Not a directory; name another directory with --work"):
        finished.keep(sha256_digest(b""), 5, b"its zTOC")


def test_what_was_used_is_removed(tmp_path: Path) -> None:
    other = FinishedZtocs(tmp_path / "work")
    other.keep(sha256_digest(b"another"), 5, b"")
    finished = FinishedZtocs(tmp_path / "work")
    finished.keep(sha256_digest(b"a layer"), 5, b"its zTOC")
    finished.remove()
    assert len(list((tmp_path / "work").iterdir())) == 1
    other.remove()
    assert not (tmp_path / "work").exists()
