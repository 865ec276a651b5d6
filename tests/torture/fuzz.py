"""Structured fuzzing: mutated inputs to everything that parses what others wrote.

An accepted input must keep its promises (names stay in their tree, bytes have their digests), and a rejected one
must be rejected by an error of ours. Anything else is a failure: another exception, a hang, too much memory.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import json
import marshal
import random
import struct
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import parse_reference, sha256_digest
from lazylayer.configuration.loading import load_configuration
from lazylayer.errors import LazylayerError
from lazylayer_format_estargz.footer import find_footer
from lazylayer_format_zstdchunked.footer import find_footer as find_zstd_footer
from lazylayer_logins.dockerconfig import DockerAuths
from lazylayer_manifests import decode_config, decode_manifest_or_index
from lazylayer_prefetch_entrypoint.budget import Budget, OverBudgetError
from lazylayer_prefetch_entrypoint.bytecode import names_in_bytecode
from lazylayer_prefetch_entrypoint.elf import read_constants, read_needs
from lazylayer_prefetch_entrypoint.imports import names_in_source
from lazylayer_prefetch_entrypoint.linking import read_loader_cache
from lazylayer_resolver_registry.hostsfile import read_hosts
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_ztoc.contents import read_contents
from lazylayer_ztoc.decoding import decode_ztoc
from lazylayer_ztoc.encoding import encode_ztoc
from lazylayer_ztoc.inflating import SpanInflater
from lazylayer_ztoc.layerindexing import index_layer
from lazylayer_ztoc.model import WINDOW_SIZE
from torture.campaign import Campaign
from torture.layers import BuiltSample, build, open_layer, problems_of, sample_archive, toc_value, with_toc
from torture.mutation import mutate_bytes, mutate_json

__all__ = ["Fuzz"]

_BUDGET = 64 << 20
"""Bytes of a plain archive that are read of one mutated layer."""

sample = functools.cache(build)


@functools.cache
def _indexed_layer(span_size: int) -> tuple[bytes, bytes]:
    """Return a gzip layer and its zTOC."""
    layer = gzip.compress(sample_archive(), 1)
    return layer, encode_ztoc(index_layer(io.BytesIO(layer), span_size, "fuzz").ztoc)


class Fuzz(Campaign):
    """Each kind is a parser; a case is one mutated input."""

    name = "fuzz"
    unit = "inputs"
    counts = 60_000
    memory = 512 << 20

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._cases = {name: getattr(self, "_" + name.replace("-", "_")) for name in self.kinds}

    kinds = (
        "toc-estargz", "toc-zstdchunked", "layer-estargz", "layer-zstdchunked", "footer", "tar", "compressed",
        "manifest", "config", "reference", "settings", "hosts", "logins", "source", "bytecode", "elf", "loader-cache",
        "index", "ztoc",
    )  # fmt: skip

    def run(self, kind: str, seed: int) -> str:
        """Parse one mutated input; return what went wrong."""
        case: Callable[[random.Random], str] = self._cases[kind]
        try:
            problem = case(random.Random(f"{kind} {seed}"))
        except OverBudgetError:
            self.outcomes[f"{kind}: over budget"] += 1
            return ""
        except LazylayerError as error:
            self.outcomes[f"{kind}: rejected"] += 1
            return "" if str(error).isprintable() or len(str(error)) < 4096 else f"unclear: {error!r}"
        self.outcomes[f"{kind}: accepted"] += 1
        return problem

    # --- layers -----------------------------------------------------------------------------------

    def _toc_estargz(self, choose: random.Random) -> str:
        return self._changed_toc(sample("estargz"), choose)

    def _toc_zstdchunked(self, choose: random.Random) -> str:
        return self._changed_toc(sample("zstdchunked"), choose)

    def _changed_toc(self, layer: BuiltSample, choose: random.Random) -> str:
        if choose.random() < 0.8:
            toc = json.dumps(mutate_json(toc_value(layer), choose)).encode()
        else:
            toc = mutate_bytes(layer.toc, choose)
        data, descriptor = with_toc(layer, toc)
        contents = open_layer(layer.format, data, descriptor)
        return "" if contents is None else problems_of(contents, data, None)

    def _layer_estargz(self, choose: random.Random) -> str:
        return self._damaged(sample("estargz"), choose)

    def _layer_zstdchunked(self, choose: random.Random) -> str:
        return self._damaged(sample("zstdchunked"), choose)

    def _damaged(self, layer: BuiltSample, choose: random.Random) -> str:
        data = mutate_bytes(layer.data, choose)
        contents = open_layer(layer.format, data, layer.descriptor)
        return "" if contents is None else problems_of(contents, data, layer.files)

    def _footer(self, choose: random.Random) -> str:
        layer = sample(choose.choice(("estargz", "zstdchunked")))
        tail = mutate_bytes(layer.data[-choose.choice((47, 51, 64, 72, 200)) :], choose)
        find_footer(tail, choose.choice((0, len(tail), len(layer.data), 1 << 62)))
        find_zstd_footer(tail)
        return ""

    def _tar(self, choose: random.Random) -> str:
        data = mutate_bytes(sample_archive(), choose, (_gnu_archive(),))
        reader = TarReader(io.BytesIO(data))
        left = _BUDGET
        for number, member in enumerate(reader):
            if number > 20_000:
                return "more members than blocks"
            while left > 0 and (piece := reader.read(1 << 16)):
                left -= len(piece)
            if len(member.name) > 1 << 20:
                return "a name of more than a MiB"
        return ""

    def _compressed(self, choose: random.Random) -> str:
        layer = sample(choose.choice(("estargz", "zstdchunked")))
        plain = PlainLayer(io.BytesIO(mutate_bytes(layer.data, choose)))
        try:
            left = _BUDGET
            while left > 0 and (piece := plain.read(1 << 16)):
                left -= len(piece)
        finally:
            plain.close()
        return ""

    def _index(self, choose: random.Random) -> str:
        if choose.random() < 0.5:
            data = gzip.compress(mutate_bytes(sample_archive(), choose), 1)
        else:
            data = mutate_bytes(gzip.compress(sample_archive(), 1), choose)
        index = index_layer(io.BytesIO(data), choose.choice((1, 1000, 1 << 22)), "fuzz").ztoc
        for number, digest in enumerate(index.span_digests):
            start, end = index.span_range(number)
            if digest != sha256_digest(data[start:end]):
                return f"span {number} has another digest"
        encode_ztoc(index)
        return ""

    def _ztoc(self, choose: random.Random) -> str:
        layer, encoded = _indexed_layer(choose.choice((5000, 1 << 22)))
        # The last window lies at the end, and any window will do.
        data = mutate_bytes(encoded[:-WINDOW_SIZE], choose) + bytes(WINDOW_SIZE)
        ztoc = decode_ztoc(data)
        tree, chunks = read_contents(ztoc)
        contents = LayerContents("soci", tree, chunks, sha256_digest(data), SpanInflater(ztoc))
        return problems_of(contents, layer, None)

    # --- what registries, operators and users write --------------------------------------------------

    def _manifest(self, choose: random.Random) -> str:
        value = choose.choice(_MANIFESTS)
        return self._json(value, choose, lambda data: decode_manifest_or_index(data, "it"))

    def _config(self, choose: random.Random) -> str:
        return self._json(_CONFIG, choose, lambda data: decode_config(data, "it"))

    def _logins(self, choose: random.Random) -> str:
        auths: list[DockerAuths] = []
        self._json(_LOGINS, choose, lambda data: auths.append(DockerAuths.decode(data)))
        for each in auths:
            each.find("registry.test", "image", "it")
        return ""

    def _json(self, value: object, choose: random.Random, parse: Callable[[bytes], object]) -> str:
        if choose.random() < 0.7:
            data = json.dumps(mutate_json(value, choose)).encode()
        elif choose.random() < 0.05:
            depth = choose.choice((100, 2_000, 50_000))
            data = b'{"a":' * depth + b"1" + b"}" * depth
        else:
            data = mutate_bytes(json.dumps(value).encode(), choose)
        parse(data)
        return ""

    def _reference(self, choose: random.Random) -> str:
        text = mutate_bytes(choose.choice(_REFERENCES).encode(), choose).decode(errors="surrogateescape")
        reference = parse_reference(text)
        return "" if parse_reference(str(reference)) == reference else f"{text!r} is not what it is written as"

    def _settings(self, choose: random.Random) -> str:
        file = self.directory / "lazylayer.toml"
        file.write_bytes(mutate_bytes(_SETTINGS, choose))
        load_configuration(file, (), {})
        return ""

    def _hosts(self, choose: random.Random) -> str:
        file = self.directory / "registry.test" / "hosts.toml"
        if not file.exists():
            file.parent.mkdir()
            for name in ("ca.crt", "a.crt", "a.key"):
                file.with_name(name).touch()
        file.write_bytes(mutate_bytes(_HOSTS, choose))
        read_hosts(self.directory, "registry.test")
        return ""

    # --- files of images --------------------------------------------------------------------------------

    def _source(self, choose: random.Random) -> str:
        names_in_source(mutate_bytes(choose.choice(_SOURCES), choose, _SOURCES), Budget())
        return ""

    def _bytecode(self, choose: random.Random) -> str:
        names_in_bytecode(mutate_bytes(_compiled(), choose), Budget())
        return ""

    def _elf(self, choose: random.Random) -> str:
        data = mutate_bytes(_program(), choose)

        def read(offset: int, size: int) -> bytes:
            return data[offset : offset + size] if offset >= 0 else b""

        read_needs(read, Budget())
        read_constants(read, 1 << 20, Budget())
        return ""

    def _loader_cache(self, choose: random.Random) -> str:
        read_loader_cache(mutate_bytes(_loader_cache(), choose), Budget())
        return ""


@functools.cache
def _gnu_archive() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as members:
        for name in ("a" * 300, "b"):
            info = tarfile.TarInfo(name)
            info.size, info.linkname = 1000, ""
            members.addfile(info, io.BytesIO(bytes(1000)))
    return archive.getvalue()


@functools.cache
def _compiled() -> bytes:
    source = "import os\nfrom a.b import c, d\ndef f():\n    import late\n    return [1, 2.5, 'x', b'y', None]\n" * 3
    header = importlib.util.MAGIC_NUMBER + bytes(12)
    return header + marshal.dumps(compile(source, "m", "exec"))


@functools.cache
def _program() -> bytes:
    with Path(sys.executable).resolve().open("rb") as file:
        return file.read(400_000)


@functools.cache
def _loader_cache() -> bytes:
    """Return the start of this machine's ld.so.cache, or one made of a header where there is none."""
    path = Path("/etc/ld.so.cache")
    return (
        path.read_bytes()[:60_000] if path.exists() else b"glibc-ld.so.cache1.1" + struct.pack("<II", 1, 8) + bytes(64)
    )


_DIGEST = "sha256:" + "ab" * 32
_DESCRIPTOR = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": _DIGEST,
    "size": 5,
    "annotations": {"a": "b"},
}
_MANIFESTS: Sequence[object] = (
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _DESCRIPTOR,
        "layers": [_DESCRIPTOR] * 3,
    },
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**_DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64", "variant": "v8"}}] * 2,
    },
)
_CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [_DIGEST] * 3},
    "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": None, "WorkingDir": "/"},
}
_LOGINS = {
    "auths": {"registry.test": {"auth": "dXNlcjpwYXNz"}, "https://index.docker.io/v1/": {"identitytoken": "t"}},
    "credHelpers": {},
}
_REFERENCES = (
    "registry.test:5000/a/b:tag",
    f"host/a@{_DIGEST}",
    "oci:/a/b:tag",
    "oci-archive:/x.tar",
    "python:3.12",
    "localhost/a",
)
_SETTINGS = b"""root = "/var/lib/x"
[cache]
chunks = "cache_dir"
[fetch]
threads = 16
window_min = 131072
[mount]
prefer = ["frontend_erofs", "frontend_fuse"]
[plugin.cache_dir]
max_bytes = 10
"""
_HOSTS = b"""server = "https://registry.test"
[host."https://mirror.test:5000/v2"]
capabilities = ["pull", "resolve"]
skip_verify = true
ca = "ca.crt"
client = [["a.crt", "a.key"]]
override_path = true
[host."https://mirror.test:5000/v2".header]
x-a = ["b"]
"""
_SOURCES = (
    b"import os, sys as system\nfrom a.b import (c,\n  d as e)\nfrom ...x import *\nimport a;import b\n" * 5,
    b"from " + b"." * 5000 + b"\n" + b"import " + b"a." * 5000 + b"\n",
    b'"""doc"""\n#!x\nif True:\n    import late\n\\\nimport joined\n',
)
