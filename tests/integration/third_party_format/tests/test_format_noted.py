from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import acme_format_noted as plugin
import msgspec
import pytest

from lazylayer.api.building import BuildOptions, BuiltLayer
from lazylayer.api.oci import Descriptor, sha256_digest
from lazylayer.errors import BuildError, FormatError, LayerError, VerificationError
from lazylayer_testing.synthetic import make_blob

FILES = {"etc/hosts": b"127.0.0.1 localhost\n", "usr/bin/large": bytes(range(256)) * 1000, "empty": b""}


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


def test_what_was_built_is_read() -> None:
    layer, data = built(chunk_size=10_000)
    contents = opened(data, layer.descriptor)
    assert contents.toc_digest == layer.descriptor.annotations[plugin.DIGEST]
    for name, expected in FILES.items():
        entry = contents.tree.lookup(name.encode())
        chunks = [contents.chunks[number] for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count)]
        read = [contents.inflate(data[each.offset :], each.inner + each.size)[each.inner :] for each in chunks]
        assert b"".join(read) == expected
        assert all(sha256_digest(part)[7:] == each.digest.hex() for part, each in zip(read, chunks, strict=True))


def test_it_is_a_plain_gzipped_archive() -> None:
    layer, data = built()
    plain = gzip.decompress(data)
    assert sha256_digest(plain) == layer.diff_id
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert [name for name in tar.getnames() if name in FILES] == list(FILES)
    assert built(jobs=1) == built(jobs=4)


def test_other_layers_are_left_alone() -> None:
    layer, data = built()
    assert opened(data, msgspec.structs.replace(layer.descriptor, annotations={})) is None


@pytest.mark.parametrize("place", ["x", "0+0", "-1+5", "5+99999999999", "1+1", "999999999999+4"])
def test_impossible_places_are_rejected(place: str) -> None:
    layer, data = built()
    annotations = {**layer.descriptor.annotations, plugin.PLACE: place}
    with pytest.raises(FormatError, match="noted"):
        opened(data, msgspec.structs.replace(layer.descriptor, annotations=annotations))


@pytest.mark.parametrize("at", [10, 60, -40, -1])
def test_damage_is_never_accepted(at: int) -> None:
    layer, data = built()
    start = int(layer.descriptor.annotations[plugin.PLACE].partition("+")[0])
    at = start + at if at > 0 else at
    broken = data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :] if at != -1 else data[:-1]
    try:
        assert opened(broken, layer.descriptor).toc_digest == layer.descriptor.annotations[plugin.DIGEST]
    except LayerError as error:
        assert "noted" in str(error)


def test_another_promise_is_refused() -> None:
    layer, data = built()
    annotations = {**layer.descriptor.annotations, plugin.DIGEST: "sha256:" + "0" * 64}
    with pytest.raises(VerificationError):
        opened(data, msgspec.structs.replace(layer.descriptor, annotations=annotations))


@pytest.mark.parametrize("options", [{"external_toc": True}, {"keep_diff_id": True}])
def test_options_that_it_lacks_are_errors(options: dict[str, bool]) -> None:
    with pytest.raises(BuildError):
        built(**options)
