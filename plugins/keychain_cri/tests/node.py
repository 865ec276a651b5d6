"""kubelet's view of the proxy, and the keychain that reads what the proxy remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import parse_reference
from lazylayer.api.settings import Settings
from lazylayer_keychain_cri import CriKeychain, Options
from lazylayer_keychain_cri.proxy import SERVICE, ImageServiceProxy
from lazylayer_keychain_cri.remembered import RememberedCredentials

from .image_service import REFERENCE

SECRET = "hunter2"


class Node:
    """kubelet's view of the proxy, and the keychain that reads what it remembers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backend_socket = directory / "backend.sock"
        self.listen = directory / "listen.sock"
        self.store_directory = directory / "root" / "keychain_cri"
        self.keychain = CriKeychain()
        options = Options(listen=str(self.listen), backend=str(self.backend_socket))
        self.keychain.lazylayer_configure(Settings(root=str(directory / "root")), options)
        self.channel = grpc.insecure_channel(f"unix:{self.listen}")

    def start_proxy(self) -> ImageServiceProxy:
        store = RememberedCredentials(self.store_directory)
        proxy = ImageServiceProxy(str(self.listen), str(self.backend_socket), store)
        proxy.start()
        return proxy

    def call(self, method: str, request: bytes = b"", seconds: float = 60, **metadata: str) -> bytes:
        remote: Any = self.channel.unary_unary(f"{SERVICE}{method}")
        answer: bytes = remote(request, timeout=seconds, metadata=list(metadata.items()), wait_for_ready=True)
        return answer

    def get(self, reference: str = REFERENCE, host: str = "") -> Credentials | None:
        parsed = parse_reference(reference)
        return self.keychain.lazylayer_get_credentials(host or parsed.host, parsed)

    def password(self, reference: str = REFERENCE, host: str = "") -> str:
        found = self.get(reference, host)
        return found.password if found is not None else ""

    def answers(self) -> bool:
        try:
            self.call("ListImages")
        except grpc.RpcError:
            return False
        return True
