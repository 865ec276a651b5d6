"""Real servers on 127.0.0.1, each in a directory of its own, for tests, benchmarks and by hand."""

from __future__ import annotations
