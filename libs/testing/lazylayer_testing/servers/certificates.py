"""Certificates for tests, made by openssl: an authority of our own, and what it signs."""

from __future__ import annotations

import ssl
from pathlib import Path

from lazylayer_testing.servers.process import run

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str | Path) -> None:
    run(["openssl", *words])


class Authority:
    """A certificate authority whose files lie in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-days", "2", "-subj", "/CN=tests"),
            *("-addext", "keyUsage=critical,keyCertSign", "-out", self.certificate),
        )

    def issue(self, name: str, *, addresses: str = "IP:127.0.0.1,DNS:localhost", groups: str = "") -> tuple[Path, Path]:
        """Issue a certificate with `name` as its common name; return it and its key."""
        certificate, key, request = (self._directory / f"{name}{suffix}" for suffix in (".crt", ".key", ".csr"))
        subject = f"/O={groups}/CN={name}" if groups else f"/CN={name}"
        names = ("-addext", f"subjectAltName={addresses}")
        _openssl("req", *_NEW_KEY, "-keyout", key, "-subj", subject, *names, "-out", request)
        _openssl(
            *("x509", "-req", "-days", "2", "-copy_extensions", "copy", "-in", request),
            *("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-out", certificate),
        )
        return certificate, key

    def server_context(self, name: str = "server", *, addresses: str = "IP:127.0.0.1,DNS:localhost") -> ssl.SSLContext:
        """Return the context of a server that asks clients for certificates of this authority, but demands none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, addresses=addresses))
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context
