"""Turn files, the environment and `--set` into typed settings.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading in `loading`.
"""

from __future__ import annotations
