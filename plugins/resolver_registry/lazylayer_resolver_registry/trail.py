"""The way that a request takes: hosts, keychains, tokens, redirects. `lazylayer login-check` shows it.

The steps are records of the log at DEBUG, marked, so that a log at that level shows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loguru import logger

__all__ = ["following", "step"]

_MARK = "lazylayer_step"


def step(message: str, **values: object) -> None:
    """Tells one step; `message` is a template for `values`, none of which is secret."""
    logger.opt(depth=1).bind(**{_MARK: True}).debug(message, **values)


@contextmanager
def following(tell: Callable[[str], None]) -> Iterator[None]:
    """Passes every step to `tell` meanwhile, from whatever thread."""
    sink = logger.add(
        lambda line: tell(line.record["message"]),
        level="DEBUG",
        format="{message}",
        filter=lambda record: _MARK in record["extra"],
    )
    try:
        yield
    finally:
        logger.remove(sink)
