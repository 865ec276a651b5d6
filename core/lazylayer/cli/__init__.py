"""The command line, `lazylayer …`. It may import every other room.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration (which includes a plugin that the
configuration needs), 130 interrupted. A failure is one line on standard error, `lazylayer: error: …`.

Begin reading in `commands`, which lists the core's commands and finds those of plugins. This module has all that
the commands of plugins need, and what a daemon needs to run and to be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer.cli.main import cli, main
from lazylayer.cli.program import load_options, load_program, load_settings, pass_program, run_directory
from lazylayer.cli.quantities import DURATION, SIZE
from lazylayer.cli.references import IMAGE, IMAGE_PATH, IMAGE_TEXT, TEXT, plain_http_override, plain_http_overrides
from lazylayer.faces import lazy_face

if TYPE_CHECKING:
    from lazylayer.cli.asking import InvalidRequestError, NoDaemonError, ask_daemon
    from lazylayer.cli.control import ProcessState, find_mount, processes, request_unmount
    from lazylayer.cli.controlserver import ControlServer, Conversation
    from lazylayer.cli.ending import Ending
    from lazylayer.cli.malloc import use_few_arenas

__all__ = [
    "DURATION",
    "IMAGE",
    "IMAGE_PATH",
    "IMAGE_TEXT",
    "SIZE",
    "TEXT",
    "ControlServer",
    "Conversation",
    "Ending",
    "InvalidRequestError",
    "NoDaemonError",
    "ProcessState",
    "ask_daemon",
    "cli",
    "find_mount",
    "load_options",
    "load_program",
    "load_settings",
    "main",
    "pass_program",
    "plain_http_override",
    "plain_http_overrides",
    "processes",
    "request_unmount",
    "run_directory",
    "use_few_arenas",
]

_MODULES = dict.fromkeys(("ProcessState", "find_mount", "processes", "request_unmount"), "control")
_MODULES |= dict.fromkeys(("InvalidRequestError", "NoDaemonError", "ask_daemon"), "asking")
_MODULES |= {
    "Conversation": "controlserver",
    "ControlServer": "controlserver",
    "Ending": "ending",
    "use_few_arenas": "malloc",
}

__getattr__ = lazy_face(__name__, _MODULES)
