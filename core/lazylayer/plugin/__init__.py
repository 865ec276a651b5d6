"""Find, load, register and call plugins.

This room may import `lazylayer.errors` and `lazylayer.api`.
Begin reading with `registry`, which holds the plugins of one program, and `hooks`, the typed façade over pluggy.
"""

from __future__ import annotations
