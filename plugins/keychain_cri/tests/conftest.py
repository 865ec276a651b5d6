"""A node with a proxy, in front of a stand-in for the image service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .image_service import ImageService
from .node import Node


@pytest.fixture
def bare_node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.channel.close()


@pytest.fixture
def backend(bare_node: Node) -> Iterator[ImageService]:
    service = ImageService(bare_node.backend_socket)
    yield service
    service.close()


@pytest.fixture
def node(bare_node: Node, backend: ImageService) -> Iterator[Node]:
    proxy = bare_node.start_proxy()
    yield bare_node
    proxy.close(0)
