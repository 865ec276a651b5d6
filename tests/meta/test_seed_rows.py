"""Every behaviour of the Go original that started this project is shown by a test that names its row."""

from __future__ import annotations

import re

import pytest

from meta.repository import ROOT

ROWS = {
    1: "what can be configured: caches, their sizes, prefetching, tracing",
    2: "keychains are asked in order, and the first answer wins",
    3: "labels name reference, layer and chain; those of the CRI win; each missing one is an error of its own",
    4: "a mount resolves its layer and those of the chain at once; results are kept, failures are not",
    5: "a mount checks that the source answers before it mounts",
    6: "a prefetch goes up to the landmark, or a size, or nowhere, and fills the chunk cache",
    7: "the whole layer is fetched in the background",
    8: "mounts, checks, prefetches and reads pause the background",
    9: "a check knows its mounts, waits for the prefetch, and renews a connection that fails",
    10: "the mount is read-only, seen by others, with setuid and owners as they are",
    11: "listings are sorted, without landmarks and whiteout files, with whiteouts as devices",
    12: "lookups agree with listings, and know the state directory",
    13: "an opaque directory has its xattr, listed first; missing ones say so",
    14: "access follows owner, group and others; root may do all",
    15: "a read that fails is EIO and leaves a line in the state file; past the end there is nothing",
    16: "the state directory holds the layer's state as JSON, for root only",
    17: "unmounting forgets the mountpoint",
    18: "waiting never deadlocks and wakes every waiter",
}


@pytest.mark.parametrize("row", ROWS)
def test_row_has_a_test(row: int) -> None:
    tests = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "plugins").glob("*/tests/*.py"), *(ROOT / "core").rglob("*.py")]
    assert any(re.search(rf"mark\.seed\([0-9, ]*\b{row}\b", path.read_text()) for path in tests), ROWS[row]
