"""Write plain layer archives as an image in an OCI image layout, without any of the project's code.

Source of the format: the OCI image specification, `image-layout.md`, `manifest.md`, `config.md`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MEDIA = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_GZIP = 16 + zlib.MAX_WBITS


def write_layout(directory: Path, layers: Sequence[Path], tag: str, *, command: Sequence[str] = ("/bin/sh",)) -> str:
    """Write the layout with one image of these tar archives (lowest first); return its manifest's digest.

    The layers are compressed with gzip, the same way each time. `command` is what a container of the
    image runs.
    """
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = [], []
    for layer in layers:
        tar = layer.read_bytes()
        diff_ids.append(_digest(tar))
        compressor = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        packed = compressor.compress(tar) + compressor.flush()
        descriptors.append(_write_blob(blobs, packed, f"{_MEDIA}.layer.v1.tar+gzip"))
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": layer.name} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _write_blob(blobs, _json(config), f"{_MEDIA}.config.v1+json"),
        "layers": descriptors,
    }
    descriptor = _write_blob(blobs, _json(manifest), f"{_MEDIA}.manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [descriptor]}))
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(descriptor["digest"])


def _write_blob(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = _digest(content)
    (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()
