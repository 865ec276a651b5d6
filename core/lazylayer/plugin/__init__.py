"""Find, load, register and call plugins.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading in `registry` holds the plugins of one program; `hooks` is the typed façade over pluggy.
"""

from __future__ import annotations
