"""Images in layout directories and archives: read, written, damaged, and written by several at once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazylayer_resolver_layout as plugin
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor, MediaType, Platform, Reference, ResolvedImage, parse_reference, sha256_digest
from lazylayer.errors import BuildError, FormatError, LazylayerError, NotFoundError, UnavailableError, VerificationError
from lazylayer_building import ImageStore

AMD, ARM = Platform("amd64", "linux"), Platform("arm64", "linux", "v8")
LAYER = os.urandom(3_000_000)


def descriptor(data: bytes, media_type: str = MediaType.OCI_LAYER_GZIP, platform: Platform | None = None) -> Descriptor:
    return Descriptor(media_type, sha256_digest(data), len(data), platform=platform)


def open_store(reference: str) -> ImageStore:
    store = plugin.lazylayer_open_store(parse_reference(reference))
    assert store is not None
    return store


def resolve(reference: str, platform: Platform = AMD) -> ResolvedImage:
    image = plugin.lazylayer_resolve_image(parse_reference(reference), platform)
    assert image is not None
    return image


def manifest_of(config: bytes, *layers: bytes) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": {"mediaType": MediaType.OCI_CONFIG, "digest": sha256_digest(config), "size": len(config)},
            "layers": [
                {"mediaType": MediaType.OCI_LAYER_GZIP, "digest": sha256_digest(each), "size": len(each)}
                for each in layers
            ],
        }
    ).encode()


def write_image(reference: str, *layers: bytes, name: str = "x") -> bytes:
    """Write an image through the plugin; return its manifest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "author": name}).encode()
    store = open_store(reference)
    for blob in (config, *layers):
        if not store.has_blob(sha256_digest(blob), len(blob)):
            store.put_blob(descriptor(blob), io.BytesIO(blob))
        assert store.has_blob(sha256_digest(blob), len(blob))
    data = manifest_of(config, *layers)
    written = store.put_manifest(parse_reference(reference), MediaType.OCI_MANIFEST, data)
    assert written.digest == sha256_digest(data)
    store.close()
    return data


@pytest.fixture(params=["oci", "oci-archive"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the reference to write to: a directory, and an archive."""
    yield f"{request.param}:{tmp_path}/image"
    assert not list(tmp_path.rglob(".*")), "something temporary was left behind"


def test_other_schemes_are_left_to_others() -> None:
    for text in ("debian", "dir:x", "ipfs://x"):
        reference = parse_reference(text)
        assert plugin.lazylayer_resolve_image(reference, AMD) is None
        assert plugin.lazylayer_resolve_blob(reference, descriptor(b"x")) is None
        assert plugin.lazylayer_open_store(reference) is None


def test_written_image_is_found(place: str) -> None:
    data = write_image(f"{place}:v1", LAYER, b"small")
    for reference in (place, f"{place}:v1", f"{place}@{sha256_digest(data)}"):
        image = resolve(reference)
        assert image.manifest_bytes == data
        assert image.digest == sha256_digest(data)
        assert image.media_type == MediaType.OCI_MANIFEST
        assert [each.size for each in image.manifest.layers] == [len(LAYER), 5]
        assert image.config.architecture == "amd64"
        assert sha256_digest(image.config_bytes) == image.manifest.config.digest


def test_blob_is_read_at_random(place: str) -> None:
    write_image(f"{place}:v1", b"before", LAYER)
    for size in (len(LAYER), 0):
        wanted = Descriptor(MediaType.OCI_LAYER, sha256_digest(LAYER), size)
        source = plugin.lazylayer_resolve_blob(parse_reference(place), wanted)
        assert source is not None
        assert source.size == len(LAYER)
        source.check()
        for ranges in (
            [ByteRange(0, len(LAYER))],
            [ByteRange(5, 6), ByteRange(7, 2_000_007), ByteRange(2_999_999, 3_000_000)],
        ):
            got = list(source.fetch(ranges))
            assert b"".join(piece for _, piece in got) == b"".join(LAYER[start:end] for start, end in ranges)
            assert all(LAYER[at : at + len(piece)] == piece for at, piece in got)
        assert str(place.partition(":")[2]) in source.describe()
        source.close()
        source.close()
        with pytest.raises(UnavailableError):
            list(source.fetch([ByteRange(0, 1)]))


def test_close_waits_for_readers_and_files_do_not_leak(place: str) -> None:
    write_image(f"{place}:v1", LAYER)
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = plugin.lazylayer_resolve_blob(parse_reference(place), descriptor(LAYER))
    assert source is not None
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(50):
                for at, piece in source.fetch([ByteRange(0, len(LAYER))]):
                    assert LAYER[at : at + 10] == piece[:10]
        except UnavailableError:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    source.close()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_missing_things_are_not_found(tmp_path: Path) -> None:
    write_image(f"oci:{tmp_path}/d:v1", LAYER)
    for text in (
        f"oci:{tmp_path}/nowhere",
        f"oci-archive:{tmp_path}/nowhere",
        f"oci-archive:{tmp_path}",
        f"oci:{tmp_path}",
        f"oci:{tmp_path}/d:v2",
        f"oci:{tmp_path}/d@sha256:{'0' * 64}",
    ):
        with pytest.raises(NotFoundError):
            resolve(text)
    with pytest.raises(NotFoundError, match="v1"):
        resolve(f"oci:{tmp_path}/d:v2")
    with pytest.raises(NotFoundError):
        plugin.lazylayer_resolve_blob(parse_reference(f"oci:{tmp_path}/d"), descriptor(b"missing"))


def test_several_images_need_a_tag(tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/d"
    one, two = write_image(f"{place}:one", b"1"), write_image(f"{place}:two", b"2")
    assert resolve(f"{place}:one").manifest_bytes == one
    assert resolve(f"{place}:two").manifest_bytes == two
    with pytest.raises(NotFoundError, match="one, two"):
        resolve(place)
    write_image(f"{place}:one", b"3")
    assert len(json.loads((tmp_path / "d" / "index.json").read_bytes())["manifests"]) == 2
    assert resolve(f"{place}:one").manifest.layers[0].digest == sha256_digest(b"3")


def test_index_is_searched_by_platform(tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/d"
    write_image(f"{place}:other", b"0")
    store = open_store(f"{place}:v1")
    entries = []
    for platform in (AMD, ARM):
        config = json.dumps({"architecture": platform.architecture, "os": "linux"}).encode()
        store.put_blob(descriptor(config), io.BytesIO(config))
        data = manifest_of(config)
        name = Reference(scheme="oci", repository=f"{tmp_path}/d", digest=sha256_digest(data))
        store.put_manifest(name, MediaType.OCI_MANIFEST, data)
        entry = {"mediaType": MediaType.OCI_MANIFEST, "digest": sha256_digest(data), "size": len(data)}
        entries.append({**entry, "platform": {"os": "linux", "architecture": platform.architecture}})
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    store.put_manifest(parse_reference(f"{place}:v1"), MediaType.OCI_INDEX, index)
    assert resolve(f"{place}:v1", ARM).config.architecture == "arm64"
    assert resolve(f"{place}:v1", AMD).config.architecture == "amd64"
    assert resolve(f"{place}@{sha256_digest(index)}", ARM).config.architecture == "arm64"
    with pytest.raises(NotFoundError, match="linux/arm64"):
        resolve(f"{place}:v1", Platform("riscv64", "linux"))


def test_damage_is_noticed(place: str) -> None:
    path = Path(place.partition(":")[2])
    data = write_image(f"{place}:v1", LAYER)
    config = json.loads(data)["config"]["digest"]
    if path.is_dir():
        target, at = path / "blobs/sha256" / config[7:], 5
    else:
        with tarfile.open(path) as archive:
            target, at = path, archive.getmember(f"blobs/sha256/{config[7:]}").offset_data + 5
    with target.open("r+b") as file:
        file.seek(at)
        file.write(b"!")
    with pytest.raises(VerificationError, match="damaged"):
        resolve(place)


def test_truncated_blob_is_refused(tmp_path: Path) -> None:
    write_image(f"oci:{tmp_path}/d:v1", LAYER)
    reference = parse_reference(f"oci:{tmp_path}/d")
    source = plugin.lazylayer_resolve_blob(reference, descriptor(LAYER))
    assert source is not None
    os.truncate(tmp_path / "d/blobs/sha256" / sha256_digest(LAYER)[7:], 1_500_000)
    with pytest.raises(UnavailableError, match="damaged"):
        list(source.fetch([ByteRange(0, len(LAYER))]))
    source.close()
    with pytest.raises(UnavailableError, match="1500000"):
        plugin.lazylayer_resolve_blob(reference, descriptor(LAYER))


@pytest.mark.parametrize(
    "index",
    [b"", b"[]", b"{}", b'{"manifests": 5}', b'{"manifests": [{"digest": "../../x"}]}', b"\xff", b"[" * 100_000],
)
def test_bad_index_is_refused(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(LazylayerError):
        resolve(f"oci:{tmp_path}")
    with pytest.raises(LazylayerError):
        write_image(f"oci:{tmp_path}:v1", b"x")
    assert (tmp_path / "index.json").read_bytes() == index


def test_index_that_leads_to_itself_deeply_is_refused(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs/sha256"
    blobs.mkdir(parents=True)
    inner = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for _ in range(8):
        (blobs / sha256_digest(inner)[7:]).write_bytes(inner)
        entry = {"mediaType": MediaType.OCI_INDEX, "digest": sha256_digest(inner), "size": len(inner)}
        inner = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    (tmp_path / "index.json").write_bytes(inner)
    with pytest.raises(FormatError, match="deep"):
        resolve(f"oci:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"not a tar" * 1000, b"\x1f\x8b" + bytes(600)])
def test_archive_must_be_a_plain_tar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(LazylayerError):
        resolve(f"oci-archive:{tmp_path}/a.tar")


@pytest.mark.parametrize("data", [b"shorter", b"longer than that", b"of this size?!"])
def test_blob_that_is_not_what_was_said_is_not_kept(place: str, data: bytes) -> None:
    promised = b"of this size.."
    store = open_store(f"{place}:v1")
    with pytest.raises(BuildError):
        store.put_blob(descriptor(promised), io.BytesIO(data))
    assert not store.has_blob(sha256_digest(promised), len(promised))
    assert not store.has_blob(sha256_digest(data), len(data))
    store.put_blob(descriptor(promised), io.BytesIO(promised))
    assert store.has_blob(sha256_digest(promised), len(promised))
    store.close()


def test_image_appears_only_when_it_is_whole(place: str) -> None:
    store = open_store(f"{place}:v1")
    store.put_blob(descriptor(LAYER), io.BytesIO(LAYER))
    with pytest.raises(NotFoundError):
        resolve(f"{place}:v1")
    store.close()
    with pytest.raises(NotFoundError):
        resolve(f"{place}:v1")


def test_archive_replaces_the_one_before(tmp_path: Path) -> None:
    place = f"oci-archive:{tmp_path}/a.tar"
    write_image(f"{place}:v1", b"one")
    source = plugin.lazylayer_resolve_blob(parse_reference(place), descriptor(b"one"))
    assert source is not None
    write_image(f"{place}:v2", b"two")
    assert resolve(place).manifest.layers[0].digest == sha256_digest(b"two")
    assert list(source.fetch([ByteRange(0, 3)])) == [(0, b"one")]
    source.close()


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for text in (f"oci:{tmp_path}/file/d:v1", f"oci-archive:{tmp_path}/file/a.tar", f"oci-archive:{tmp_path}/no/a.tar"):
        with pytest.raises(BuildError):
            open_store(text)
    with pytest.raises(BuildError, match="digest"):
        open_store(f"oci:{tmp_path}/d@sha256:{'0' * 64}")


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/d"

    def write(number: int) -> None:
        for turn in range(5):
            write_image(f"{place}:tag-{number}-{turn}", b"shared", b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tags = {
        each["annotations"]["org.opencontainers.image.ref.name"]
        for each in json.loads((tmp_path / "d/index.json").read_bytes())["manifests"]
    }
    assert tags == {f"tag-{number}-{turn}" for number in range(4) for turn in range(5)}


@pytest.mark.servers
def test_skopeo_reads_and_writes_the_same(place: str, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    layer = tar.getvalue()
    write_image(f"{place}:v1", layer)
    scheme = place.partition(":")[0]
    copy = f"{scheme}:{tmp_path}/copy:v2"
    subprocess.run(["skopeo", "copy", "--quiet", f"{place}:v1", copy], check=True)
    image = resolve(copy)
    source = plugin.lazylayer_resolve_blob(parse_reference(copy), image.manifest.layers[0])
    assert source is not None
    data = b"".join(piece for _, piece in source.fetch([ByteRange(0, source.size)]))
    source.close()
    assert hashlib.sha256(data).hexdigest() == image.manifest.layers[0].digest[7:]
    assert resolve(copy).digest == resolve(f"{place}:v1").digest
