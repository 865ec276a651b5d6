"""Read what the kernel says about mounts.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading in `mounttable`.
"""

from __future__ import annotations
