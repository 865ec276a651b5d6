"""The answers of a scripted registry, and byte ranges as RFC 9110, section 14, has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Answer", "error_answer", "parse_ranges", "range_answer"]

_BOUNDARY = "scripted-registry-boundary"


@dataclass
class Answer:
    """A status, headers and a body; `Content-Length` is added when it is sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def error_answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error in the form of the OCI distribution specification."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body)


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """Return the half-open ranges that a `Range` header asks for, cut to `size`.

    None if the header is not understood, which a server ignores; an empty list if no range can be
    satisfied.
    """
    unit, _, specifications = header.partition("=")
    if unit.strip() != "bytes":
        return None
    ranges = []
    for each in specifications.split(","):
        first, dash, last = each.strip().partition("-")
        if not dash or not (first or last) or not (first or "0").isdigit() or not (last or "0").isdigit():
            return None
        if not first:
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1 if last else size)
            if last and int(last) < int(first):
                return None
        if start < end:
            ranges.append((start, end))
    return ranges


def range_answer(data: bytes, ranges: Sequence[tuple[int, int]], headers: Mapping[str, str]) -> Answer:
    """206 with one range as it is, or with several as `multipart/byteranges`; 416 with none."""
    if not ranges:
        answer = error_answer(416, "BLOB_UNKNOWN", "range not satisfiable", headers)
        answer.headers["Content-Range"] = f"bytes */{len(data)}"
        return answer
    if len(ranges) == 1:
        start, end = ranges[0]
        return Answer(206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end])
    body = bytearray()
    for start, end in ranges:
        body += f"\r\n--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n".encode()
        body += f"Content-Range: bytes {start}-{end - 1}/{len(data)}\r\n\r\n".encode()
        body += data[start:end]
    body += f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Answer(206, {**headers, "Content-Type": f"multipart/byteranges; boundary={_BOUNDARY}"}, bytes(body))
