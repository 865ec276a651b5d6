"""Convert, verify and compare images, and record what a workload reads: commands of `lazylayer`."""

from __future__ import annotations
