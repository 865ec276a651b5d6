"""The answers of a scripted registry when nothing is made to go wrong.

Source: the endpoints of the OCI distribution specification 1.1.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from lazylayer.api.oci import sha256_digest
from lazylayer_testing.registry.answers import Answer, error_answer, parse_ranges, range_answer
from lazylayer_testing.registry.content import RegistryContent
from lazylayer_testing.registry.faults import Fault
from lazylayer_testing.registry.recording import RecordedRequest

__all__ = ["UrlSigner", "answer_registry", "answer_storage", "needed_scope"]

_NAME = r"(?P<repository>[a-z0-9][a-z0-9._/-]*)"
_DIGEST = r"(?P<digest>sha256:[0-9a-f]{64})"
_MANIFEST = re.compile(rf"/v2/{_NAME}/manifests/(?P<name>[A-Za-z0-9._:-]+)")
_BLOB = re.compile(rf"/v2/{_NAME}/blobs/{_DIGEST}")
_UPLOADS = re.compile(rf"/v2/{_NAME}/blobs/uploads/")
_UPLOAD = re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[0-9a-f]+)")
_TAGS = re.compile(rf"/v2/{_NAME}/tags/list")
_STORAGE = re.compile(rf"/storage/{_DIGEST}")
_ANY = re.compile(rf"/v2/{_NAME}/(?:manifests|blobs|tags)/.*")


class UrlSigner:
    """Signs the URLs of a blob storage; a URL is good for `lifetime` seconds, or until `expire`."""

    def __init__(self, lifetime: float = 300.0) -> None:
        self.lifetime = lifetime
        self._key = secrets.token_bytes(16)

    def sign(self, path: str) -> str:
        """Return the query that makes `path` readable for a while."""
        expires = f"{time.time() + self.lifetime:.3f}"
        return urlencode({"X-Expires": expires, "X-Signature": self._signature(path, expires)})

    def accepts(self, path: str, query: Mapping[str, str]) -> bool:
        """Return True if the query was signed for this path and is still valid."""
        expires = query.get("X-Expires", "")
        if not hmac.compare_digest(query.get("X-Signature", ""), self._signature(path, expires)):
            return False
        return float(expires) > time.time()

    def expire(self) -> None:
        """Revoke every URL that was signed so far."""
        self._key = secrets.token_bytes(16)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def needed_scope(request: RecordedRequest) -> str:
    """Return the token scopes that a request needs, with spaces between; empty if it names no repository."""
    found = _ANY.fullmatch(request.path)
    if found is None:
        return ""
    actions = "pull" if request.method in ("GET", "HEAD") else "pull,push"
    scope = f"repository:{found['repository']}:{actions}"
    source = request.query.get("from", "") if request.method == "POST" else ""
    return f"{scope} repository:{source}:pull" if source else scope


def answer_storage(content: RegistryContent, signer: UrlSigner, request: RecordedRequest, fault: Fault) -> Answer:
    """Serve a blob by its signed URL, as object storages do; 403 if the URL is not valid, or not any more."""
    found = _STORAGE.fullmatch(request.path)
    if found is None:
        return _not_found("NAME_UNKNOWN", "no such path")
    if request.method != "GET" or not signer.accepts(request.path, request.query):
        return Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
    data = content.blob_anywhere(found["digest"])
    return _not_found("BLOB_UNKNOWN", "no such object") if data is None else _send(data, {}, request, fault)


def answer_registry(content: RegistryContent, request: RecordedRequest, fault: Fault) -> Answer:
    """Return the registry API's answer to an authorised request."""
    if request.path == "/v2/":
        return Answer(200, {"Content-Type": "application/json"}, b"{}")
    for pattern, route in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found is not None:
            return route(content, request, fault, found)
    return _not_found("NAME_UNKNOWN", "no such path")


def _not_found(code: str, message: str) -> Answer:
    return error_answer(404, code, message)


def _send(data: bytes, headers: Mapping[str, str], request: RecordedRequest, fault: Fault) -> Answer:
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    if fault.corrupt_at is not None:
        damaged = bytearray(data)
        damaged[fault.corrupt_at] ^= 0xFF
        data = bytes(damaged)
    ranges = None
    if request.range is not None and not fault.ignore_range:
        ranges = parse_ranges(request.range, len(data))
    if ranges is None:
        return Answer(200, headers, data)
    if ranges and fault.first_range_only:
        ranges = ranges[:1]
    if ranges and fault.one_covering_range:
        ranges = [(ranges[0][0], ranges[-1][1])]
    return range_answer(data, ranges, headers)


def _blob(content: RegistryContent, request: RecordedRequest, fault: Fault, found: re.Match[str]) -> Answer:
    data = content.blob(found["repository"], found["digest"])
    if request.method == "DELETE":
        content.remove_blob(found["repository"], found["digest"])
        return Answer(202)
    if data is None:
        return _not_found("BLOB_UNKNOWN", "blob unknown to registry")
    return _send(data, {"Docker-Content-Digest": found["digest"]}, request, fault)


def _manifest(content: RegistryContent, request: RecordedRequest, fault: Fault, found: re.Match[str]) -> Answer:
    if request.method == "PUT":
        return _put_manifest(content, request, found["repository"], found["name"])
    stored = content.manifest(found["repository"], found["name"])
    if stored is None:
        return _not_found("MANIFEST_UNKNOWN", "manifest unknown")
    headers = {"Content-Type": stored.media_type, "Docker-Content-Digest": sha256_digest(stored.data)}
    data = bytearray(stored.data)
    if fault.corrupt_at is not None:
        data[fault.corrupt_at] ^= 0xFF
    return Answer(200, headers, bytes(data))


def _put_manifest(content: RegistryContent, request: RecordedRequest, repository: str, name: str) -> Answer:
    try:
        missing = content.missing_of_manifest(repository, request.body)
    except (ValueError, TypeError, KeyError):
        return error_answer(400, "MANIFEST_INVALID", "manifest invalid")
    if missing:
        return error_answer(404, "MANIFEST_BLOB_UNKNOWN", f"unknown to registry: {missing[0]}")
    digest = sha256_digest(request.body)
    if name.startswith("sha256:") and name != digest:
        return error_answer(400, "DIGEST_INVALID", "provided digest did not match the manifest")
    tag = "" if name.startswith("sha256:") else name
    content.add_manifest(repository, request.body, request.headers.get("content-type", ""), tag)
    location = f"/v2/{repository}/manifests/{digest}"
    return Answer(201, {"Location": location, "Docker-Content-Digest": digest})


def _uploads(content: RegistryContent, request: RecordedRequest, fault: Fault, found: re.Match[str]) -> Answer:  # noqa: ARG001
    repository = found["repository"]
    if request.method != "POST":
        return error_answer(405, "UNSUPPORTED", "only POST")
    mount, source = request.query.get("mount", ""), request.query.get("from", "")
    if mount and source and content.mount_blob(repository, mount, source):
        return _created(repository, mount)
    name = content.begin_upload()
    if request.query.get("digest"):
        content.append_upload(name, request.body)
        return _finish(content, name, repository, request.query["digest"])
    return _accepted(repository, name, 0)


def _upload(content: RegistryContent, request: RecordedRequest, fault: Fault, found: re.Match[str]) -> Answer:  # noqa: ARG001
    repository, name = found["repository"], found["upload"]
    size = content.upload_size(name)
    if size is None:
        return _not_found("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    if request.method == "GET":
        answer = _accepted(repository, name, size)
        answer.status = 204
        return answer
    if request.method == "DELETE":
        content.cancel_upload(name)
        return Answer(204)
    first = request.headers.get("content-range", "").partition("-")[0]
    if first and first != str(size):
        return error_answer(416, "BLOB_UPLOAD_INVALID", f"expected the byte {size} first", {"Range": f"0-{size - 1}"})
    size = content.append_upload(name, request.body)
    if request.method == "PUT":
        return _finish(content, name, repository, request.query.get("digest", ""))
    return _accepted(repository, name, size)


def _finish(content: RegistryContent, name: str, repository: str, digest: str) -> Answer:
    if not content.finish_upload(name, repository, digest):
        return error_answer(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
    return _created(repository, digest)


def _created(repository: str, digest: str) -> Answer:
    return Answer(201, {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest})


def _accepted(repository: str, name: str, size: int) -> Answer:
    location = f"/v2/{repository}/blobs/uploads/{name}"
    return Answer(202, {"Location": location, "Range": f"0-{max(0, size - 1)}", "Docker-Upload-UUID": name})


def _tags(content: RegistryContent, request: RecordedRequest, fault: Fault, found: re.Match[str]) -> Answer:  # noqa: ARG001
    tags = content.tags(found["repository"])
    if tags is None:
        return _not_found("NAME_UNKNOWN", "repository name not known to registry")
    body = json.dumps({"name": found["repository"], "tags": tags}).encode()
    return Answer(200, {"Content-Type": "application/json"}, body)


_Route = Callable[[RegistryContent, RecordedRequest, Fault, "re.Match[str]"], Answer]
_ROUTES: tuple[tuple[re.Pattern[str], _Route], ...] = (
    (_UPLOAD, _upload),
    (_UPLOADS, _uploads),
    (_BLOB, _blob),
    (_MANIFEST, _manifest),
    (_TAGS, _tags),
)
