"""Mounts through FUSE, wherever FUSE works: fusepy on libfuse 2.

FrontendFuse       the plugin: options, probe, mount
operations         the tree as answers to FUSE's requests, paths and names as bytes
session            one mount: made, served, unmounted
connection         how a mount is made and removed, as root or through fusermount
libfuse            what of libfuse is called, and the layout of its structures
threads            keeps Python's state for libfuse's threads
"""

from __future__ import annotations

from loguru import logger as _logger

from lazylayer_frontend_fuse.options import NAME, Options
from lazylayer_frontend_fuse.plugin import FrontendFuse

__all__ = ["NAME", "FrontendFuse", "Options"]

# A library is silent until a program asks to hear it.
_logger.disable(__name__)
