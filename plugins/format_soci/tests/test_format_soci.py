"""Indexes are found and believed as far as they are promised; layers are opened by what SOCI's own tool wrote."""

from __future__ import annotations

import lzma
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, Manifest, sha256_digest
from lazylayer.errors import FormatError, NotFoundError, UnavailableError, VerificationError
from lazylayer_format_soci import FormatSoci
from lazylayer_format_soci.annotations import INDEX_DIGEST, INDEX_LABEL, LAYER_DIGEST, ZTOC_DIGEST, ZTOC_SIZE
from lazylayer_testing.synthetic import make_blob

DATA = Path(__file__).parent / "data"
"""A plain layer, and its zTOC, which SOCI's tool made with spans of 16 KiB; see tests/images/soci_image.py."""
LAYER = lzma.decompress((DATA / "soci-plain.layer.xz").read_bytes())
ZTOC = lzma.decompress((DATA / "soci-plain.ztoc.xz").read_bytes())
EMPTY = Descriptor("application/vnd.amazon.soci.index.v2+json", sha256_digest(b"{}"), 2)
OTHER = sha256_digest(b"other layer")


def digest_of(manifest: Manifest) -> Digest:
    return sha256_digest(msgspec.json.encode(manifest))


def ztoc_descriptor(layer: str = OTHER, **fields: str) -> Descriptor:
    media_type = fields.get("media_type", "application/octet-stream")
    return Descriptor(media_type, sha256_digest(ZTOC), len(ZTOC), {LAYER_DIGEST: layer})


class Repository:
    """What stands beside an image, checked as the core checks it."""

    def __init__(self, *manifests: Manifest, blobs: tuple[bytes, ...] = ()) -> None:
        self.manifests = {digest_of(each): each for each in manifests}
        self.blobs = {sha256_digest(each): each for each in blobs}
        self.asked: list[Digest] = []
        self.gate = threading.Event()
        self.gate.set()

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        raise NotFoundError(suffix)

    def read_manifest(self, digest: Digest) -> bytes:
        self.asked.append(digest)
        assert self.gate.wait(20)
        if digest not in self.manifests:
            raise NotFoundError(digest)
        return msgspec.json.encode(self.manifests[digest])

    def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
        if descriptor.digest not in self.blobs:
            raise VerificationError(f"{descriptor.digest} is not what came")
        return self.blobs[descriptor.digest]


def image(*layers: str, index: str = "", kind: Descriptor = EMPTY) -> Manifest:
    annotations = {INDEX_DIGEST: index} if index else {}
    return Manifest(kind, [Descriptor("", Digest(each), 1) for each in layers], annotations=annotations)


def index_of(*ztocs: Descriptor, kind: Descriptor = EMPTY) -> Manifest:
    return Manifest(kind, list(ztocs))


FOUND = {ZTOC_DIGEST: sha256_digest(ZTOC), ZTOC_SIZE: str(len(ZTOC))}


def test_manifest_names_the_index() -> None:
    index = index_of(ztoc_descriptor())
    manifest = image(OTHER, index=digest_of(index))
    repository = Repository(index, manifest)
    plugin = FormatSoci()
    for _ in range(2):
        assert plugin.lazylayer_annotate_layers(digest_of(manifest), {}, repository) == {OTHER: FOUND}
    assert repository.asked == [digest_of(manifest), digest_of(index)], "the answer is kept"


def test_image_without_an_index_is_an_ordinary_one() -> None:
    manifest = image(OTHER)
    repository = Repository(manifest)
    plugin = FormatSoci()
    for _ in range(2):
        assert plugin.lazylayer_annotate_layers(digest_of(manifest), {}, repository) == {}
    assert len(repository.asked) == 1
    assert plugin.lazylayer_annotate_layers(None, {}, repository) == {}


def test_label_names_the_index() -> None:
    index = index_of(ztoc_descriptor())
    labels = {INDEX_LABEL: str(digest_of(index))}
    assert FormatSoci().lazylayer_annotate_layers(None, labels, Repository(index)) == {OTHER: FOUND}


def test_index_tells_nothing_of_layers_that_the_image_does_not_have() -> None:
    index = index_of(ztoc_descriptor(), ztoc_descriptor(sha256_digest(b"of another image")))
    manifest = image(OTHER, sha256_digest(b"small, without a zTOC"), index=digest_of(index))
    found = FormatSoci().lazylayer_annotate_layers(digest_of(manifest), {}, Repository(index, manifest))
    assert list(found) == [OTHER]


def test_artifacts_for_prefetching_are_no_ztocs() -> None:
    prefetch = ztoc_descriptor(media_type="application/vnd.amazon.soci.prefetch.v1+json")
    index = index_of(prefetch)
    labels = {INDEX_LABEL: str(digest_of(index))}
    assert FormatSoci().lazylayer_annotate_layers(None, labels, Repository(index)) == {}


@pytest.mark.parametrize("label", ["", "sha256:x", "../../etc/passwd"])
def test_digests_are_checked_before_anything_is_asked(label: str) -> None:
    repository = Repository()
    if label:
        with pytest.raises(FormatError):
            FormatSoci().lazylayer_annotate_layers(None, {INDEX_LABEL: label}, repository)
    with pytest.raises(FormatError):
        FormatSoci().lazylayer_annotate_layers(Digest(label or "latest"), {}, repository)
    assert repository.asked == []


def test_what_is_no_index_is_refused() -> None:
    index = index_of(ztoc_descriptor(), kind=Descriptor("application/vnd.oci.image.config.v1+json", EMPTY.digest, 2))
    manifest = image(OTHER, index=digest_of(index))
    with pytest.raises(FormatError, match="is not an index of SOCI"):
        FormatSoci().lazylayer_annotate_layers(digest_of(manifest), {}, Repository(index, manifest))


def test_failure_is_not_kept() -> None:
    index = index_of(ztoc_descriptor())
    manifest = image(OTHER, index=digest_of(index))
    plugin = FormatSoci()
    with pytest.raises(NotFoundError):
        plugin.lazylayer_annotate_layers(digest_of(manifest), {}, Repository(manifest))
    repository = Repository(index, manifest)
    assert plugin.lazylayer_annotate_layers(digest_of(manifest), {}, repository) == {OTHER: FOUND}


def test_layers_that_are_mounted_at_the_same_time_share_a_request() -> None:
    index = index_of(ztoc_descriptor())
    manifest = image(OTHER, index=digest_of(index))
    repository = Repository(index, manifest)
    repository.gate.clear()
    plugin = FormatSoci()

    def ask(_: int) -> object:
        return plugin.lazylayer_annotate_layers(digest_of(manifest), {}, repository)

    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(ask, range(8))
        repository.gate.set()
        assert list(answers) == [{OTHER: FOUND}] * 8
    assert repository.asked == [digest_of(manifest), digest_of(index)]


def test_many_images_are_not_all_kept() -> None:
    plugin = FormatSoci()
    manifests = [image(sha256_digest(b"%d" % number)) for number in range(100)]
    repository = Repository(*manifests)
    for manifest in (*manifests, manifests[0]):
        assert plugin.lazylayer_annotate_layers(digest_of(manifest), {}, repository) == {}
    assert len(repository.asked) == 101


def describe(**annotations: str) -> Descriptor:
    return Descriptor("application/vnd.oci.image.layer.v1.tar", sha256_digest(LAYER), len(LAYER), annotations)


def opened(descriptor: Descriptor, blob: bytes = LAYER, ztoc: bytes = ZTOC) -> LayerContents | None:
    return FormatSoci().lazylayer_open_layer(make_blob(blob), descriptor, Repository(blobs=(ztoc,)))


def test_layer_is_opened_by_its_ztoc() -> None:
    contents = opened(describe(**FOUND))
    assert contents is not None
    assert (contents.format, contents.toc_digest) == ("soci", sha256_digest(ZTOC))
    entry = contents.tree.lookup(b"twice")
    assert entry is not None
    chunk = contents.chunks[entry.first_chunk]
    member = contents.chunks.member_of(entry.first_chunk)
    start, end = contents.chunks.member_range(member)
    data = contents.inflate(LAYER[start:end], chunk.inner + chunk.size, start)
    assert data[chunk.inner :] == b"second"


def test_layers_of_others_are_left_to_others() -> None:
    assert opened(describe()) is None
    assert opened(describe(**FOUND, **{TOC_DIGEST: sha256_digest(b"eStargz")})) is None


def test_ztoc_of_another_layer_is_refused() -> None:
    with pytest.raises(FormatError, match="describes a layer of"):
        opened(describe(**FOUND), blob=LAYER + b"x")


def test_other_ztoc_than_promised_is_refused() -> None:
    with pytest.raises(VerificationError):
        opened(describe(**{ZTOC_DIGEST: sha256_digest(b"another")}))
    with pytest.raises(FormatError, match="soci"):
        opened(describe(**{ZTOC_DIGEST: "sha256:nothing"}))


def test_what_is_no_ztoc_is_refused() -> None:
    junk = b"junk" * 100
    with pytest.raises(FormatError, match="invalid zTOC"):
        opened(describe(**{ZTOC_DIGEST: sha256_digest(junk)}), ztoc=junk)


def test_registry_that_is_away_is_told_as_such() -> None:
    class Away(Repository):
        def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
            raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        FormatSoci().lazylayer_open_layer(make_blob(LAYER), describe(**FOUND), Away())
