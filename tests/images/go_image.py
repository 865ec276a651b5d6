"""Lazy images as the Go tools make them: containerd fetches, `ctr-remote` converts and pushes; skopeo compresses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from images.oci_layout import write_layout
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import run


class GoImages:
    """Builds images into a registry, each content once.

    `directory` holds the OCI layouts in between. The registry and containerd must be running.
    """

    def __init__(self, directory: Path, registry: DockerRegistry, containerd: Containerd) -> None:
        self._directory = directory
        self._registry = registry
        self._containerd = containerd
        self._built: dict[str, str] = {}

    def push_plain(self, layers: Sequence[Path]) -> str:
        """Push the tar archives (lowest first) as an ordinary gzip image; return its reference."""
        name = _name(layers)
        return self._once(f"{name}:plain", lambda: self._push_plain(name, layers))

    def push_estargz(self, layers: Sequence[Path], *, chunk_size: int | None = None) -> str:
        """Push the same image with eStargz layers, as the Go converter makes them; return its reference.

        `chunk_size` is in bytes; None leaves it to the converter (4 MiB).
        """
        plain = self.push_plain(layers)
        tag = "estargz" if chunk_size is None else f"estargz-{chunk_size}"
        target = plain.removesuffix(":plain") + f":{tag}"
        return self._once(target, lambda: self._convert(plain, target, chunk_size))

    def push_zstdchunked(self, layers: Sequence[Path]) -> str:
        """Push the same image with zstd:chunked layers, as the Go converter makes them; return its reference."""
        plain = self.push_plain(layers)
        target = plain.removesuffix(":plain") + ":zstdchunked"
        return self._once(target, lambda: self._run_converter(plain, target, ["convert", "--oci", "--zstdchunked"]))

    def push_zstdchunked_of_podman(self, layers: Sequence[Path]) -> str:
        """Push the same image with zstd:chunked layers as podman's library writes them, which skopeo has in it."""
        plain = self.push_plain(layers)
        target = plain.removesuffix(":plain") + ":podman"
        return self._once(target, lambda: self._compress(_name(layers), target))

    def _compress(self, name: str, target: str) -> str:
        # By way of a directory: skopeo would find the gzip layers in the registry, and take those.
        packed = f"dir:{self._directory / name}-podman"
        options = ["--format=oci", "--dest-compress", "--dest-compress-format=zstd:chunked"]
        run(["skopeo", "copy", "--quiet", *options, f"oci:{self._directory / name}:plain", packed])
        run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", packed, f"docker://{target}"])
        return target

    def _once(self, key: str, build: Callable[[], str]) -> str:
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]

    def _push_plain(self, name: str, layers: Sequence[Path]) -> str:
        layout = self._directory / name
        write_layout(layout, layers, "plain")
        return self._registry.push_layout(layout, "plain", f"{name}:plain")

    def _convert(self, source: str, target: str, chunk_size: int | None) -> str:
        if chunk_size is None:
            options = ["optimize", "--oci", "--no-optimize"]
        else:
            options = ["convert", "--oci", "--estargz", "--estargz-chunk-size", str(chunk_size)]
        return self._run_converter(source, target, options)

    def _run_converter(self, source: str, target: str, options: Sequence[str]) -> str:
        # `content fetch` keeps the image packed: some names could not be unpacked under containerd.
        self._containerd.ctr("content", "fetch", "--plain-http", source)
        self._containerd.ctr_remote("images", *options, source, target)
        self._containerd.ctr("images", "push", "--plain-http", target)
        return target


def _name(layers: Sequence[Path]) -> str:
    content = hashlib.sha256()
    for layer in layers:
        content.update(hashlib.sha256(layer.read_bytes()).digest())
    return f"image-{content.hexdigest()[:16]}"
