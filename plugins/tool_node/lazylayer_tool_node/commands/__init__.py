"""The commands; a module is imported when its command is used."""

from __future__ import annotations
