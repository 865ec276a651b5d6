"""Images are converted from one place to another, and nothing half-done is ever seen."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import zstandard

import lazylayer_format_estargz
import lazylayer_resolver_layout
from images.lazy_layer import tar_of
from lazylayer import hookimpl
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import FormatInfo
from lazylayer.api.oci import MediaType, Platform, ResolvedImage, parse_reference, sha256_digest
from lazylayer.errors import BuildError, FormatError, LazylayerError, NotFoundError, VerificationError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_testing.synthetic import companions_of, make_blob
from lazylayer_tool_images.conversion import Conversion, ConversionOptions, ConversionReport
from lazylayer_tool_images.profiles import ProfileEntry

AMD = Platform("amd64", "linux")
CONTENT = os.urandom(300_000)


def make_hooks(*more: object) -> Hooks:
    manager = make_manager()
    for plugin in (lazylayer_format_estargz, lazylayer_resolver_layout, *more):
        manager.register(plugin)
    return Hooks(manager)


@pytest.fixture
def hooks() -> Hooks:
    return make_hooks()


LAYERS = [tar_of({"one": CONTENT}), tar_of({"two": b"2" * 5000}), tar_of({"one": CONTENT})]


def write_layout(
    directory: Path,
    layers: list[bytes],
    compress: Callable[[bytes], bytes] = gzip.compress,
    media_type: str = MediaType.OCI_LAYER_GZIP,
    diff_ids: list[str] | None = None,
) -> str:
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def write(data: bytes, kind: str) -> dict[str, Any]:
        (blobs / sha256_digest(data)[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": sha256_digest(data), "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256_digest(layer) for layer in layers]},
        "history": [{"created_by": "test", "x-unknown": 1} for _ in layers],
        "x-unknown": {"kept": True},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": write(json.dumps(config).encode(), MediaType.OCI_CONFIG),
        "layers": [
            {**write(compress(layer), media_type), "annotations": {"org.example.kept": str(number)}}
            for number, layer in enumerate(layers)
        ],
        "annotations": {"org.example.image": "kept"},
    }
    entry = write(json.dumps(manifest).encode(), MediaType.OCI_MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{directory}:v1"


def convert(hooks: Hooks, source: str, destination: str, **options: Any) -> ConversionReport:
    image = hooks.resolve_image(parse_reference(source), AMD)
    conversion = Conversion(hooks, parse_reference(destination), ConversionOptions(**options))
    return conversion.convert_image(image)


def resolve(hooks: Hooks, reference: str) -> ResolvedImage:
    return hooks.resolve_image(parse_reference(reference), AMD)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


@pytest.mark.parametrize(
    ("compress", "media_type"),
    [
        (gz, MediaType.OCI_LAYER_GZIP),
        (bytes, MediaType.OCI_LAYER),
        (zstandard.compress, MediaType.OCI_LAYER_ZSTD),
        (gz, MediaType.DOCKER_LAYER_GZIP),
        (bytes, MediaType.OCI_LAYER_GZIP),
    ],
)
def test_any_image_becomes_a_lazy_one(
    hooks: Hooks, tmp_path: Path, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    source = write_layout(tmp_path / "source", LAYERS, compress, media_type)
    destination = f"oci:{tmp_path}/destination:v2"
    report = convert(hooks, source, destination)
    image, before = resolve(hooks, destination), resolve(hooks, source)
    assert report.manifest.digest == image.digest
    assert [layer.result for layer in report.layers] == image.manifest.layers
    assert all(layer.media_type == MediaType.OCI_LAYER_GZIP for layer in image.manifest.layers)
    assert all(TOC_DIGEST in layer.annotations for layer in image.manifest.layers)
    assert image.manifest.layers[1].annotations["org.example.kept"] == "1"
    assert image.manifest.annotations == {"org.example.image": "kept"}
    config, old = json.loads(image.config_bytes), json.loads(before.config_bytes)
    diff_ids = config["rootfs"].pop("diff_ids")
    del old["rootfs"]["diff_ids"]
    assert config == old
    for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=True):
        blob = (tmp_path / "destination/blobs/sha256" / layer.digest[7:]).read_bytes()
        assert sha256_digest(gzip.decompress(blob)) == diff_id


def test_same_input_gives_the_same_image(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    digests = {
        convert(hooks, source, f"oci:{tmp_path}/{jobs}:v", build=BuildOptions(jobs=jobs)).manifest.digest
        for jobs in (1, 2, 3)
    }
    assert len(digests) == 1


def test_equal_layers_keep_their_own_annotations(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS, gz)
    convert(hooks, source, f"oci:{tmp_path}/one:v")
    convert(hooks, f"oci:{tmp_path}/one:v", f"oci:{tmp_path}/two:v", reuse=True)
    for name in ("one", "two"):
        layers = resolve(hooks, f"oci:{tmp_path}/{name}:v").manifest.layers
        assert layers[0].digest == layers[2].digest
        assert [layer.annotations["org.example.kept"] for layer in layers] == ["0", "1", "2"]


def test_converted_image_is_reused_or_rebuilt_to_the_same(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    once = convert(hooks, source, f"oci:{tmp_path}/one:v")
    again = convert(hooks, f"oci:{tmp_path}/one:v", f"oci-archive:{tmp_path}/two.tar:v", reuse=True)
    assert again.manifest.digest == once.manifest.digest
    assert all(layer.reused for layer in again.layers)
    rebuilt = convert(hooks, f"oci-archive:{tmp_path}/two.tar", f"oci:{tmp_path}/three:v")
    assert rebuilt.manifest.digest == once.manifest.digest
    assert not any(layer.reused for layer in rebuilt.layers)


def test_blobs_that_are_there_are_not_written_again(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    convert(hooks, source, f"oci:{tmp_path}/d:one")
    before = {path: path.stat().st_ino for path in (tmp_path / "d/blobs/sha256").iterdir()}
    convert(hooks, source, f"oci:{tmp_path}/d:two")
    after = {path: path.stat().st_ino for path in (tmp_path / "d/blobs/sha256").iterdir()}
    manifest = resolve(hooks, f"oci:{tmp_path}/d:two").digest
    assert {path: inode for path, inode in after.items() if path.name != manifest[7:]} == {
        path: inode for path, inode in before.items() if path.name != manifest[7:]
    }


def test_directory_becomes_an_image(hooks: Hooks, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_bytes(CONTENT)
    reference = parse_reference(f"oci:{tmp_path}/image:v")
    counted: list[int] = []
    report = Conversion(hooks, reference, ConversionOptions(), counted.append).convert_directory(tree, AMD)
    image = resolve(hooks, str(reference))
    assert image.digest == report.manifest.digest
    assert (image.config.architecture, image.config.os) == ("amd64", "linux")
    assert sum(counted) == report.layers[0].source_size > len(CONTENT)


@pytest.mark.servers
def test_skopeo_and_tar_understand_the_result(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    convert(hooks, source, f"oci-archive:{tmp_path}/a.tar:v")
    copy = ["skopeo", "copy", "--quiet", f"oci-archive:{tmp_path}/a.tar:v", f"dir:{tmp_path}/copy"]
    subprocess.run(copy, check=True)
    layer = resolve(hooks, f"oci-archive:{tmp_path}/a.tar:v").manifest.layers[0]
    blob = tmp_path / "copy" / layer.digest[7:]
    read = subprocess.run(["tar", "-xzOf", str(blob), "one"], capture_output=True, check=True)
    assert read.stdout == CONTENT


# --- failures --------------------------------------------------------------------------------------


def assert_nothing_there(hooks: Hooks, destination: str, directory: Path) -> None:
    with pytest.raises(NotFoundError):
        resolve(hooks, destination)
    left = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("source")]
    assert not [path for path in left if path.name.startswith(".")]


def damaged(source: Path, digest: str, change: Callable[[bytes], bytes]) -> None:
    path = source / "blobs/sha256" / digest[7:]
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
@pytest.mark.parametrize(
    ("compress", "error"),
    [
        (lambda data: gz(data)[:-100], FormatError),
        (lambda data: gz(data[:100_000]), FormatError),
        (lambda data: gz(data) + b"garbage", FormatError),
        (lambda data: gz(b"x" * 1000 + data), FormatError),
        (lambda data: zstandard.compress(data)[:-100], LazylayerError),
        (lambda data: gz(data + bytes(512)), VerificationError),
    ],
)
def test_bad_layer_leaves_nothing_behind(
    hooks: Hooks, tmp_path: Path, kind: str, compress: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    source = write_layout(tmp_path / "source", LAYERS, compress)
    destination = f"{kind}:{tmp_path}/destination:v"
    with pytest.raises(error, match="sha256:"):
        convert(hooks, source, destination)
    assert_nothing_there(hooks, destination, tmp_path)


def test_layer_with_another_digest_is_refused(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    layer = resolve(hooks, source).manifest.layers[1]
    damaged(tmp_path / "source", layer.digest, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(LazylayerError, match=layer.digest):
        convert(hooks, source, f"oci:{tmp_path}/destination:v")
    assert_nothing_there(hooks, f"oci:{tmp_path}/destination:v", tmp_path / "destination")


def test_config_must_fit_the_layers(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS, diff_ids=[sha256_digest(LAYERS[0])])
    with pytest.raises(FormatError, match="3 layers"):
        convert(hooks, source, f"oci:{tmp_path}/destination:v")


class FullDisk:
    """A format plugin whose destination is full after some bytes."""

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        return FormatInfo(("full-disk",), (), "org.example.toc")

    @hookimpl
    def lazylayer_build_layer(
        self, format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
    ) -> BuiltLayer:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["full-disk", "unheard-of"])
def test_full_disk_and_unknown_formats_are_told(tmp_path: Path, name: str) -> None:
    hooks = make_hooks(FullDisk())
    source = write_layout(tmp_path / "source", LAYERS)
    with pytest.raises(LazylayerError) as caught:
        convert(hooks, source, f"oci:{tmp_path}/destination:v", format=name)
    assert "No space left" in str(caught.value) or name in str(caught.value)
    assert_nothing_there(hooks, f"oci:{tmp_path}/destination:v", tmp_path / "destination")


def test_destination_that_cannot_be_written(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError):
        convert(hooks, source, f"oci:{tmp_path}/file/x:v")


def test_destination_keeps_what_it_had_when_a_conversion_fails(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    destination = f"oci:{tmp_path}/destination:v"
    before = convert(hooks, source, destination)
    bad = write_layout(tmp_path / "bad", [tar_of({"x": b"x"})], lambda data: gz(data)[:-10])
    with pytest.raises(LazylayerError):
        convert(hooks, bad, destination)
    assert resolve(hooks, destination).digest == before.manifest.digest
    shutil.rmtree(tmp_path / "bad")
    assert hashlib.sha256(resolve(hooks, destination).manifest_bytes).hexdigest() == before.manifest.digest[7:]


# --- what is prefetched ----------------------------------------------------------------------------


def test_profile_and_globs_decide_what_lies_before_the_landmark(hooks: Hooks, tmp_path: Path) -> None:
    layers = [tar_of({"cold": b"c", "hot.py": b"h", "lib.so": b"l"}), tar_of({"cold": b"c", "lib.so": b"m"})]
    source = write_layout(tmp_path / "source", layers)
    convert(
        hooks,
        source,
        f"oci:{tmp_path}/destination:v",
        profile=(ProfileEntry(b"lib.so", 1), ProfileEntry(b"nowhere", 0)),
        prefetch_globs=(b"**/*.py",),
    )
    assert prefetched(hooks, tmp_path / "destination", f"oci:{tmp_path}/destination:v") == [{b"hot.py"}, {b"lib.so"}]


def prefetched(hooks: Hooks, layout: Path, reference: str) -> list[set[bytes]]:
    """The files in front of the landmark of each layer, lowest first."""
    found = []
    for layer in resolve(hooks, reference).manifest.layers:
        blob = (layout / "blobs/sha256" / layer.digest[7:]).read_bytes()
        contents = hooks.open_layer(make_blob(blob), layer, True, companions_of(blob))
        mark = contents.tree.prefetch_landmark
        landmark = contents.chunks[mark.first_chunk].offset if mark is not None else 0
        found.append(
            {
                path
                for path, entry in contents.tree.walk()
                if entry.chunk_count and contents.chunks[entry.first_chunk].offset < landmark
            }
        )
    return found


@pytest.mark.parametrize("reuse", [False, True])
def test_globs_mean_what_the_image_shows(hooks: Hooks, tmp_path: Path, reuse: bool) -> None:
    lower = tar_of({"a.py": b"a", "b.py": b"b", "d/c.py": b"c", "e.py": b"e"})
    upper = tar_of({".wh.a.py": b"", "b.py": b"new", "d/.wh..wh..opq": b""})
    source = write_layout(tmp_path / "source", [lower, upper])
    if reuse:
        # The upper layer is taken over as it is, and hides what it hides.
        convert(hooks, source, f"oci:{tmp_path}/lazy:v")
        source = only_upper_is_lazy(tmp_path, resolve(hooks, source), resolve(hooks, f"oci:{tmp_path}/lazy:v"))
    convert(hooks, source, f"oci:{tmp_path}/destination:v", prefetch_globs=(b"**/*.py",), reuse=reuse)
    found = prefetched(hooks, tmp_path / "destination", f"oci:{tmp_path}/destination:v")
    assert found == [{b"e.py"}, set() if reuse else {b"b.py"}]


def only_upper_is_lazy(tmp_path: Path, plain: ResolvedImage, lazy: ResolvedImage) -> str:
    shutil.copytree(tmp_path / "source", tmp_path / "mixed")
    shutil.copytree(tmp_path / "lazy/blobs", tmp_path / "mixed/blobs", dirs_exist_ok=True)
    manifest, config = json.loads(plain.manifest_bytes), json.loads(plain.config_bytes)
    manifest["layers"][1] = json.loads(lazy.manifest_bytes)["layers"][1]
    config["rootfs"]["diff_ids"][1] = lazy.config.rootfs.diff_ids[1]
    data = json.dumps(config).encode()
    manifest["config"].update({"digest": sha256_digest(data), "size": len(data)})
    index = json.loads((tmp_path / "mixed/index.json").read_bytes())
    whole = json.dumps(manifest).encode()
    index["manifests"][0].update({"digest": sha256_digest(whole), "size": len(whole)})
    for blob in (data, whole):
        (tmp_path / "mixed/blobs/sha256" / sha256_digest(blob)[7:]).write_bytes(blob)
    (tmp_path / "mixed/index.json").write_text(json.dumps(index))
    return f"oci:{tmp_path}/mixed:v1"


def test_bad_layer_under_a_choice_is_told(hooks: Hooks, tmp_path: Path) -> None:
    """A layer that waits for one above it, which turns out to be bad, does not wait forever."""
    source = write_layout(tmp_path / "source", [*LAYERS, tar_of({"x": b"x"})], lambda data: gz(data)[:-10])
    with pytest.raises(LazylayerError, match="sha256:"):
        convert(hooks, source, f"oci:{tmp_path}/destination:v", prefetch_globs=(b"**",))
    assert_nothing_there(hooks, f"oci:{tmp_path}/destination:v", tmp_path / "destination")


# --- several platforms -----------------------------------------------------------------------------


def test_images_of_all_platforms_are_converted(hooks: Hooks, tmp_path: Path) -> None:
    layout = tmp_path / "source"
    write_layout(layout, LAYERS)
    blobs = layout / "blobs/sha256"
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    entries = []
    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    for platform in ({"os": "linux", "architecture": "riscv64"}, arm):
        data = json.dumps({**manifest, "annotations": {"for": platform["architecture"]}}).encode()
        (blobs / sha256_digest(data)[7:]).write_bytes(data)
        entry = {"mediaType": MediaType.OCI_MANIFEST, "digest": sha256_digest(data), "size": len(data)}
        entries.append({**entry, "platform": platform})
    attestation = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    data = json.dumps({"schemaVersion": 2, "manifests": [*entries, attestation], "annotations": {"a": "b"}}).encode()
    (blobs / sha256_digest(data)[7:]).write_bytes(data)
    index["manifests"][0].update({"mediaType": MediaType.OCI_INDEX, "digest": sha256_digest(data), "size": len(data)})
    (layout / "index.json").write_text(json.dumps(index))

    destination = f"oci:{tmp_path}/destination:v"
    conversion = Conversion(hooks, parse_reference(destination), ConversionOptions())
    reports = conversion.convert_platforms(parse_reference(f"oci:{layout}:v1"))
    assert [len(report.layers) for report in reports] == [3, 3, 0]
    for wanted in (Platform("riscv64", "linux"), Platform("arm64", "linux", "v8")):
        image = hooks.resolve_image(parse_reference(destination), wanted)
        assert image.manifest.annotations == {"for": wanted.architecture}
        assert TOC_DIGEST in image.manifest.layers[0].annotations
        assert image.index is not None and image.index.annotations == {"a": "b"}
    with pytest.raises(NotFoundError, match="linux/arm64/v8"):
        resolve(hooks, destination)


def test_image_in_no_index_is_all_there_is(hooks: Hooks, tmp_path: Path) -> None:
    source = write_layout(tmp_path / "source", LAYERS)
    conversion = Conversion(hooks, parse_reference(f"oci:{tmp_path}/d:v"), ConversionOptions())
    (report,) = conversion.convert_platforms(parse_reference(source))
    assert report.manifest.digest == resolve(hooks, f"oci:{tmp_path}/d:v").digest
