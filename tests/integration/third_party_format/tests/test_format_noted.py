from __future__ import annotations

import io
import tarfile
from typing import Any

import acme_format_noted as plugin
import msgspec
import pytest

from lazylayer.api.oci import Descriptor
from lazylayer.errors import FormatError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_testing.format import FormatConformance
from lazylayer_testing.synthetic import make_blob

FILES = {"etc/hosts": b"127.0.0.1 localhost\n", "usr/bin/large": bytes(range(256)) * 1000, "empty": b""}


class TestNoted(FormatConformance):
    @pytest.fixture
    def plugin(self) -> object:
        return plugin


def archive() -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def built(**options: Any) -> tuple[BuiltLayer, bytes]:
    out = io.BytesIO()
    return plugin.lazylayer_build_layer(archive(), out, BuildOptions(**options)), out.getvalue()


def opened(data: bytes, descriptor: Descriptor, verify: bool = True) -> Any:
    return plugin.lazylayer_open_layer(make_blob(data), descriptor, verify)


def test_other_layers_are_left_alone() -> None:
    layer, data = built()
    assert opened(data, msgspec.structs.replace(layer.descriptor, annotations={})) is None


@pytest.mark.parametrize("place", ["x", "0+0", "-1+5", "5+99999999999", "1+1", "999999999999+4"])
def test_impossible_places_are_rejected(place: str) -> None:
    layer, data = built()
    annotations = {**layer.descriptor.annotations, plugin.PLACE: place}
    with pytest.raises(FormatError, match="noted"):
        opened(data, msgspec.structs.replace(layer.descriptor, annotations=annotations))
