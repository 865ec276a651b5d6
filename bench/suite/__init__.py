"""What every workload of the benchmarks shares: subjects, trees, results, and how they are shown."""

from __future__ import annotations
