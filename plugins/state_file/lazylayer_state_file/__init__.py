"""A layer's state as JSON, in the mount and in the run directory."""

from __future__ import annotations
