"""Fetches the program that an image runs, and the libraries it is linked with, while the container is made.

command     which files a command of an image config leads to
elf         what a program or library says that it needs
linking     where the dynamic loader finds a library
"""

from __future__ import annotations

from loguru import logger

from lazylayer_prefetch_entrypoint.plugin import NAME, Options, PrefetchEntrypoint

__all__ = ["NAME", "Options", "PrefetchEntrypoint"]

logger.disable(__name__)
