"""A cache in another process, driven from a test: part of the conformance kit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType

from lazylayer.api.cache import Cache

__all__ = ["CacheProcess"]


class CacheProcess:
    """Opens the cache that `make_cache(max_bytes=…)` makes in a new Python process.

    `make_cache` is pickled, so that the process imports it under the same name; a TypeError says
    so if it cannot be. The process is ended on leaving the `with` block.
    """

    def __init__(self, make_cache: Callable[..., Cache], max_bytes: int) -> None:
        try:
            pickled = pickle.dumps(make_cache)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                "make_cache of a persistent cache must be picklable: a class or a functools.partial "
                f"of something at the top of a module ({error})"
            ) from error
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                pass_fds=[theirs.fileno()],
            )
        self._connection.send_bytes(pickled)
        self._call("open", max_bytes)

    def __enter__(self) -> CacheProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, key: str, data: bytes) -> None:
        """`Cache.put` there."""
        self._call("put", key, data)

    def get(self, key: str) -> bytes | None:
        """`Cache.get` there."""
        found = self._call("get", key)
        assert found is None or isinstance(found, bytes)
        return found

    def put_and_remove_for_ever(self, values: Mapping[str, bytes]) -> None:
        """Start to put and remove the values there, and return; only `kill` and `close` end it."""
        self._call("put_and_remove_for_ever", dict(values))

    def kill(self) -> None:
        """End the process with SIGKILL, whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Wait until the process has closed its cache and ended."""
        self._connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def _call(self, method: str, *arguments: object) -> object:
        self._connection.send((method, *arguments))
        try:
            return self._connection.recv()
        except EOFError:
            raise AssertionError(f"the other process ended in {method} with {self._process.wait()}") from None


def _serve(connection: Connection) -> None:
    make_cache: Callable[..., Cache] = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the test itself
    _, max_bytes = connection.recv()
    cache = make_cache(max_bytes=max_bytes)
    connection.send(None)
    try:
        while True:
            method, *arguments = connection.recv()
            if method == "put_and_remove_for_ever":
                connection.send(None)
                _put_and_remove_for_ever(connection, cache, *arguments)
            else:
                connection.send(getattr(cache, method)(*arguments))
    except EOFError:
        cache.close()


def _put_and_remove_for_ever(connection: Connection, cache: Cache, values: Mapping[str, bytes]) -> None:
    while not connection.poll():
        for key, data in values.items():
            cache.put(key, data)
        for key in values:
            cache.remove(key)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
