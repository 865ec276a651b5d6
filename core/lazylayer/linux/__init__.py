"""Read what the kernel says about mounts; begin in `mounttable`.

This room may import `lazylayer.errors` and `lazylayer.api`.
"""

from __future__ import annotations
