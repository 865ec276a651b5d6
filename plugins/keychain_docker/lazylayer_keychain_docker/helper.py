"""Runs Docker's credential helpers: `docker-credential-NAME get`.

Source of the protocol: the README of docker-credential-helpers, and `client/client.go` there. The
server goes to stdin; the answer is JSON on stdout; a helper that fails says why on stdout or stderr.

A helper runs in a session of its own with a time-out, and its output is bounded. What it prints is
shown in errors unless it could be an answer, which holds a secret.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from typing import IO

import msgspec

from lazylayer.source import Credentials

__all__ = ["CredentialHelper", "HelperError"]

_MAX_OUTPUT = 256 * 1024
_MAX_SHOWN = 300
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = "credentials not found"
_TOKEN_USER = "<token>"  # noqa: S105 - Docker's mark: the secret is an identity token


class HelperError(Exception):
    """A helper is missing, failed, took too long, or answered with something else; says what to do."""


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""


class CredentialHelper:
    """One helper program.

    :param name: as in config.json, `pass` for `docker-credential-pass`.
    :param timeout: seconds that it may take.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._name = name
        self._program = f"docker-credential-{name}"
        self._timeout = timeout

    def get(self, server: str) -> Credentials | None:
        """What the helper has for `server` (a host, or Docker Hub's URL), or None if it has nothing.

        Raises HelperError.
        """
        if not _NAME.fullmatch(self._name):
            raise HelperError(f"{self._name[:80]!r} cannot be a helper's name")
        program = shutil.which(self._program)
        if program is None:
            raise HelperError(f"there is no {self._program} on PATH; install it, or remove it from the file")
        code, output, errors = self._run(program, server)
        if code != 0:
            said = _printable(output, errors)
            if _NOT_FOUND in said.lower():
                return None
            raise HelperError(f"{self._program} failed with exit code {code}: {said or 'it printed nothing'}")
        return self._decode(output)

    def _decode(self, output: bytes) -> Credentials | None:
        try:
            answer = msgspec.json.decode(output, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise HelperError(f"{self._program} printed something else than an answer ({len(output)} bytes)") from None
        if not answer.secret:
            return None
        if answer.username == _TOKEN_USER:
            return Credentials(identity_token=answer.secret, source=self._program)
        return Credentials(username=answer.username, password=answer.secret, source=self._program)

    def _run(self, program: str, server: str) -> tuple[int, bytes, bytes]:
        try:
            process = subprocess.Popen(
                [program, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise HelperError(f"{program} cannot be started: {error.strerror}") from error
        with process:
            try:
                output, errors = self._converse(process, server)
            finally:
                _end(process)
        return process.returncode, output, errors

    def _converse(self, process: subprocess.Popen[bytes], server: str) -> tuple[bytes, bytes]:
        """Until the helper ends. What it left behind in the background is not waited for."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        # A helper that needs no question may have closed its end.
        with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            stdin.write(f"{server}\n".encode())
        process.stdin = None
        printed: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        deadline = time.monotonic() + self._timeout
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ)
                for pipe in printed:
                    os.set_blocking(pipe.fileno(), False)
                    selector.register(pipe, selectors.EVENT_READ)
                while process.poll() is None:
                    ready = selector.select(max(0.0, deadline - time.monotonic()))
                    if not ready:
                        raise HelperError(f"{self._program} did not answer within {self._timeout:g} s")
                    for key, _ in ready:
                        if not isinstance(key.fileobj, int) and not self._take(key.fileobj, printed):  # type: ignore[arg-type]
                            selector.unregister(key.fileobj)
            for pipe in printed:
                while self._take(pipe, printed):
                    pass
        finally:
            os.close(ended)
        return bytes(printed[process.stdout]), bytes(printed[process.stderr])

    def _take(self, pipe: IO[bytes], printed: dict[IO[bytes], bytearray]) -> bool:
        """Reads what there is; False if there is nothing any more."""
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        printed[pipe] += data
        if len(printed[pipe]) > _MAX_OUTPUT:
            raise HelperError(f"{self._program} printed more than {_MAX_OUTPUT} bytes")
        return bool(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Its children too, which may be what hangs.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _printable(output: bytes, errors: bytes) -> str:
    """What a helper that failed said, without what might be an answer."""
    texts = [errors, b"" if b"{" in output else output]
    words = " ".join(text.decode(errors="replace").strip() for text in texts if text.strip())
    return "".join(each if each.isprintable() else " " for each in words)[:_MAX_SHOWN].strip()
