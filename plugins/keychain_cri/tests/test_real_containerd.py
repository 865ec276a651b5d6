"""Pulls through the proxy from a registry that wants a password, by the CRI of a real containerd."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from lazylayer.api.oci import parse_reference
from lazylayer_keychain_cri.messages import PullImageResponse
from lazylayer_keychain_cri.proxy import SERVICE, ImageServiceProxy
from lazylayer_keychain_cri.remembered import RememberedCredentials
from lazylayer_testing.registry import BasicAuthentication, ScriptedRegistry
from lazylayer_testing.servers.containerd import Containerd

from .image_service import image_request, pull_request

pytestmark = [pytest.mark.servers, pytest.mark.skipif(os.geteuid() != 0, reason="containerd needs root")]


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with (
        tempfile.TemporaryDirectory(prefix="lazylayer-cri-", dir="/var/tmp") as directory,
        Containerd(Path(directory) / "c", cri=True, cri_snapshotter="native") as containerd,
    ):
        yield containerd


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    with ScriptedRegistry(authentication=BasicAuthentication({"ann": "hunter2"})) as registry:
        registry.content.add_image("team/app", "1", [gzip.compress(layer.getvalue())])
        yield registry


def test_pull_and_remove(containerd: Containerd, registry: ScriptedRegistry, tmp_path: Path) -> None:
    store = RememberedCredentials(tmp_path / "store")
    listen = tmp_path / "cri.sock"
    proxy = ImageServiceProxy(str(listen), str(containerd.address), store)
    proxy.start()
    try:
        with grpc.insecure_channel(f"unix:{listen}") as channel:

            def call(method: str, request: bytes) -> bytes:
                remote: Any = channel.unary_unary(f"{SERVICE}{method}")
                answer: bytes = remote(request, timeout=100, wait_for_ready=True)
                return answer

            image = f"{registry.host}/team/app:1"
            reference = parse_reference(image)
            with pytest.raises(grpc.RpcError, match="401"):
                call("PullImage", pull_request(image, username="ann", password="wrong"))
            assert store.find(registry.host, reference) is None

            answer = call("PullImage", pull_request(image, username="ann", password="hunter2"))
            found = store.find(registry.host, reference)
            assert found is not None
            assert (found.username, found.password) == ("ann", "hunter2")
            assert image.encode() in call("ListImages", b"")

            # As kubelet's garbage collection does: by ID.
            call("RemoveImage", image_request(PullImageResponse.decode(answer).image_ref))
            assert store.find(registry.host, reference) is None
            assert image.encode() not in call("ListImages", b"")
    finally:
        proxy.close()
