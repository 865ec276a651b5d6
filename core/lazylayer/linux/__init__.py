"""Call the kernel: mount(2), and its table of mounts.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading in `mountcalls`.
"""

from __future__ import annotations
