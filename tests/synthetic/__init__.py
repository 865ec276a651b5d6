"""Engine objects and installed distributions that only the tests of the core need."""

from __future__ import annotations
