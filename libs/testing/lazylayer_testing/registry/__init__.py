"""A registry for tests: it does what registries do, records every request, and fails as told.

    with ScriptedRegistry() as registry:
        registry.content.add_image("tests/tool", "latest", [layer_bytes])
        registry.script(Fault(status=503), path="*/blobs/*")   # the first blob request fails
        ...                                                    # use registry.reference("tests/tool")
        assert len(registry.requests_of("blob")) == 2

It speaks the OCI distribution API over plain HTTP on a free port of 127.0.0.1: manifests and blobs
(GET, HEAD, ranges, several ranges as `multipart/byteranges`), tags, and pushing. It can ask for basic
credentials or tokens, and send blob requests on to another origin with signed, expiring URLs.
Nothing in it depends on pytest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from lazylayer_testing.registry.answers import Answer, error_answer
from lazylayer_testing.registry.authentication import (
    Authentication,
    BasicAuthentication,
    TokenAuthentication,
    TokenExchange,
)
from lazylayer_testing.registry.content import ImageLayer, RegistryContent, StoredManifest
from lazylayer_testing.registry.faults import Fault, Gate, Rule
from lazylayer_testing.registry.recording import RecordedRequest
from lazylayer_testing.registry.routes import UrlSigner, answer_registry, answer_storage, needed_scope
from lazylayer_testing.registry.server import Server

__all__ = [
    "Authentication",
    "BasicAuthentication",
    "Fault",
    "Gate",
    "ImageLayer",
    "RecordedRequest",
    "RegistryContent",
    "Rule",
    "ScriptedRegistry",
    "StoredManifest",
    "TokenAuthentication",
    "TokenExchange",
    "UrlSigner",
]

_NO_FAULT = Fault()


class ScriptedRegistry:
    """A registry on a free port of `address`, which may be `::1`, from `__enter__` to `__exit__`.

    `content` may be shared with another registry. `authentication` is asked before everything but
    `/token` and redirected blobs; it may be replaced at any time. All methods may be called from
    any thread.
    """

    def __init__(
        self,
        content: RegistryContent | None = None,
        *,
        authentication: Authentication | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.content = content or RegistryContent()
        self.authentication = authentication
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._requests: list[RecordedRequest] = []
        self._under_way = 0
        self._storage: tuple[RegistryContent, UrlSigner] | None = None
        self._redirect: tuple[str, UrlSigner, int] | None = None
        self._server = Server(address, self)
        self.host = f"{f'[{address}]' if ':' in address else address}:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> ScriptedRegistry:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for rule in self._rules:
                for gate in (rule.fault.hold, rule.fault.stall_until):
                    if gate is not None:
                        gate.release()
        self._server.stop()

    def reference(self, repository: str, name: str = "latest") -> str:
        """Return the image reference of a tag or digest here."""
        return f"{self.host}/{repository}{'@' if name.startswith('sha256:') else ':'}{name}"

    # --- making things go wrong -----------------------------------------------------------------

    def script(
        self,
        fault: Fault,
        *,
        path: str = "*",
        method: str = "",
        when: Callable[[RecordedRequest], bool] | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Rule:
        """Make requests meet `fault`; `Rule` says which. The first rule that matches counts.

        Every rule counts the requests that match it, also those that an earlier rule struck.
        """
        rule = Rule(fault, path, method, when, skip, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def forget_rules(self) -> None:
        """From now on nothing goes wrong; requests that are held already stay so."""
        with self._lock:
            self._rules.clear()

    def close_connections(self) -> None:
        """Close the connections that clients have open, idle or not."""
        self._server.close_connections()

    def redirect_blobs(
        self,
        storage: ScriptedRegistry | str,
        *,
        lifetime: float = 300.0,
        status: int = 307,
        signer: UrlSigner | None = None,
    ) -> UrlSigner:
        """Redirect every GET of a blob to `storage`, by a URL that is valid for `lifetime` seconds.

        `storage` is another registry, running for as long; it answers 403 to a URL that is no good
        any more. `expire` of the signer that is returned makes that so at once. It may also be the
        URL of another server, which has the blobs at `/storage/DIGEST`, with a `signer` to its liking.
        """
        signer = signer or UrlSigner(lifetime)
        if isinstance(storage, ScriptedRegistry):
            storage._storage = (self.content, signer)
            storage = storage.url
        self._redirect = (storage, signer, status)
        return signer

    # --- what happened --------------------------------------------------------------------------

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, in the order in which they came."""
        with self._lock:
            return list(self._requests)

    def requests_of(self, kind: str, method: str = "") -> list[RecordedRequest]:
        """Return the requests of one `RecordedRequest.kind`."""
        return [each for each in self.requests if each.kind == kind and method in ("", each.method)]

    @property
    def connections(self) -> int:
        """The number of connections accepted so far."""
        return self._server.accepted

    @property
    def blob_bytes_sent(self) -> int:
        """Body bytes of blobs that were sent, redirected ones included."""
        return sum(each.sent for each in self.requests if each.kind in ("blob", "storage") and each.status < 300)

    def forget_requests(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._requests.clear()

    # --- for the server -------------------------------------------------------------------------

    def begin(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[RecordedRequest, Fault]:
        """Record a request and find its fault; called by the server."""
        with self._lock:
            self._under_way += 1
            request = RecordedRequest(
                len(self._requests), method, path, query, headers, body, self._under_way, time.monotonic()
            )
            self._requests.append(request)
            struck = [rule.fault for rule in self._rules if rule.strikes(request)]
        return request, struck[0] if struck else _NO_FAULT

    def finish(self, request: RecordedRequest) -> None:
        """Record the end of a request; called by the server."""
        with self._lock:
            self._under_way -= 1
            request.finished = time.monotonic()

    def answer(self, request: RecordedRequest, fault: Fault) -> Answer:
        """Return the answer to a request; called by the server."""
        if fault.status is not None:
            return error_answer(fault.status, "SCRIPTED", fault.message)
        if request.kind == "token" and isinstance(self.authentication, TokenAuthentication):
            return self.authentication.exchange(request)
        if request.kind == "storage" and self._storage is not None:
            return answer_storage(*self._storage, request, fault)
        if self.authentication is not None:
            refusal = self.authentication.refuse(request, needed_scope(request), self.url)
            if refusal is not None:
                return refusal
        answer = answer_registry(self.content, request, fault)
        if self._redirect is not None and request.kind == "blob" and request.method == "GET" and answer.status < 300:
            origin, signer, status = self._redirect
            path = f"/storage/{request.path.rpartition('/')[2]}"
            return Answer(status, {"Location": f"{origin}{path}?{signer.sign(path)}"})
        return answer
