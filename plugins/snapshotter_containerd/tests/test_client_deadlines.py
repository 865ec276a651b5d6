"""A containerd that does not answer is an error after a while, not a pull without an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from lazylayer_snapshotter_containerd.api.types import Descriptor
from lazylayer_snapshotter_containerd.client import Containerd, ContainerdError

BLOB = Descriptor("application/octet-stream", f"sha256:{'0' * 64}", 5)


class Silent(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Takes every call, and answers none until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("/Write"):
            return grpc.stream_stream_rpc_method_handler(lambda *_: iter([self.released.wait(30) and b""]))
        return grpc.unary_unary_rpc_method_handler(lambda *_: self.released.wait(30) and b"")


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Containerd]:
    silent = Silent()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[silent])
    server.add_insecure_port(f"unix:{tmp_path}/c.sock")
    server.start()
    with Containerd(f"{tmp_path}/c.sock", "default", seconds=0.3) as containerd:
        yield containerd
    silent.released.set()
    server.stop(None).wait()


CALLS: dict[str, Callable[[Containerd], object]] = {
    "Namespaces.Create": lambda containerd: containerd.ensure_namespace(),
    "Images.Create": lambda containerd: containerd.set_image("image", BLOB),
    "Snapshots.Prepare": lambda containerd: containerd.prepare("lazylayer", "key", "", {}),
    "Snapshots.Commit": lambda containerd: containerd.commit("lazylayer", "key", "name", {}),
    "Content.Write": lambda containerd: containerd.write_content(BLOB, [b"bytes"], {}),
    "Diff.Apply": lambda containerd: containerd.apply(BLOB, [], seconds=0.3),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_an_answer_ends(containerd: Containerd, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(ContainerdError, match=rf"{name}: no answer within 0\.3 s") as caught:
        CALLS[name](containerd)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 5
