"""The command line, `lazylayer …`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration (which includes a plugin that the
configuration needs), 130 interrupted. A failure is one line on stderr, `lazylayer: error: …`.
Commands of the core are listed in `lazylayer.cli.commands`; plugins add theirs by a hook.
"""

from __future__ import annotations

from lazylayer.cli.main import cli, main
from lazylayer.cli.program import load_options, load_program, load_settings, pass_program

__all__ = ["cli", "load_options", "load_program", "load_settings", "main", "pass_program"]
