"""Fetches the program that an image runs, and the libraries and modules it loads, while the container is made.

prefetch    wave after wave, what the last one showed to be needed
command     which files a command of an image config leads to
elf         what a program or library says that it needs
linking     where the dynamic loader finds a library
python      what a Python interpreter reads when it is started
imports     what a Python module imports, by its source
bytecode    what a Python module imports, where it is compiled
extensions  what a Python extension module may import, by its constants
modules     where Python finds modules
"""

from __future__ import annotations

from loguru import logger

from lazylayer_prefetch_entrypoint.plugin import NAME, Options, PrefetchEntrypoint

__all__ = ["NAME", "Options", "PrefetchEntrypoint"]

logger.disable(__name__)
