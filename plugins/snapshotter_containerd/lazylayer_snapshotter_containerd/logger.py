"""The logger of this package: loguru's, silent until a program enables it.

`lazylayer pull` starts without it: importing loguru takes longer than a pull of what is there.
"""

from __future__ import annotations

from loguru import logger

__all__ = ["logger"]

logger.disable(__package__)
