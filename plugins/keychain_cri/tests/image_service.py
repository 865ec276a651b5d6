"""A stand-in for the CRI image service of containerd, and kubelet's requests to it.

Messages are written by hand: there are few, and what reads them in the product is written by hand too,
from the same `api.proto` of the CRI.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

IMAGE_ID = "sha256:" + "a" * 64
REFERENCE = "registry.example.com/team/app:1"


def field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def image_request(image: str) -> bytes:
    return field(1, field(1, image))


def pull_request(image: str = REFERENCE, **auth: str) -> bytes:
    names = ["username", "password", "auth", "server_address", "identity_token", "registry_token"]
    config = b"".join(field(names.index(name) + 1, value) for name, value in auth.items())
    sandbox = field(3, field(1, field(1, "pod")))
    # A field of a later version, of a kind that is not looked at.
    return image_request(image) + (field(2, config) if auth else b"") + sandbox + b"\xf8\x01\x05"


class ImageService:
    """A stand-in for containerd's image service: answers by method, and records what it was asked."""

    def __init__(self, socket: Path, threads: int = 100) -> None:
        self.calls: list[tuple[str, bytes, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]] = {
            "PullImage": lambda request, context: field(1, IMAGE_ID)
        }
        self._pool = ThreadPoolExecutor(threads)
        self._server = grpc.server(self._pool, handlers=[self])
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((name, request, dict(context.invocation_metadata())))
            return self.answers[name](request, context) if name in self.answers else b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def close(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()
