"""Run helper programs that hand out credentials, with a time-out and bounded output.

A helper runs in a session of its own, without a terminal. One that takes too long or prints too much
is killed with all its children; what a helper left in the background when it ended is not waited for.
Nothing is logged: what these programs print is secret. Safe to use from any thread.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from lazylayer.errors import LazylayerError

__all__ = ["FinishedHelper", "HelperError", "run_helper"]

_MAX_SHOWN = 300


class HelperError(LazylayerError):
    """A helper did not start, took too long, or printed too much; the message names it."""


class FinishedHelper(msgspec.Struct, frozen=True):
    """A helper that ended: its exit code (negative for a signal) and its output, kept out of `repr`."""

    code: int
    output: bytes
    errors: bytes

    def __repr__(self) -> str:
        return f"FinishedHelper(code={self.code}, …)"

    def complaint(self) -> str:
        """Return the program's message: one short line, without anything that looks like an answer in JSON."""
        texts = [self.errors, b"" if b"{" in self.output else self.output]
        words = " ".join(text.decode(errors="replace").strip() for text in texts if text.strip())
        return "".join(each if each.isprintable() else " " for each in words)[:_MAX_SHOWN].strip()


def run_helper(
    command: Sequence[str],
    *,
    question: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float,
    max_output: int = 256 * 1024,
) -> FinishedHelper:
    """Run `command` to its end.

    :param question: what it finds on its standard input; at most a few KiB.
    :param environment: its whole environment; None for ours.
    :param directory: its working directory; None for ours.
    :param timeout: seconds that it may take.
    :param max_output: bytes that it may print on each of its outputs.
    Raises HelperError.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=None if environment is None else dict(environment),
            cwd=directory,
        )
    except OSError as error:
        raise HelperError(f"{command[0]} cannot be started: {error.strerror}") from error
    with process:
        try:
            return _converse(process, name, question, timeout, max_output)
        finally:
            _end(process)


def _converse(
    process: subprocess.Popen[bytes], name: str, question: bytes, timeout: float, max_output: int
) -> FinishedHelper:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # A helper that needs no question may have closed its input.
    with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
        stdin.write(question)
    process.stdin = None
    output, errors = _Printed(process.stdout, name, max_output), _Printed(process.stderr, name, max_output)
    deadline = time.monotonic() + timeout
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for printed in (output, errors):
                selector.register(printed.pipe, selectors.EVENT_READ, printed)
            while process.poll() is None:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise HelperError(f"{name} did not answer within {timeout:g} s")
                for key, _ in ready:
                    if key.data is not None and not key.data.take():
                        selector.unregister(key.fileobj)
    finally:
        os.close(ended)
    for printed in (output, errors):
        while printed.take():
            pass
    return FinishedHelper(process.returncode, bytes(output.data), bytes(errors.data))


class _Printed:
    """One output of a helper, as far as it was read."""

    def __init__(self, pipe: IO[bytes], name: str, limit: int) -> None:
        self.pipe = pipe
        self.data = bytearray()
        self._name = name
        self._limit = limit
        os.set_blocking(pipe.fileno(), False)

    def take(self) -> bool:
        """Read the available bytes. Return False if there are none, which after a wait means the end."""
        try:
            data = os.read(self.pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        self.data += data
        if len(self.data) > self._limit:
            raise HelperError(f"{self._name} printed more than {self._limit} bytes")
        return bool(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Its children too, since they may be what hangs.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
