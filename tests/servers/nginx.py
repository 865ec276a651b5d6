"""nginx in front of docker-registry, as a cloud's registry looks: blobs lie in a storage, behind signed addresses.

Manifests come from the registry. For a blob nginx asks somebody else for a redirect, to its own `/storage/`, where
it serves the registry's files to clients whose URL is signed and has not expired: 403 or 410 otherwise
(nginx, ngx_http_secure_link_module).
"""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import urlencode

from lazylayer_testing.registry import UrlSigner
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerProcess, accepts_connections, free_port

__all__ = ["NginxSigner", "StorageFront"]

_SECRET = "known to nginx and to who signs"

_CONFIGURATION = """\
daemon off;
user {user};
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {host};
        location ~ ^/v2/.*/blobs/sha256: {{
            proxy_pass {signer};
        }}
        location /v2/ {{
            proxy_pass {registry};
            proxy_set_header Host $http_host;
        }}
        location ~ "^/storage/sha256:((..).*)$" {{
            secure_link $arg_signature,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {secret}";
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 410; }}
            alias {blobs}/$2/$1/data;
        }}
    }}
}}
"""


class NginxSigner(UrlSigner):
    """Signs URLs as nginx wants them, for whole seconds. It cannot revoke them by `expire`."""

    def sign(self, path: str) -> str:
        expires = int(time.time() + self.lifetime)
        digest = hashlib.md5(f"{expires}{path} {_SECRET}".encode(), usedforsecurity=False).digest()
        return urlencode({"signature": base64.urlsafe_b64encode(digest).decode().rstrip("="), "expires": expires})


class StorageFront:
    """nginx before `registry`; `signer` is the URL of the server that redirects requests for blobs."""

    def __init__(self, directory: Path, registry: DockerRegistry, signer: str) -> None:
        directory.mkdir(parents=True)
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        self.access_log = directory / "access.log"
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                user=directory.owner(),
                host=self.host,
                signer=signer,
                registry=registry.url,
                secret=_SECRET,
                blobs=registry.directory / "blobs/docker/registry/v2/blobs/sha256",
            )
        )
        self._process = ServerProcess(
            ["nginx", "-e", directory / "error.log", "-c", configuration],
            log=directory / "nginx.log",
            ready=lambda: accepts_connections(port),
        )

    def __enter__(self) -> StorageFront:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()

    def statuses(self, prefix: str) -> list[int]:
        """Return the status of each answer to a path that starts with `prefix`, as far as nginx has logged them.

        It writes after it has answered, so that the last may appear only later.
        """
        found = []
        for line in self.access_log.read_text().splitlines():
            _, request, rest, *_ = line.split('"')
            if request.split()[1].startswith(prefix):
                found.append(int(rest.split()[0]))
        return found
