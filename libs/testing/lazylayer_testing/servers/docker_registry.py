"""Debian's docker-registry (CNCF Distribution), private to one directory."""

from __future__ import annotations

import http.client
from pathlib import Path

from lazylayer_testing.servers.process import Server, ServerProcess, accepts_connections, free_port, run

# Read by the server as YAML. Only what differs from its defaults, and no address but loopback.
_CONFIGURATION = """\
version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
{authentication}
http:
  addr: {host}
{tls}
"""


class DockerRegistry(Server):
    """A registry on a free port of 127.0.0.1, its blobs below `directory`, by default over plain HTTP.

    A context manager: it runs inside the `with` block. `stop()` or `kill()` and then `start()` bring
    it back on the same port with the same content.

    :param certificate: for TLS, with its key.
    :param client_authority: the certificate of who signs those that clients must have then.
    :param authentication: lines of its configuration, the section `auth:`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        certificate: tuple[Path, Path] | None = None,
        client_authority: Path | None = None,
        authentication: str = "",
    ) -> None:
        self.directory = directory
        self.host = f"127.0.0.1:{free_port()}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        tls = ""
        if certificate is not None:
            tls = f"  tls:\n    certificate: {certificate[0]}\n    key: {certificate[1]}\n"
            if client_authority is not None:
                tls += f"    clientcas: [{client_authority}]\n"
        configuration = directory / "config.yml"
        self.process = ServerProcess(
            ["docker-registry", "serve", configuration],
            log=directory / "docker-registry.log",
            ready=self._answers,
        )
        directory.mkdir(parents=True, exist_ok=True)
        configuration.write_text(
            _CONFIGURATION.format(root=directory / "blobs", host=self.host, authentication=authentication, tls=tls)
        )

    def push_layout(self, layout: Path, tag: str, name: str) -> str:
        """Copy image `tag` of the OCI layout into the registry as `name`, e.g. `odd:plain`.

        Returns its full reference, `127.0.0.1:PORT/NAME`. Digests stay as they are.
        """
        reference = f"{self.host}/{name}"
        run(
            [
                *("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests"),
                "--dest-tls-verify=false",
                f"oci:{layout}:{tag}",
                f"docker://{reference}",
            ]
        )
        return reference

    def _answers(self) -> bool:
        if self.url.startswith("https:"):
            return accepts_connections(int(self.host.partition(":")[2]))
        connection = http.client.HTTPConnection(self.host, timeout=1)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (200, 401)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
