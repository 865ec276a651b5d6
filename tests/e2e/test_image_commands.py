"""`lazylayer convert`, `verify` and `diff`, as an operator runs them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import CommandLine
from images.oci_layout import write_layout
from lazylayer_testing.servers.docker_registry import DockerRegistry

FORMATS = ["estargz", "zstdchunked"]


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    settings = {"cache.chunks": "cache_memory", "cache.ranges": "cache_memory", "background.enabled": "false"}
    return CommandLine(tmp_path, **settings)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "large").write_bytes(os.urandom(3_000_000))
    (tree / "small").write_bytes(b"content")
    (tree / "link").symlink_to("small")
    return tree


def convert(command_line: CommandLine, source: str, destination: str, *options: str) -> dict[str, Any]:
    done = command_line.run("convert", "--json", *options, source, destination)
    assert done.stderr == b""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("form", FORMATS)
def test_directory_is_converted_read_and_verified(
    command_line: CommandLine, tree: Path, tmp_path: Path, form: str
) -> None:
    image = f"oci:{tmp_path}/image:v"
    report = convert(command_line, f"dir:{tree}", image, "--format", form, "--chunk-size", "1000000")
    assert len(report["layers"]) == 1
    assert command_line.run("cat", image, "d/large").stdout == (tree / "d" / "large").read_bytes()
    if form == "estargz":
        assert b"good (estargz, 5 chunks)" in command_line.run("verify", image).stdout
    (layer,) = map(json.loads, command_line.run("verify", "--json", image).stdout.splitlines())
    assert (layer["chunks"], layer["problems"]) == (5, [])


def test_text_says_where_the_image_is(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    done = command_line.run("convert", f"dir:{tree}", f"oci:{tmp_path}/image:v")
    assert f"oci:{tmp_path}/image:v@sha256:".encode() in done.stdout


@pytest.mark.servers
@pytest.mark.parametrize("form", FORMATS)
def test_registry_to_registry(
    command_line: CommandLine, tree: Path, tmp_path: Path, docker_registry: DockerRegistry, form: str
) -> None:
    layout = f"oci:{tmp_path}/image:v"
    there = f"{docker_registry.host}/convert-{form}:one"
    convert(command_line, f"dir:{tree}", layout)
    first = convert(command_line, layout, there, "--plain-http", "--format", form)
    assert command_line.run("verify", "--plain-http", there).returncode == 0
    reused = convert(command_line, there, f"oci:{tmp_path}/copy:v", "--plain-http", "--reuse")
    assert [layer["reused"] for layer in reused["layers"]] == [True]
    assert first["digest"] == reused["digest"]
    assert command_line.run("diff", "--plain-http", there, f"oci:{tmp_path}/copy:v").stdout == b""
    pulled = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{there}", f"dir:{tmp_path}/pulled"]
    subprocess.run(pulled, check=True)


def test_diff_tells_what_differs(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    first, second = f"oci:{tmp_path}/first:v", f"oci:{tmp_path}/second:v"
    convert(command_line, f"dir:{tree}", first)
    (tree / "small").write_bytes(b"CONTENT")
    (tree / "small").chmod(0o4755)
    (tree / "link").unlink()
    (tree / "new").mkdir()
    (tree / "new" / "f").write_bytes(b"")
    convert(command_line, f"dir:{tree}", second, "--chunk-size", "100000")
    done = command_line.run("diff", "--ignore-times", first, second, check=False)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == [
        "- /link",
        "+ /new",
        "+ /new/f",
        "~ /small  (mode 0644 → 4755, content)",
    ]
    done = command_line.run("diff", "--ignore-times", "--json", first, second, check=False)
    assert json.loads(done.stdout.splitlines()[0]) == {"kind": "removed", "path": "link", "what": []}


def test_same_files_cut_differently_are_the_same(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    first, second = f"oci:{tmp_path}/first:v", f"oci:{tmp_path}/second:v"
    convert(command_line, f"dir:{tree}", first)
    convert(command_line, f"dir:{tree}", second, "--chunk-size", "100000", "--format", "zstdchunked")
    assert command_line.run("diff", first, second).stdout == b""


def test_verify_tells_what_is_bad(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    image = f"oci:{tmp_path}/image:v"
    layer = convert(command_line, f"dir:{tree}", image)["layers"][0]
    blob = tmp_path / "image/blobs/sha256" / layer["digest"][7:]
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    done = command_line.run("verify", image, check=False)
    assert done.returncode == 1
    assert b"BAD" in done.stdout and b"damaged" in done.stdout


def test_verify_finds_a_table_that_lies(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    """An image whose digests are right, but whose table of contents promises other chunks than it has."""
    image = f"oci:{tmp_path}/image:v"
    report = convert(command_line, f"dir:{tree}", image)
    descriptor = report["layers"][0]
    blobs = tmp_path / "image/blobs/sha256"
    layer = (blobs / descriptor["digest"][7:]).read_bytes()
    toc_offset = int(layer[-51:][16:32], 16)
    archive = gzip.decompress(layer[toc_offset:])
    size = int(archive[124:135], 8)
    toc = json.loads(archive[512 : 512 + size])
    wrong = next(entry for entry in toc["entries"] if entry["name"] == "small")
    wrong["chunkDigest"] = "sha256:" + "ab" * 32
    lying = tmp_path / "lying"
    lying.mkdir()
    (lying / "toc.json").write_text(json.dumps(toc))
    rewrite_image(tmp_path / "image", layer[:toc_offset], json.dumps(toc).encode(), layer[-51:])
    done = command_line.run("verify", f"oci:{tmp_path}/image:lying", check=False)
    assert done.returncode == 1
    assert b"the chunk does not have the digest that the table of contents promises" in done.stdout
    assert b"/small: the chunk at 0 is not the content that the archive has" in done.stdout
    done = command_line.run("cat", f"oci:{tmp_path}/image:lying", "small", check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert command_line.run("cat", f"oci:{tmp_path}/image:lying", "d/large").stdout == (tree / "d/large").read_bytes()


def rewrite_image(layout: Path, members: bytes, toc: bytes, footer: bytes) -> None:
    """Adds the image `lying`: these members, this TOC, and everything signed as it should be."""
    import hashlib
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("stargz.index.json")
        member.size = len(toc)
        tar.addfile(member, io.BytesIO(toc))
    layer = members + gzip.compress(out.getvalue()) + footer
    blobs = layout / "blobs/sha256"

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
    config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest()]
    manifest["config"].update(put(json.dumps(config).encode()))
    manifest["layers"][0].update(put(layer))
    annotation = "containerd.io/snapshot/stargz/toc.digest"
    manifest["layers"][0]["annotations"][annotation] = "sha256:" + hashlib.sha256(toc).hexdigest()
    entry = {**index["manifests"][0], **put(json.dumps(manifest).encode())}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "lying"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [*index["manifests"], entry]}))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["convert", "dir:nowhere", "oci:there:v"], 1, b"not a directory"),
        (["convert", "dir:.", "dir:there"], 2, b"cannot be written"),
        (["convert", "dir:.", "oci:there:v", "--format", "unknown"], 1, b"unknown"),
        (["verify", "oci:nowhere"], 1, b"nowhere"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    command_line: CommandLine, tmp_path: Path, arguments: list[str], status: int, said: bytes
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    command = [word.replace("oci:", f"oci:{tmp_path}/").replace("dir:", f"dir:{tmp_path}/") for word in arguments]
    done = command_line.run(*command, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert not (tmp_path / "there" / "index.json").exists()


def test_a_layer_by_itself_shows_its_whiteouts_and_an_image_does_not(command_line: CommandLine, tmp_path: Path) -> None:
    def archive(name: str, *members: tuple[str, str]) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as tar:
            for member, target in members:
                info = tarfile.TarInfo(member)
                info.type, info.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
                tar.addfile(info)
        return path

    lower = archive("lower.tar", ("etc/gone", ""), ("etc/kept", ""), ("etc/link", "kept"))
    upper = archive("upper.tar", ("etc/.wh.gone", ""), ("etc/dangling", "nowhere"))
    write_layout(tmp_path / "plain", [lower, upper], "v")
    image = f"oci:{tmp_path}/lazy:v"
    convert(command_line, f"oci:{tmp_path}/plain:v", image)
    (shown,) = command_line.run("ls", "--json", "--layer", "1", f"{image}:/etc/gone").stdout.splitlines()
    assert json.loads(shown)["whiteout"]
    assert command_line.run("ls", f"{image}:/etc").stdout == b"dangling\nkept\nlink\n"
    assert command_line.run("cat", image, "/etc/link").stdout == b""
    for words in (["ls", f"{image}:/etc/gone"], ["ls", f"{image}:/etc/dangling"], ["ls", f"{image}:/etc/kept/"]):
        done = command_line.run(*words, check=False)
        assert done.returncode == 1
        assert b"there is no /etc/" in done.stderr
    done = command_line.run("cat", "--layer", "1", image, "/etc/gone", check=False)
    assert b"is not a regular file" in done.stderr
