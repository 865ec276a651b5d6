"""Count rare branches in each Python process of a run: `make torture` puts this folder on PYTHONPATH."""

from __future__ import annotations

from torture.branches import count_branches

count_branches()
