"""A token server for docker-registry: Docker's token protocol, with tokens that the registry verifies.

Source: CNCF Distribution, "Token Authentication Implementation": a JSON web token, signed with a key
whose certificate is in the token and is among those that the registry trusts.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from lazylayer_testing.servers.certificates import Authority

__all__ = ["TokenServer"]

_ISSUER = "token server of a test"
_SERVICE = "registry of a test"


class TokenServer:
    """Gives tokens to the users that it knows. Runs inside the `with` block.

    `trusted` is the file that the registry reads when it starts; after `change_key` and a restart of
    the registry every token of before is worthless.
    """

    def __init__(self, directory: Path, users: dict[str, str]) -> None:
        self.trusted = directory / "trusted.crt"
        self.users = users
        self.exchanges: list[list[str]] = []
        """The scopes of each request that was granted."""
        self._directory = directory
        self._keys = 0
        self._certificate = self._key = Path()
        self.change_key()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def authentication(self) -> str:
        """The section of docker-registry's configuration."""
        return "\n".join(
            (
                "auth:",
                "  token:",
                f"    realm: {self.url}",
                f"    service: {_SERVICE}",
                f"    issuer: {_ISSUER}",
                f"    rootcertbundle: {self.trusted}",
            )
        )

    def change_key(self) -> None:
        """From now on tokens are signed with another key."""
        self._keys += 1
        authority = Authority(self._directory / f"key-{self._keys}")
        self._certificate, self._key = authority.issue("signer")
        self.trusted.write_bytes(authority.certificate.read_bytes())

    def grant(self, user: str, scopes: list[str]) -> str:
        """Return a token for all scopes that a request asks for."""
        self.exchanges.append(scopes)
        lines = self._certificate.read_text().split("-----")[2]
        header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(lines.split())]}
        now = int(time.time())
        access = [dict(zip(("type", "name", "actions"), each.split(":"), strict=True)) for each in scopes]
        claims = {
            **{"iss": _ISSUER, "sub": user, "aud": _SERVICE, "jti": str(len(self.exchanges))},
            **{"iat": now, "nbf": now - 10, "exp": now + 300},
            "access": [{**each, "actions": each["actions"].split(",")} for each in access],
        }
        signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        return f"{signed}.{_encode(self._sign(signed.encode()))}"

    def _sign(self, data: bytes) -> bytes:
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        der = subprocess.run(command, input=data, capture_output=True, check=True).stdout
        # SEQUENCE of two INTEGERs, where a token wants two numbers of 32 bytes.
        first = der[4 : 4 + der[3]]
        second = der[6 + len(first) :]
        return b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in (first, second))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "").removeprefix("Basic ")
                user, _, password = base64.b64decode(given).decode().partition(":")
                scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
                known = outer.users.get(user) == password and bool(user)
                body = json.dumps({"token": outer.grant(user, scopes), "expires_in": 300} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
