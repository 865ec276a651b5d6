"""Mounts through FUSE, wherever FUSE works."""

from __future__ import annotations
