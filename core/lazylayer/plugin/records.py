"""Record what is known of each plugin."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["PluginRecord", "PluginStatus"]

PluginStatus = Literal["ok", "disabled", "skipped", "error"]


class PluginRecord(msgspec.Struct, frozen=True):
    """What is known of one plugin: an installed one, or one that the configuration asks for.

    `hooks` are the hooks that it implements, empty unless it was loaded. `reason` says why it is not
    `ok`, and what would help. `target` is the value of its entry point, `package:Class`. `options` are
    those that the configuration gives it, None if it declares none; they may hold secrets.
    `preference` is how strongly `auto` prefers it to plugins with the same hook.
    """

    name: str
    distribution: str = ""
    version: str = ""
    status: PluginStatus = "ok"
    reason: str = ""
    hooks: tuple[str, ...] = ()
    target: str = ""
    options: msgspec.Struct | None = None
    preference: int = 0
