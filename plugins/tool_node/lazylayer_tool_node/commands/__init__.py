"""The commands `lazylayer convert`, `verify` and `diff`."""

from __future__ import annotations
