"""The logger of lazylayer: loguru's, and silent until a program sets up the log (`lazylayer.cli.log`).

Every module of the core takes `logger` from here and not from loguru, whose import takes as long as all else that
`lazylayer --help` needs. So a program that only imports lazylayer hears nothing, and one that logs nothing does not
import loguru. Plugins use loguru itself, and disable their own package.
"""

from __future__ import annotations

from loguru import logger

__all__ = ["logger"]

logger.disable("lazylayer")
