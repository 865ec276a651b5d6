"""Sizes and durations with units as options of commands."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["DURATION", "SIZE"]


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A number of bytes, or a size like `64MiB`."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from lazylayer.api.units import parse_size

        if isinstance(value, int):
            return value
        try:
            return int(value) if value.isdigit() else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Duration(click.ParamType):  # type: ignore[type-arg]  # likewise
    """A number of seconds, or a duration like `1m30s`."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from lazylayer.api.units import parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            return float(value) if value.replace(".", "", 1).isdigit() else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = _Size()
DURATION = _Duration()
