"""The contract between lazylayer and its plugins: everything stable is here or in a library.

This room may import `lazylayer.errors`, msgspec and pluggy.
Begin reading in `hookspecs`, which explains every hook; `opened` is what hooks are given.
"""

from __future__ import annotations
