"""Images whose tables of contents are in an image of their own, beside them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

import lazylayer_format_estargz
import lazylayer_format_zstdchunked
import lazylayer_resolver_layout
from images.lazy_layer import tar_of
from images.oci_layout import write_layout
from lazylayer import hookimpl
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor, MediaType, Platform, Reference, ResolvedImage, parse_reference, sha256_digest
from lazylayer.api.settings import Settings
from lazylayer.errors import BuildError, FormatError, LazylayerError, NotFoundError, VerificationError
from lazylayer.layers.store import LayerStore
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions, BuiltLayer, ImageStore
from lazylayer_tarlayers.annotations import LAYER_DIGEST
from lazylayer_testing.facts.layers import read_file
from lazylayer_testing.synthetic import DictCache, companions_of, make_blob
from lazylayer_tool_images.building import build_layer
from lazylayer_tool_images.conversion import Conversion, ConversionOptions, ConversionReport
from lazylayer_tool_images.verification import verify_image

AMD = Platform("amd64", "linux")
MTIME = 1.5
CONTENT = bytes(range(256)) * 1000


class Recorder:
    """Notes which images are resolved and which are written, and passes all of it on."""

    def __init__(self) -> None:
        self.resolved: list[str] = []
        self.written: list[str] = []
        self.caches: dict[str, DictCache] = {}

    @hookimpl
    def lazylayer_resolve_image(self, reference: Reference) -> ResolvedImage | None:
        self.resolved.append(reference.tag)
        return None

    @hookimpl(wrapper=True)
    def lazylayer_open_store(self, reference: Reference) -> Any:
        return RecordingStore((yield), self.written)

    @hookimpl
    def lazylayer_open_cache(self, purpose: str) -> DictCache:
        return self.caches.setdefault(purpose, DictCache())


class RecordingStore(ImageStore):
    def __init__(self, store: ImageStore, written: list[str]) -> None:
        self.store = store
        self.written = written

    def has_blob(self, digest: Any, size: int) -> bool:
        return self.store.has_blob(digest, size)

    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        self.store.put_blob(descriptor, data)

    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        self.written.append(reference.tag)
        return self.store.put_manifest(reference, media_type, data)

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def hooks(recorder: Recorder) -> Hooks:
    return make_hooks(recorder)


def make_hooks(*more: object) -> Hooks:
    manager = make_manager()
    for plugin in (lazylayer_format_estargz, lazylayer_format_zstdchunked, lazylayer_resolver_layout, *more):
        manager.register(plugin, "cache_dir" if isinstance(plugin, Recorder) else None)
    return Hooks(manager)


@pytest.fixture
def source(tmp_path: Path) -> str:
    archives = []
    for number, data in enumerate((tar_of({"one": CONTENT, "two": b"2"}, MTIME), tar_of({"two": b"new"}, MTIME))):
        archives.append(tmp_path / f"{number}.tar")
        archives[-1].write_bytes(data)
    write_layout(tmp_path / "source", archives, "plain")
    return f"oci:{tmp_path}/source:plain"


def convert(hooks: Hooks, source: str, destination: str, *, reuse: bool = False, **options: Any) -> ConversionReport:
    build = BuildOptions(external_toc=True, chunk_size=50_000, **options)
    conversion = Conversion(hooks, parse_reference(destination), ConversionOptions(build=build, reuse=reuse))
    return conversion.convert_image(resolve(hooks, source))


def resolve(hooks: Hooks, reference: str) -> ResolvedImage:
    return hooks.resolve_image(parse_reference(reference), AMD)


def blob_of(layout: Path, descriptor: Descriptor) -> bytes:
    return (layout / "blobs/sha256" / descriptor.digest[7:]).read_bytes()


def open_layer(hooks: Hooks, layout: Path, reference: str, number: int = 0) -> LayerContents:
    descriptor = resolve(hooks, reference).manifest.layers[number]
    blob = blob_of(layout, descriptor)
    return hooks.open_layer(make_blob(blob), descriptor, True, companions_of(blob, hooks, parse_reference(reference)))


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_tables_go_to_an_image_beside(hooks: Hooks, recorder: Recorder, tmp_path: Path, source: str, kind: str) -> None:
    destination = f"{kind}:{tmp_path}/lazy:v"
    report = convert(hooks, source, destination)
    assert recorder.written == ["v-esgztoc", "v"], "every reader of the image finds its tables"
    image, tables = resolve(hooks, destination), resolve(hooks, f"{destination}-esgztoc")
    assert image.digest == report.manifest.digest
    belongs_to = [layer.annotations[LAYER_DIGEST] for layer in tables.manifest.layers]
    assert belongs_to == [layer.digest for layer in image.manifest.layers]
    assert len(tables.config.rootfs.diff_ids) == 2
    assert (tables.config.architecture, tables.config.os) == (image.config.architecture, image.config.os)
    for layer in verify_image(hooks, image):
        assert (layer.format, layer.problems) == ("estargz", ())


@pytest.mark.parametrize("keep", [False, True])
def test_layer_and_table_are_plain_archives(hooks: Hooks, tmp_path: Path, source: str, keep: bool) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v", keep_diff_id=keep)
    image, tables = resolve(hooks, f"oci:{tmp_path}/lazy:v"), resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc")
    for layer, table in zip(image.manifest.layers, tables.manifest.layers, strict=True):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob_of(tmp_path / "lazy", layer)))) as tar:
            assert "stargz.index.json" not in tar.getnames()
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob_of(tmp_path / "lazy", table)))) as tar:
            (member,) = tar.getmembers()
            toc = tar.extractfile(member)
            assert member.name == "stargz.index.json" and toc is not None
            assert sha256_digest(toc.read()) == layer.annotations[TOC_DIGEST]


def test_diff_ids_are_kept(hooks: Hooks, tmp_path: Path, source: str) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v", keep_diff_id=True)
    before, after = resolve(hooks, source), resolve(hooks, f"oci:{tmp_path}/lazy:v")
    assert after.config_bytes == before.config_bytes
    for number, layer in enumerate(after.manifest.layers):
        assert gzip.decompress(blob_of(tmp_path / "lazy", layer)) == (tmp_path / f"{number}.tar").read_bytes()
    contents = open_layer(hooks, tmp_path / "lazy", f"oci:{tmp_path}/lazy:v")
    entry = contents.tree.lookup(b"one")
    assert entry is not None and entry.chunk_count == 6
    assert read_file(contents, blob_of(tmp_path / "lazy", after.manifest.layers[0]), entry) == CONTENT


def test_same_input_gives_the_same_images(hooks: Hooks, tmp_path: Path, source: str) -> None:
    found = set()
    for jobs in (1, 3):
        convert(hooks, source, f"oci:{tmp_path}/{jobs}:v", jobs=jobs)
        found.add(tuple(resolve(hooks, f"oci:{tmp_path}/{jobs}:{tag}").digest for tag in ("v", "v-esgztoc")))
    assert len(found) == 1


def test_all_platforms_share_one_image_of_tables(hooks: Hooks, recorder: Recorder, tmp_path: Path, source: str) -> None:
    layout = tmp_path / "source"
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = index["manifests"]
    platforms = [{"os": "linux", "architecture": each} for each in ("amd64", "arm64")]
    data = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "platform": each} for each in platforms]}).encode()
    (layout / "blobs/sha256" / sha256_digest(data)[7:]).write_bytes(data)
    entry.update({"mediaType": MediaType.OCI_INDEX, "digest": sha256_digest(data), "size": len(data)})
    (layout / "index.json").write_text(json.dumps(index))
    options = ConversionOptions(build=BuildOptions(external_toc=True))
    Conversion(hooks, parse_reference(f"oci:{tmp_path}/lazy:v"), options).convert_platforms(parse_reference(source))
    assert recorder.written == ["", "", "v-esgztoc", "v"]
    assert len(resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc").manifest.layers) == 2
    for layer in verify_image(hooks, resolve(hooks, f"oci:{tmp_path}/lazy:v")):
        assert layer.problems == ()


def test_reused_layers_bring_their_tables_along(hooks: Hooks, tmp_path: Path, source: str) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    report = convert(hooks, f"oci:{tmp_path}/lazy:v", f"oci:{tmp_path}/copy:w", reuse=True)
    assert all(layer.reused for layer in report.layers)
    assert (
        resolve(hooks, f"oci:{tmp_path}/copy:w-esgztoc").digest
        == resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc").digest
    )
    assert open_layer(hooks, tmp_path / "copy", f"oci:{tmp_path}/copy:w", 1).tree.lookup(b"two") is not None


# --- reading ---------------------------------------------------------------------------------------


def test_nobody_is_asked_for_what_is_inside(hooks: Hooks, recorder: Recorder, tmp_path: Path, source: str) -> None:
    options = ConversionOptions()
    Conversion(hooks, parse_reference(f"oci:{tmp_path}/inside:v"), options).convert_image(resolve(hooks, source))
    recorder.resolved.clear()
    open_layer(hooks, tmp_path / "inside", f"oci:{tmp_path}/inside:v")
    assert recorder.resolved == ["v"]


def test_layer_is_opened_again_while_its_source_is_away(
    hooks: Hooks, recorder: Recorder, tmp_path: Path, source: str
) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    image = resolve(hooks, f"oci:{tmp_path}/lazy:v")
    for asked in (True, False):
        recorder.resolved.clear()
        store = LayerStore(Settings(), hooks)
        with store.lend(image.reference, image.manifest.layers[1]) as lease:
            assert lease.layer.tree.lookup(b"two") is not None
        store.close()
        assert recorder.resolved == (["v-esgztoc"] if asked else [])
        shutil.rmtree(tmp_path / "lazy", ignore_errors=True)


def test_bad_table_in_the_cache_is_asked_for_again(
    hooks: Hooks, recorder: Recorder, tmp_path: Path, source: str
) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    image = resolve(hooks, f"oci:{tmp_path}/lazy:v")
    descriptor = image.manifest.layers[1]
    (tables,) = [
        blob_of(tmp_path / "lazy", each)
        for each in resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc").manifest.layers
        if each.annotations[LAYER_DIGEST] == image.manifest.layers[0].digest
    ]
    recorder.caches["ranges"] = DictCache()
    recorder.caches["ranges"].put(f"{descriptor.digest}:-esgztoc", tables)
    store = LayerStore(Settings(), hooks)
    assert store.lend(image.reference, descriptor).layer.tree.lookup(b"two") is not None
    store.close()


def test_image_of_tables_as_the_go_tools_write_it(hooks: Hooks, tmp_path: Path, source: str) -> None:
    """Its config is Go's empty `ocispec.ImageConfig`, in which lists are null; its layers have any order."""
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    tables = resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc")
    config = b'{"architecture":"","os":"","config":{},"rootfs":{"type":"","diff_ids":null},"history":null}'
    manifest = json.loads(tables.manifest_bytes)
    manifest["layers"].reverse()
    manifest["config"].update({"digest": sha256_digest(config), "size": len(config)})
    replace_image(tmp_path / "lazy", "v-esgztoc", json.dumps(manifest).encode(), config)
    for number in (0, 1):
        assert open_layer(hooks, tmp_path / "lazy", f"oci:{tmp_path}/lazy:v", number).tree.lookup(b"two") is not None


def replace_image(layout: Path, tag: str, *blobs: bytes) -> None:
    """Lets `tag` name the manifest that is the first of `blobs`."""
    for blob in blobs:
        (layout / "blobs/sha256" / sha256_digest(blob)[7:]).write_bytes(blob)
    index = json.loads((layout / "index.json").read_bytes())
    for entry in index["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag:
            entry.update({"digest": sha256_digest(blobs[0]), "size": len(blobs[0])})
    (layout / "index.json").write_text(json.dumps(index))


def drop_image(layout: Path, tag: str) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"] = [
        each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] != tag
    ]
    (layout / "index.json").write_text(json.dumps(index))


def test_missing_image_of_tables_is_told(hooks: Hooks, tmp_path: Path, source: str) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    drop_image(tmp_path / "lazy", "v-esgztoc")
    with pytest.raises(NotFoundError, match=rf"sha256:.*table of contents.*{tmp_path}/lazy:v-esgztoc.*copy it"):
        open_layer(hooks, tmp_path / "lazy", f"oci:{tmp_path}/lazy:v")


def test_tables_of_another_conversion_are_told(hooks: Hooks, tmp_path: Path, source: str) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    convert(hooks, source, f"oci:{tmp_path}/other:v", level=1)
    manifest = resolve(hooks, f"oci:{tmp_path}/other:v-esgztoc").manifest_bytes
    shutil.copytree(tmp_path / "other/blobs", tmp_path / "lazy/blobs", dirs_exist_ok=True)
    replace_image(tmp_path / "lazy", "v-esgztoc", manifest)
    with pytest.raises(NotFoundError, match=r"nothing there belongs to the layer.*copy both again"):
        open_layer(hooks, tmp_path / "lazy", f"oci:{tmp_path}/lazy:v")


@pytest.mark.parametrize("how", ["damaged", "another", "large"])
def test_table_that_was_not_promised_is_refused(hooks: Hooks, tmp_path: Path, source: str, how: str) -> None:
    """One whose bytes are damaged, one of another layer under this one's name, one that is said to be enormous."""
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    tables = resolve(hooks, f"oci:{tmp_path}/lazy:v-esgztoc")
    manifest = json.loads(tables.manifest_bytes)
    first, second = manifest["layers"]
    if how == "damaged":
        path = tmp_path / "lazy/blobs/sha256" / first["digest"][7:]
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif how == "another":
        first["annotations"], second["annotations"] = second["annotations"], first["annotations"]
    else:
        with (tmp_path / "lazy/blobs/sha256" / first["digest"][7:]).open("r+b") as file:
            first["size"] = file.truncate(1 << 30)
    replace_image(tmp_path / "lazy", "v-esgztoc", json.dumps(manifest).encode())
    with pytest.raises((VerificationError, FormatError), match=r"damaged|the annotation says|at most|more than"):
        open_layer(hooks, tmp_path / "lazy", f"oci:{tmp_path}/lazy:v")


@pytest.mark.parametrize("digest", ["", "sha256:" + "0" * 64])
def test_image_without_a_tag_has_nothing_beside_it(hooks: Hooks, tmp_path: Path, source: str, digest: str) -> None:
    convert(hooks, source, f"oci:{tmp_path}/lazy:v")
    image = resolve(hooks, f"oci:{tmp_path}/lazy:v")
    blob = blob_of(tmp_path / "lazy", image.manifest.layers[0])
    nameless = msgspec.structs.replace(image.reference, tag="", digest=digest)
    with pytest.raises(NotFoundError, match=r"has no tag.*TAG-esgztoc"):
        hooks.open_layer(make_blob(blob), image.manifest.layers[0], True, companions_of(blob, hooks, nameless))


# --- what cannot be --------------------------------------------------------------------------------


def sparse_archive(tmp_path: Path) -> bytes:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    command = ["tar", "--create", "--sparse", "--file=-", f"--directory={tmp_path}", "holes"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_sparse_file_cannot_keep_its_diff_id(hooks: Hooks, tmp_path: Path) -> None:
    (tmp_path / "sparse.tar").write_bytes(sparse_archive(tmp_path))
    write_layout(tmp_path / "source", [tmp_path / "sparse.tar"], "plain")
    with pytest.raises(BuildError, match=r"holes.*sparse"):
        convert(hooks, f"oci:{tmp_path}/source:plain", f"oci:{tmp_path}/lazy:v", keep_diff_id=True)
    assert not (tmp_path / "lazy/index.json").exists()


@pytest.mark.parametrize(
    ("form", "destination", "options", "said"),
    [
        ("zstdchunked", "oci:{}/lazy:v", {"external_toc": True}, "estargz"),
        ("zstdchunked", "oci:{}/lazy:v", {"keep_diff_id": True}, "estargz"),
        ("estargz", "oci:{}/lazy:v", {"keep_diff_id": True}, "external"),
        ("estargz", "oci:{}/lazy:v", {"external_toc": True, "keep_diff_id": True, "prefetch": [b"one"]}, "put first"),
        ("estargz", "oci:{}/lazy", {"external_toc": True}, "has no tag"),
        ("estargz", "oci:{}/lazy:" + "t" * 125, {"external_toc": True}, "128"),
        ("careless", "oci:{}/lazy:v", {"external_toc": True}, "careless does not support external tables of contents"),
        ("careless", "oci:{}/lazy:v", {"keep_diff_id": True}, "careless did not keep its diff ID"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, source: str, form: str, destination: str, options: dict[str, Any], said: str
) -> None:
    hooks = make_hooks(Careless())
    target = parse_reference(destination.format(tmp_path))
    conversion = Conversion(hooks, target, ConversionOptions(format=form, build=BuildOptions(**options)))
    with pytest.raises(LazylayerError, match=said):
        conversion.convert_image(resolve(hooks, source))
    assert not (tmp_path / "lazy/index.json").exists()


class Careless:
    """A format of a third party that knows nothing of these options."""

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        return FormatInfo(("careless",), (), "org.example.toc")

    @hookimpl
    def lazylayer_build_layer(self, destination: IO[bytes]) -> BuiltLayer:
        destination.write(b"layer")
        descriptor = Descriptor(MediaType.OCI_LAYER, sha256_digest(b"layer"), 5)
        return BuiltLayer(descriptor, sha256_digest(hashlib.sha256(b"another").digest()))


# --- archives as they are --------------------------------------------------------------------------


def test_every_byte_of_an_archive_is_kept(tmp_path: Path) -> None:
    """Global headers, odd padding, a landmark and a table of earlier days, what follows the end."""
    data = bytearray(tar_of({"a": b"content", ".prefetch.landmark": b"\x0f", "stargz.index.json": b"{}" * 700}, MTIME))
    data[data.index(b"content") + 7] = 1
    pax = tarfile.TarInfo("pax").create_pax_global_header({"comment": "commit"})
    whole = pax + bytes(data).rstrip(b"\0") + bytes(-len(bytes(data).rstrip(b"\0")) % 512 + 1024) + b"junk" * 999
    out = io.BytesIO()
    hooks = make_hooks()
    built = build_layer(hooks, "estargz", io.BytesIO(whole), out, BuildOptions(external_toc=True, keep_diff_id=True))
    assert gzip.decompress(out.getvalue()) == whole
    assert built.diff_id == sha256_digest(whole)
    (companion,) = built.companions
    with tarfile.open(fileobj=io.BytesIO(companion.data)) as tar:
        toc = tar.extractfile("stargz.index.json")
        assert toc is not None
        names = [entry["name"] for entry in json.loads(toc.read())["entries"]]
    assert names == ["a", ".prefetch.landmark"]
