"""Show progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ProgressBar"]


class ProgressBar:
    """A progress bar on a terminal, and nothing elsewhere or without the extra `rich`."""

    def __init__(self) -> None:
        self.advance: Callable[[int], None] = lambda _: None
        self.begin: Callable[[str, int | None], None] = lambda _, __: None
        self._bar = _rich_bar(self) if sys.stderr.isatty() else None

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)


@contextmanager
def _rich_bar(progress: ProgressBar) -> Iterator[None]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        progress.begin = lambda what, total: bar.update(task, description=what, total=total)
        progress.advance = lambda size: bar.advance(task, size)
        yield
