"""Members in flight, and the readers that wait for them."""

from __future__ import annotations

import threading

from lazylayer.errors import LazylayerError


class Flight:
    """One member in flight: who needs it waits for `done`."""

    __slots__ = ("abandoned", "chunks", "done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.chunks: dict[int, bytes | LazylayerError] = {}
        self.error: LazylayerError | None = None
        self.abandoned = False

    @property
    def is_good(self) -> bool:
        """Whether every chunk is what it should be."""
        return self.error is None and not any(isinstance(each, LazylayerError) for each in self.chunks.values())

    def failure(self) -> LazylayerError:
        """What is wrong with a flight that is not good."""
        wrong = [each for each in self.chunks.values() if isinstance(each, LazylayerError)]
        return self.error or wrong[0]
