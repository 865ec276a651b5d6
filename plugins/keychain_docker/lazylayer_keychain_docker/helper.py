"""Run Docker's credential helpers: `docker-credential-NAME get`.

Source of the protocol: the README of docker-credential-helpers, and `client/client.go` there. The
server goes to stdin; the answer is JSON on stdout; a helper that fails says why on stdout or stderr.

What a helper that failed prints is shown, unless it could be an answer, which holds a secret.
"""

from __future__ import annotations

import re
import shutil

import msgspec

from lazylayer.api.credentials import Credentials
from lazylayer.api.decoding import decode_json
from lazylayer.errors import FormatError
from lazylayer_logins.helperprograms import HelperError, run_helper

__all__ = ["CredentialHelper"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = "credentials not found"
_TOKEN_USER = "<token>"  # noqa: S105 - Docker's mark: the secret is an identity token


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
        """Return the helper's credentials for `server` (a host, or Docker Hub's URL), or None.

        Raises HelperError.
        """
        if not _NAME.fullmatch(self._name):
            raise HelperError(f"{self._name[:80]!r} invalid name of a helper")
        program = shutil.which(self._program)
        if program is None:
            raise HelperError(f"{self._program} is not on PATH; install it, or remove it from the file")
        helper = run_helper([program, "get"], question=f"{server}\n".encode(), timeout=self._timeout)
        if helper.code != 0:
            said = helper.complaint()
            if _NOT_FOUND in said.lower():
                return None
            raise HelperError(f"{self._program} failed with exit code {helper.code}: {said or 'it printed nothing'}")
        return self._decode(helper.output)

    def _decode(self, output: bytes) -> Credentials | None:
        try:
            answer = decode_json(output, _Answer)
        except FormatError:
            raise HelperError(f"{self._program} printed an invalid answer ({len(output)} bytes)") from None
        if not answer.secret:
            return None
        if answer.username == _TOKEN_USER:
            return Credentials(identity_token=answer.secret, source=self._program)
        return Credentials(username=answer.username, password=answer.secret, source=self._program)
