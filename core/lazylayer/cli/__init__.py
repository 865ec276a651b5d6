"""The command line, `lazylayer …`. It may import every other room.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration (which includes a plugin that the
configuration needs), 130 interrupted. A failure is one line on standard error, `lazylayer: error: …`.

Begin reading in `commands`, which lists the core's commands and finds those of plugins. This module has all that
the commands of plugins need.
"""

from __future__ import annotations

from lazylayer.cli.main import cli, main
from lazylayer.cli.program import load_options, load_program, load_settings, pass_program
from lazylayer.cli.references import IMAGE, IMAGE_PATH, plain_http_override, plain_http_overrides

__all__ = [
    "IMAGE",
    "IMAGE_PATH",
    "cli",
    "load_options",
    "load_program",
    "load_settings",
    "main",
    "pass_program",
    "plain_http_override",
    "plain_http_overrides",
]
