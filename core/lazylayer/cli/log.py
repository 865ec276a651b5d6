"""Write log messages to stderr. A program sets this up once; libraries and plugins never do.

Lines are text for people or JSON for machines. Tracebacks show no local variables (loguru would show
them), secrets in a message are struck out, and control characters cannot forge lines or control a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from lazylayer.api.text import one_line, scrub
from lazylayer.cli.secretnames import is_secret_name
from lazylayer.logger import logger

if TYPE_CHECKING:
    from loguru import Message, Record

    from lazylayer.api.settings import LogSettings
    from lazylayer.plugin.records import PluginRecord

__all__ = ["enable_packages", "enable_plugins", "package_of", "set_up"]


def set_up(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Write messages of `settings.level` and above to `stream`, by default to the current stderr.

    Replaces earlier settings, including loguru's default. Libraries that use the standard logging are
    heard from WARNING on: some log addresses with tokens below that.
    """
    render = _as_json if settings.format == "json" else _as_text

    def write(message: Message) -> None:
        out = sys.stderr if stream is None else stream
        line = render(message.record) + "\n"
        encoding = out.encoding or "utf-8"
        out.write(line.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()

    logger.remove()
    logger.add(write, level=settings.level, format="{message}", diagnose=False, backtrace=False)
    logger.enable("lazylayer")
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)


def enable_packages(packages: Iterable[str]) -> None:
    """Let the plugins in `packages` write to the log; like every library, they are silent by default."""
    for package in packages:
        logger.enable(package)


def enable_plugins(records: Iterable[PluginRecord]) -> None:
    """Let the plugins that can be used write to the log."""
    enable_packages(package_of(record) for record in records if record.status == "ok")


def package_of(record: PluginRecord) -> str:
    """Return the top-level package of a plugin; empty for one that is not installed."""
    return record.target.partition(":")[0].partition(".")[0]


def _as_text(record: Record) -> str:
    time = record["time"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    line = f"{time} {record['level'].name} {record['name']}: {one_line(record['message'])}"
    trace = _trace(record)
    return f"{line}\n{trace}" if trace else line


def _as_json(record: Record) -> str:
    fields: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "logger": record["name"],
        "message": scrub(record["message"]),
    }
    for name, value in record["extra"].items():
        if name not in fields:
            fields[name] = value if isinstance(value, int | float) else _scrub_field(name, str(value))
    trace = _trace(record)
    if trace:
        fields["traceback"] = trace
    return json.dumps(fields)


def _scrub_field(name: str, value: str) -> str:
    return "***" if is_secret_name(name) else scrub(value)


def _trace(record: Record) -> str:
    exception = record["exception"]
    if exception is None or exception.type is None:
        return ""
    lines = traceback.format_exception(exception.type, exception.value, exception.traceback)
    return "\n".join(one_line(line) for line in "".join(lines).rstrip("\n").split("\n"))


class _ToLoguru(logging.Handler):
    """A handler that passes records of the standard logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        message = record.getMessage()
        logger.opt(exception=record.exc_info).patch(lambda each: each.__setitem__("name", record.name)).log(
            level, "{message}", message=message
        )
