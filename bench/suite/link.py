"""A slow link: a TCP proxy on a free port of 127.0.0.1 that adds round-trip time and limits bandwidth.

    python bench/suite/link.py HOST:PORT --milliseconds 20 --megabits 200

Prints its own port on the first line and serves until its standard input ends. All connections
share the bandwidth, separately for each direction. A new connection costs one round trip before its first
byte is sent, like a handshake. Losses and slow starts are not simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from contextlib import suppress
from types import TracebackType

__all__ = ["Link"]

_PIECE = 16 * 1024
_IN_FLIGHT = 256
"""Pieces in flight per direction of a connection, at most."""


class Link:
    """The proxy as a child process; a context manager. `host` is its own address."""

    def __init__(self, server: str, *, milliseconds: float, megabits: float) -> None:
        options = ["--milliseconds", str(milliseconds), "--megabits", str(megabits)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, server, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.host = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("")


class _Direction:
    """One direction of the link, shared by all connections: computes when a piece arrives."""

    def __init__(self, seconds: float, bytes_per_second: float) -> None:
        self._seconds = seconds
        self._rate = bytes_per_second
        self._free_at = 0.0

    def send(self, size: int, now: float) -> float:
        self._free_at = max(self._free_at, now) + size / self._rate
        return self._free_at + self._seconds


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction, start: float) -> None:
    loop = asyncio.get_running_loop()
    flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)

    async def deliver() -> None:
        while True:
            arrival, piece = await flying.get()
            if (wait := arrival - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while piece := await reader.read(_PIECE):
            await flying.put((way.send(len(piece), max(loop.time(), start)), piece))
    except ConnectionError:
        pass
    await flying.put((way.send(0, loop.time()), b""))
    await asyncio.gather(delivery, return_exceptions=True)


async def _serve(server: str, seconds: float, bytes_per_second: float) -> None:
    host, _, port = server.rpartition(":")
    up, down = (_Direction(seconds / 2, bytes_per_second) for _ in range(2))

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshaken = asyncio.get_running_loop().time() + seconds
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        # Connections that are open when the link ends are cut.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                _carry(reader, far_writer, up, handshaken), _carry(far_reader, writer, down, handshaken)
            )

    listener = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listener.close()


def _main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("server")
    parser.add_argument("--milliseconds", type=float, default=20)
    parser.add_argument("--megabits", type=float, default=200)
    options = parser.parse_args()
    asyncio.run(_serve(options.server, options.milliseconds / 1000, options.megabits * 1e6 / 8))


if __name__ == "__main__":
    _main()
