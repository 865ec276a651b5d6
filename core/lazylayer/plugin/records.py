"""Record the state of each plugin, and why it cannot be used."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["ContractError", "PluginRecord", "PluginStatus"]

PluginStatus = Literal["ok", "disabled", "skipped", "error"]


class ContractError(Exception):
    """A plugin does not fit the contract, as to a hook and its argument, if these are named."""

    def __init__(self, message: str, hook: str = "", argument: str = "") -> None:
        super().__init__(message)
        self.hook = hook
        self.argument = argument


class PluginRecord(msgspec.Struct, frozen=True):
    """The state of one plugin, installed or only named by the configuration.

    `hooks` lists the hooks of a loaded plugin. `reason` explains a status other than `ok`, and names a
    remedy. `target` is the value of the entry point, `package:Class`. `options` are the plugin's options
    in force, None if it declares none; they may hold secrets. `preference` ranks the plugin for `auto`.
    `failure` is the exception behind the reason, if there was one.
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
    failure: BaseException | None = None
