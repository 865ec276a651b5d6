"""Call the kernel: mount(2), its table of mounts, and malloc.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading in `mountcalls`.
"""

from __future__ import annotations
