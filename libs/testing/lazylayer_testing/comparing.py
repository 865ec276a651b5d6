"""Compare large values without showing them whole."""

from __future__ import annotations

__all__ = ["assert_same_bytes"]


def assert_same_bytes(found: bytes | memoryview | None, expected: bytes, what: str) -> None:
    """Fail unless `found` has the bytes of `expected`, and say where they begin to differ.

    pytest shows how two values differ, which takes minutes for megabytes where the variable `CI` is set.
    """
    if found is None:
        raise AssertionError(f"{what}: nothing was found; {len(expected)} bytes were expected")
    if found == expected:
        return
    pairs = zip(bytes(found), expected, strict=False)
    differs = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(found), len(expected)))
    raise AssertionError(f"{what}: {len(found)} bytes for {len(expected)}; they differ from byte {differs}")
