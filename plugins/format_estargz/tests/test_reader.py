from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import FormatError, LayerError, ResolveError, VerificationError
from lazylayer_format_estargz.footer import EXTERNAL_TOC_FOOTER, find_footer, make_footer
from lazylayer_format_estargz.reader import open_contents
from lazylayer_testing.synthetic import MemorySource, companions_of, make_blob

CONTENT = os.urandom(3000)


def legacy_footer(toc_offset: int) -> bytes:
    extra = b"%016xSTARGZ" % toc_offset
    return b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0" + extra + b"\x01\0\0\xff\xff" + bytes(8)


def toc_member(toc: bytes, name: str = "stargz.index.json", size: int | None = None) -> bytes:
    """The gzip member that holds a TOC, as the Go tools write it; `size` is what its header says."""
    header = tarfile.TarInfo(name)
    header.size = len(toc) if size is None else size
    archive = header.tobuf(tarfile.USTAR_FORMAT) + toc + bytes(-len(toc) % 512) + bytes(1024)
    return gzip.compress(archive, mtime=0)


def toc_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"version": 1, "entries": entries}).encode()


def layer(*entries: dict[str, Any], legacy: bool = False, filler: int = 0) -> tuple[bytes, bytes]:
    """A layer with one file of CONTENT at its start, and its TOC; `filler` bytes lie between them."""
    data = gzip.compress(CONTENT + b"the header of the next file", mtime=0) + os.urandom(filler)
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    file = {"name": "f", "type": "reg", "size": len(CONTENT), "offset": 0, "chunkDigest": digest}
    toc = toc_of(file, *entries)
    return data + toc_member(toc) + (legacy_footer if legacy else make_footer)(len(data)), toc


def describe(blob: bytes, toc: bytes | None) -> Descriptor:
    annotations: dict[str, str] = {TOC_DIGEST: sha256_digest(toc)} if toc is not None else {}
    return Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(blob), len(blob), annotations)


def open_layer(blob: bytes, toc: bytes | None, verify: bool = True) -> LayerContents | None:
    return open_contents(make_blob(blob), describe(blob, toc), verify, companions_of(blob))


@pytest.mark.parametrize(("legacy", "name"), [(False, "estargz"), (True, "stargz")])
def test_layer_is_opened_and_its_data_inflated(legacy: bool, name: str) -> None:
    blob, toc = layer({"name": "d/", "type": "dir"}, legacy=legacy)
    contents = open_layer(blob, toc)
    assert contents is not None
    assert contents.format == name
    assert contents.toc_digest == sha256_digest(toc)
    assert {path for path, _ in contents.tree.walk()} == {b"", b"d", b"f"}
    start, end = contents.chunks.member_range(0)
    assert contents.inflate(blob[start:end], len(CONTENT), start) == CONTENT


@pytest.mark.parametrize("blob", [b"", b"x", bytes(51), bytes(100_000), gzip.compress(b"no stargz"), os.urandom(5000)])
def test_other_blobs_are_left_to_others(blob: bytes) -> None:
    assert open_layer(blob, None) is None


def test_small_toc_costs_one_request_and_a_large_one_two() -> None:
    many = [
        {"name": f"{os.urandom(20).hex()}", "type": "symlink", "linkName": os.urandom(20).hex()} for _ in range(5000)
    ]
    for entries, requests in (([], 1), (many, 2)):
        blob, toc = layer(*entries, filler=100_000)
        source = MemorySource(blob)
        assert open_contents(make_blob(blob, source), describe(blob, toc), True, companions_of(blob)) is not None
        assert len(source.asked) == requests
        assert source.asked_bytes == sum(byte_range.size for asked in source.asked for byte_range in asked) <= len(blob)


def test_toc_must_have_the_promised_digest() -> None:
    blob, toc = layer()
    with pytest.raises(VerificationError, match="the annotation says"):
        open_layer(blob, toc + b" ")
    with pytest.raises(VerificationError, match="annotation"):
        open_layer(blob, None)
    assert open_layer(blob, None, verify=False) is not None
    assert open_layer(blob, toc + b" ", verify=False) is not None


@pytest.mark.parametrize("offset", [0, 1, 5, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("footer", [make_footer, legacy_footer])
def test_footer_that_lies_is_refused(offset: int, footer: Any) -> None:
    blob, toc = layer()
    end = len(blob) - 51
    with pytest.raises(FormatError):
        open_layer(blob[:end] + footer(offset), toc)


def test_footer_at_itself_is_refused() -> None:
    blob, toc = layer()
    end = len(blob) - 51
    for offset in (end, end + 10, len(blob)):
        with pytest.raises(FormatError, match="behind"):
            open_layer(blob[:end] + make_footer(offset), toc)


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x1f\x8b",
        b"not gzip at all, but long enough to be taken for it",
        gzip.compress(b""),
        gzip.compress(b"too short"),
        gzip.compress(bytes(2048)),
        toc_member(b"{}", name="another.json"),
        toc_member(b"{}", size=100_000),
        toc_member(b"{}", size=0),
        toc_member(b"{}", size=300_000_000),
        toc_member(b"not json"),
        toc_member(b"{}"),
        toc_member(b'{"version": 1, "entries": []}')[:-600],
    ],
)
def test_toc_that_cannot_be_read_is_refused(member: bytes) -> None:
    start = gzip.compress(CONTENT)
    blob = start + member + make_footer(len(start))
    with pytest.raises(FormatError, match=r"layer sha256:[0-9a-f]{64} \(estargz\)"):
        open_layer(blob, None, verify=False)


def test_toc_that_inflates_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazylayer_format_estargz.reader.MAX_TOC_SIZE", 1_000_000)
    start = gzip.compress(CONTENT)
    blob = start + toc_member(b" " * 2_000_000) + make_footer(len(start))
    with pytest.raises(FormatError, match="1000000"):
        open_layer(blob, None, verify=False)


def test_data_behind_the_toc_is_refused() -> None:
    digest = "sha256:" + "ab" * 32
    blob, toc = layer({"name": "g", "type": "reg", "size": 1, "offset": 4000, "chunkDigest": digest})
    with pytest.raises(FormatError):
        open_layer(blob, toc)


def test_truncated_layer_is_not_mistaken() -> None:
    blob, toc = layer()
    for cut in (1, 10, 50, 51, 52, len(blob) // 2):
        assert open_layer(blob[:-cut], toc) is None


@given(st.integers(0, 200), st.integers(1, 255))
def test_damage_never_passes(place: int, flip: int) -> None:
    """Whatever byte of TOC or footer is wrong: the layer is refused, or it is none, or nothing changed."""
    blob, toc = layer()
    damaged = bytearray(blob)
    damaged[-1 - place] ^= flip
    try:
        contents = open_layer(bytes(damaged), toc)
    except LayerError:
        return
    if contents is not None:
        assert contents.toc_digest == sha256_digest(toc)
        assert contents.chunks[0].offset == 0


@given(st.integers(0, (1 << 64) - 1))
def test_footer_says_where_the_toc_is(offset: int) -> None:
    footer = make_footer(offset)
    assert len(footer) == 51
    assert gzip.decompress(footer) == b""
    found = find_footer(b"whatever is before" + footer, 1000)
    assert found is not None
    assert found == ("estargz", offset, 949)
    assert find_footer(footer[1:], 1000) is None


def test_go_footer_is_understood() -> None:
    """As `estargz.gzipFooterBytes` writes it, from the bytes in a layer that `ctr-remote` made."""
    footer = bytes.fromhex(
        "1f8b08040000000000ff1a0053471600" + b"00000000000ab3d2STARGZ".hex() + "010000ffff0000000000000000"
    )
    assert find_footer(footer, 10**6) == ("estargz", 0xAB3D2, 10**6 - 51)
    assert io.BytesIO(footer).read(2) == b"\x1f\x8b"


# --- tables of contents in another image -----------------------------------------------------------


def test_footer_of_an_external_toc_is_that_of_the_go_tools() -> None:
    """As `gzipFooterBytes` of `estargz/externaltoc` writes it: 46 bytes, an empty gzip member with this extra field."""
    footer = bytes.fromhex(
        "1f8b08040000000000ff15005347" + "1100" + b"STARGZEXTERNALTOC".hex() + "010000ffff" + "00" * 8
    )
    assert (footer, len(footer)) == (EXTERNAL_TOC_FOOTER, 46)
    assert gzip.decompress(footer) == b""
    assert find_footer(bytes(100) + footer, 1000) == ("estargz", None, 954)


def test_layer_with_an_external_toc_asks_for_it() -> None:
    blob, toc = layer()
    outside = blob[: blob.index(toc_member(toc))] + EXTERNAL_TOC_FOOTER
    with pytest.raises(ResolveError, match=r"image:1-esgztoc.*failed to resolve.*copy it to where"):
        open_layer(outside, toc)
    with pytest.raises(VerificationError, match=TOC_DIGEST):
        open_layer(outside, None)
