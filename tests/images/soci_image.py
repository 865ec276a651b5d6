"""An image with an index that SOCI's own tool made, kept as a fixture, and how it was made.

    python -m images.soci_image SOCI DESTINATION.tar.xz     (in tests/)

SOCI is the program that `go build ./soci` makes in `cmd` of github.com/awslabs/soci-snapshotter; the fixture here is of
its commit 77fb4266 (v0.15.0). Each layer but the last is the same archive, compressed in another way. The last is too
small for an index of its own, as SOCI leaves out layers that it thinks too small.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from lazylayer.api.oci import Index, Manifest, sha256_digest
from lazylayer_manifests import decode_manifest_or_index

FIXTURE = Path(__file__).parent / "soci" / "image.tar.xz"
LAYERS = ("level 1", "level 6", "level 9", "many members", "plain", "empty", "small")
"""The kinds of the layers, lowest first."""

_SPAN = 16 * 1024
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_TAR = "application/vnd.oci.image.layer.v1.tar"


def extract_image(directory: Path) -> Path:
    """Extract the image into `directory`, and return its OCI layout."""
    with lzma.open(FIXTURE) as data, tarfile.open(fileobj=data) as archive:
        archive.extractall(directory, filter="data")
    return directory


def image_manifest(layout: Path) -> Manifest:
    """Return the manifest of the image in a layout."""
    content = decode_manifest_or_index((layout / "index.json").read_bytes(), "index.json")
    while isinstance(content, Index):
        digest = content.manifests[0].digest
        content = decode_manifest_or_index((layout / "blobs" / "sha256" / digest[7:]).read_bytes(), digest)
    return content


def archive_of(name: str, blob: bytes) -> bytes:
    """Return the plain archive of a layer."""
    return blob if name == "plain" else gzip.decompress(blob)


def odd_archive() -> bytes:
    """Return an archive of everything that a zTOC can describe, of some 100 kB."""
    chance = random.Random(7)
    words = [chance.randbytes(chance.randrange(2, 9)).hex() for _ in range(300)]

    def text(size: int) -> bytes:
        return " ".join(chance.choices(words, k=size // 4)).encode()[:size]

    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:

        def add(name: bytes, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> None:
            info = tarfile.TarInfo(name.decode(errors="surrogateescape"))
            info.type, info.size, info.mtime = kind, len(content), 1_600_000_000
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))

        add(b"./", kind=tarfile.DIRTYPE, mode=0o755)
        add(b"./bin/", kind=tarfile.DIRTYPE, mode=0o2755, gid=5)
        add(b"./bin/su", text(25_000), mode=0o4755)
        add(b"tmp/", kind=tarfile.DIRTYPE, mode=0o1777)
        add(b"bin/login", kind=tarfile.SYMTYPE, mode=0o777, linkname="su")
        add(b"empty", mode=0)
        add(b"large", text(40_000), uid=70_000, gid=3_000_000_000)
        for size in (1, 511, 512, 513):
            add(b"sizes/%d" % size, text(size) or b"x", mtime=1_600_000_000.123456789)
        add(b"dev/sda", kind=tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=1)
        add(b"dev/null", kind=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
        add(b"run/pipe", kind=tarfile.FIFOTYPE, mode=0o600)
        attributes = {"SCHILY.xattr.user.binary": "\0\udcff\n=\0", "SCHILY.xattr.user.empty": ""}
        add(b"attributes", b"x", pax_headers=attributes)
        add(b"not-utf-8-\xff\xfe", b"bytes")
        add("ünïcode/日本".encode(), b"u")
        add(b"long/" + b"/".join([b"d" * 60] * 5) + b"/f", text(3000))
        add(b"linked/a", text(5000))
        add(b"elsewhere/b", kind=tarfile.LNKTYPE, linkname="linked/a")
        add(b"elsewhere/c", kind=tarfile.LNKTYPE, linkname="./elsewhere/b")
        add(b"twice", b"first")
        add(b"twice", b"second")
        add(b"gone/.wh.name")
        add(b"opaque/", kind=tarfile.DIRTYPE, mode=0o750)
        add(b"opaque/.wh..wh..opq")
        add(b"opaque/own", b"own")
    return out.getvalue()


def _deflated(data: bytes, level: int) -> bytes:
    # The smaller a compressor's memory, the shorter its blocks: many spans of a small layer.
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31, 4)
    return compressor.compress(data) + compressor.flush()


def _layers() -> dict[str, bytes]:
    odd = odd_archive()
    pieces = (odd[start : start + 10_000] for start in range(0, len(odd), 10_000))
    made = {f"level {level}": _deflated(odd, level) for level in (1, 6, 9)}
    made |= {"many members": b"".join(gzip.compress(piece, mtime=0) for piece in pieces), "plain": odd}
    made["empty"] = gzip.compress(bytes(10 * 1024), 0, mtime=0)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("small"))
    made["small"] = gzip.compress(out.getvalue(), mtime=0)
    return made


def _write_layout(directory: Path) -> None:
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = sha256_digest(data)
        (blobs / digest[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layers = _layers()
    diff_ids = [sha256_digest(archive_of(name, data)) for name, data in layers.items()]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [put(data, _TAR if name == "plain" else _GZIP) for name, data in layers.items()],
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "odd"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _make(soci: str, destination: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "target"
        _write_layout(source)
        command = [soci, "convert", "--standalone", "--format=oci-dir", f"--span-size={_SPAN}", "--min-layer-size=150"]
        subprocess.run([*command, str(source), str(target)], check=True)
        with lzma.open(destination, "wb", preset=9) as out, tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(target, ".")


if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]))
