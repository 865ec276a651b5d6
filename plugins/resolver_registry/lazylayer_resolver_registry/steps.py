"""Record the steps of a request: hosts, keychains, tokens, redirects. `lazylayer login-check` shows them.

Steps are marked log records at level DEBUG, so that a log at that level shows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from lazylayer.api.text import scrub

if TYPE_CHECKING:
    from loguru import Record

__all__ = ["Step", "following", "step"]

_MARK = "lazylayer_step"


class Step(msgspec.Struct, frozen=True):
    """One step, as a sentence and as its values, without secrets."""

    message: str
    values: dict[str, str | int | float]


def step(message: str, **values: object) -> None:
    """Record one step; `message` is a template for `values`, none of which is secret."""
    logger.opt(depth=1).bind(**{_MARK: True}).debug(message, **values)


@contextmanager
def following(tell: Callable[[Step], None]) -> Iterator[None]:
    """Pass the steps of all threads to `tell` inside the `with` block."""
    sink = logger.add(
        lambda line: tell(_step(line.record)),
        level="DEBUG",
        format="{message}",
        filter=lambda record: _MARK in record["extra"],
    )
    try:
        yield
    finally:
        logger.remove(sink)


def _step(record: Record) -> Step:
    values = {
        name: value if isinstance(value, int | float) else scrub(str(value))
        for name, value in record["extra"].items()
        if name != _MARK
    }
    return Step(scrub(record["message"]), values)
