"""`lazylayer doctor`: what this machine can do for lazylayer, and what to change."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click
import msgspec

from lazylayer.api.mounting import Missing
from lazylayer.api.settings import Settings
from lazylayer.api.text import one_line
from lazylayer.cli.invocation import Invocation, wants_color
from lazylayer.errors import ConfigurationError, LazylayerError
from lazylayer.plugin.hooks import AUTO
from lazylayer.plugin.registry import Plugins

__all__ = ["Finding", "Verdict", "doctor", "examine"]

Verdict = Literal["ok", "note", "problem"]

_COLORS: Mapping[Verdict, str] = {"ok": "green", "note": "yellow", "problem": "red"}

_MOUNT_HOOK = "lazylayer_mount_tree"
_LITTLE_SPACE = 1024**3


@click.command()
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"findings": […]}.')
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Show what this machine can do, and what to change.

    Exits with 1 if something stops lazylayer from working as it is configured.
    """
    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration()
    settings = configuration.settings
    plugins = invocation.plugins(settings)
    plugins.configure(settings, configuration.plugin_tables)
    findings = examine(settings, plugins)
    if as_json:
        click.echo(msgspec.json.encode({"findings": [msgspec.to_builtins(finding) for finding in findings]}))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            verdict = click.style(f"{finding.verdict:<8}", fg=_COLORS[finding.verdict])
            line = f"{verdict}{finding.topic:<{width + 2}}{one_line(finding.text + remedy)}"
            click.echo(line, color=wants_color(1))
    context.exit(int(any(finding.verdict == "problem" for finding in findings)))


class Finding(msgspec.Struct, frozen=True):
    """One thing that was examined.

    A `note` could be better and stops nothing; a `problem` stops something. `remedy` says what to do
    about it, unless the text does.
    """

    topic: str
    verdict: Verdict
    text: str
    remedy: str = ""


def examine(settings: Settings, plugins: Plugins) -> list[Finding]:
    """Examine the machine, the plugins and the directories. Frontends may make a trial mount and remove it."""
    return [
        _machine(),
        *_plugins(plugins),
        *_frontends(settings, plugins),
        *_caches(settings, plugins),
        _directory("root", settings.root),
        _directory("run", settings.run),
        _overlayfs(),
        _inflater(),
    ]


def _machine() -> Finding:
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding("machine", "ok", f"Linux {platform.release()} on {platform.machine()}, Python {python}, as {user}")


def _plugins(plugins: Plugins) -> Iterator[Finding]:
    for record in plugins.records:
        if record.status == "error":
            yield Finding(f"plugin {record.name}", "problem", record.reason)
        elif record.status == "skipped":
            yield Finding(f"plugin {record.name}", "note", record.reason)


def _frontends(settings: Settings, plugins: Plugins) -> Iterator[Finding]:
    usable = []
    hooks = plugins.hooks()
    for record in plugins.records:
        if record.status != "ok" or _MOUNT_HOOK not in record.hooks:
            continue
        try:
            found = hooks.of(record.name).probe_frontend()
        except LazylayerError as error:
            found = Missing(str(error))
        if isinstance(found, Missing):
            yield Finding(f"frontend {record.name}", "note", found.reason, found.remedy)
        else:
            usable.append(record.name)
            yield Finding(f"frontend {record.name}", "ok", "works here")
    yield _choice(settings, hooks.candidates(_MOUNT_HOOK), usable)


def _choice(settings: Settings, preferred: list[str], usable: list[str]) -> Finding:
    wanted = settings.mount.frontend
    candidates = (settings.mount.prefer or preferred) if wanted == AUTO else (wanted,)
    chosen = next((name for name in candidates if name in usable), "")
    if chosen:
        return Finding("mounting", "ok", f'mounts are made with {chosen} (mount.frontend = "{wanted}")')
    remedy = "mend what the frontends report above"
    if usable:
        remedy = f'set mount.frontend = "{usable[0]}"'
    return Finding("mounting", "problem", f'mount.frontend = "{wanted}": no frontend that it allows works here', remedy)


def _caches(settings: Settings, plugins: Plugins) -> Iterator[Finding]:
    for purpose, wanted in (("chunks", settings.cache.chunks), ("ranges", settings.cache.ranges)):
        try:
            name = plugins.hooks().choose_cache(wanted).name
        except ConfigurationError as error:
            yield Finding(f"cache for {purpose}", "problem", str(error), "pip install lazylayer-cache-dir, for one")
            continue
        record = plugins.record(name)
        if record is None or record.status != "ok":
            reason = "is not installed" if record is None else f"is {record.status}: {record.reason}"
            yield Finding(
                f"cache for {purpose}", "problem", f"{name} {reason}", f"set cache.{purpose} to another plugin"
            )
        else:
            yield Finding(f"cache for {purpose}", "ok", name)


def _directory(key: str, path: str) -> Finding:
    topic = f"directory {key}"
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        return Finding(topic, "problem", f"{path} cannot be written", f"set {key} to a directory of yours")
    free = shutil.disk_usage(there).free
    text = f"{path}, {free / 1e9:.1f} GB free"
    if key == "root" and free < _LITTLE_SPACE:
        return Finding(topic, "note", text, "little room for caches on disk; free some, or set root elsewhere")
    return Finding(topic, "ok", text)


def _overlayfs() -> Finding:
    try:
        known = "\toverlay\n" in Path("/proc/filesystems").read_text()
    except OSError as error:
        return Finding("overlayfs", "note", f"unknown: {error}")
    if known:
        return Finding("overlayfs", "ok", "containers can be stacked on layers")
    return Finding("overlayfs", "note", "not loaded in the kernel; containers need it", "modprobe overlay")


def _inflater() -> Finding:
    if find_spec("isal") is None:
        return Finding("inflating", "note", "with zlib, at half the speed of isal", "pip install isal")
    return Finding("inflating", "ok", "with isal")
