"""The commands, as an operator runs them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from lazylayer.configuration.loading import load_configuration
from lazylayer_tool_node.commands.authors import read_template
from lazylayer_tool_node.stargz import KEYS, translate
from lazylayer_tool_node.tomltext import to_toml

ROOT = Path(__file__).resolve().parents[3]


class Node:
    """A machine with its own root, run directory and caches, and an image whose second layer is not lazy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        settings = [f"root={self.directory}/root", f"run={self.directory}/run"]
        words = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "lazylayer", *words, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    directory = tmp_path_factory.mktemp("node")
    tree = directory / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "os-release").write_text("NAME=tiny\n")
    (tree / "data").write_text(random.Random(1).randbytes(1_500_000).hex())
    node = Node(directory)
    node.run("convert", f"dir:{tree}", f"oci:{directory}/image:v")
    return node


@pytest.fixture(scope="module")
def reference(node: Node) -> str:
    return f"oci:{node.directory}/image:v"


def plain_image(node: Node, name: str) -> str:
    """Make a copy of the image whose manifest promises no table of contents, and whose layer has none."""

    folder = node.directory / name
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    archive = node.directory / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(node.directory / "tree", "tree")

    def put(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    plain = archive.read_bytes()
    layer, size = put(gzip.compress(plain))
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]}
    config, config_size = put(
        json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    )
    media = "application/vnd.oci.image"
    manifest, manifest_size = put(
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{media}.manifest.v1+json",
                "config": {"mediaType": f"{media}.config.v1+json", "digest": config, "size": config_size},
                "layers": [{"mediaType": f"{media}.layer.v1.tar+gzip", "digest": layer, "size": size}],
            }
        ).encode()
    )
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": f"{media}.manifest.v1+json", "digest": manifest, "size": manifest_size}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{folder}"


class TestImages:
    def test_inspect(self, node: Node, reference: str) -> None:
        shown = json.loads(node.run("inspect", "--json", reference))
        (layer,) = shown["layers"]
        assert shown["reference"] == reference
        assert (layer["format"], layer["reason"], layer["chunks"] > 0) == ("estargz", "", True)
        assert "1 layers, 1 lazy" in node.run("inspect", reference)

    def test_explain_a_lazy_image(self, node: Node, reference: str) -> None:
        said = node.run("explain", reference).splitlines()
        assert "lazy: estargz; the cache has its table of contents" in said[0]
        assert said[-1] == "The image is lazy: each part is fetched when it is first read."

    def test_explain_an_image_that_is_not_lazy(self, node: Node) -> None:
        said = node.run("explain", plain_image(node, "plain")).splitlines()
        assert "not lazy: no table of contents: " in said[0]
        assert said[-1].startswith("1 of 1 layers are not lazy (0 % of the bytes are)")

    def test_explain_nothing(self, node: Node) -> None:
        said = node.run("explain", node.directory, status=1)
        assert "no lazylayer process serves a mount there; `lazylayer status` lists them" in said


@pytest.mark.fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root here")
def test_a_mount_is_explained_and_fetched(node: Node, reference: str) -> None:
    mountpoint = node.directory / "mount"
    mountpoint.mkdir()
    node.run("cache", "prune")
    node.run("--set", "background.enabled=false", "--set", "prefetch.enabled=false", "mount", reference, mountpoint)
    try:
        said = node.run("explain", mountpoint)
        assert "are still in the registry" in said
        assert f"`lazylayer fetch {mountpoint}` fetches them now" in said
        came = node.run("fetch", mountpoint)
        assert came.startswith(f"{mountpoint}: ")
        (layer,) = json.loads(node.run("status", "--json"))["mounts"][0]["layers"]
        assert layer["percent"] > 99  # hidden files of the format are left out
        assert ": 0.0 MB came, " in node.run("fetch", mountpoint)
        node.run("umount", "--all")
        assert node.run("status") == "nothing is mounted\n"
    finally:
        subprocess.run(["umount", "--lazy", str(mountpoint)], capture_output=True, check=False)


class TestCaches:
    def test_stats_ls_and_prune(self, node: Node, reference: str) -> None:
        node.run("cat", reference, "etc/os-release", "data")
        stats = json.loads(node.run("cache", "stats", "--json"))["caches"]
        assert [each["purpose"] for each in stats] == ["chunks", "ranges"]
        listed = node.run("cache", "ls").splitlines()
        assert len(listed) == stats[0]["entries"]
        assert sum(int(line.split()[1]) for line in listed) == stats[0]["bytes"]
        node.run("cache", "prune", "--to", "20kB")
        left = node.run("cache", "ls").splitlines()
        assert set(left) < set(listed)
        assert sum(int(line.split()[1]) for line in left) <= 20_000
        node.run("cache", "prune")
        assert node.run("cache", "ls") == ""

    def test_a_cache_that_cannot_list_says_so(self, node: Node) -> None:
        said = node.run("--set", "cache.chunks=cache_memory", "cache", "ls", status=1)
        assert "the cache plugin cache_memory cannot list what it holds" in said


class TestConfiguration:
    def test_init_writes_what_is_the_default(self, node: Node) -> None:
        file = node.directory / "made" / "lazylayer.toml"
        node.run("config", "init", file)
        text = file.read_text()
        assert tomllib.loads(text) == {}
        uncommented = "\n".join(
            line[2:] for line in text.splitlines() if line[2:].partition(" = ")[1] or line[2:3] == "["
        )
        settings = load_configuration(file, (), {}).settings
        file.write_text(uncommented)
        assert load_configuration(file, (), {}).settings == settings
        assert "exists" in node.run("config", "init", file, status=1).lower()

    def test_import(self, node: Node) -> None:
        theirs = node.directory / "stargz.toml"
        theirs.write_text(
            """
noprefetch = true
prefetch_size = 0
http_cache_type = "memory"
metrics_address = "127.0.0.1:8234"
log_file_access = true
surprise = 1
[blob]
check_always = true
fetching_timeout_sec = 120
[resolver]
[resolver.host."registry.test"]
[[resolver.host."registry.test".mirrors]]
host = "mirror.test"
insecure = true
"""
        )
        said = node.run("config", "import", theirs)
        assert tomllib.loads(said) == {
            "prefetch": {"enabled": False},
            "cache": {"ranges": "cache_memory"},
            "plugin": {"state_prometheus": {"address": "127.0.0.1:8234"}},
            "resolve": {"check_interval": 0},
            "fetch": {"read_timeout": "120s"},
            "resolver": {"host": {"registry.test": {"mirrors": [{"host": "mirror.test", "insecure": True}]}}},
        }
        assert "#   log_file_access: " in said
        assert "#   surprise: not a key of stargz-snapshotter that we know" in said
        file = node.directory / "imported.toml"
        file.write_text(said)
        assert "the configuration is good" in node.run("--config", file, "config", "check")

    def test_every_key_of_ours_exists(self, node: Node) -> None:
        file = node.directory / "every-key.toml"
        file.write_text(to_toml(translate(every_key()).tables))
        assert "the configuration is good" in node.run("--config", file, "config", "check")


def every_key() -> dict[str, object]:
    """Return a configuration of theirs that sets every key that has one of ours."""
    values = {"metrics_address": "127.0.0.1:1", "http_cache_type": "memory", "filesystem_cache_type": "", "host": {}}
    theirs: dict[str, object] = {}
    for name, key in KEYS.items():
        if not key.ours:
            continue
        *above, last = name.split(".")
        table = theirs
        for part in above:
            table = table.setdefault(part, {})  # type: ignore[assignment]
        is_flag = key.how in ("not", "zero") or last == "debug" or last.startswith("allow")
        table[last] = values.get(last, "/some/path" if last.endswith("path") else True if is_flag else 7)
    return theirs


class TestPlugins:
    def test_the_template_is_that_of_the_guide(self) -> None:
        template = ROOT / "plugins" / "_template"
        if not template.is_dir():
            pytest.skip("the repository is not here")
        found = {
            path.relative_to(template).as_posix(): path.read_text()
            for path in sorted(template.rglob("*"))
            if path.is_file() and not {"__pycache__", ".pytest_cache"} & set(path.parts)
        }
        packaged = json.loads((ROOT / "plugins/tool_node/lazylayer_tool_node/template.json").read_text())
        assert packaged == found  # to mend it, write `found` there

    def test_new_writes_a_plugin_that_passes_its_tests(self, node: Node) -> None:
        target = node.directory / "scaffold"
        assert f"cd {target}" in node.run("plugins", "new", "cache_old_shelf", target)
        assert sorted(each.name for each in target.iterdir()) == [
            "README.md", "lazylayer_cache_old_shelf", "pyproject.toml", "tests",
        ]  # fmt: skip
        assert not [
            path for path, text in read_template("cache_shelf").items() if "cache_tiny" in text or "tiny" in path
        ]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not Conformance"]
        done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout
        assert "begin with cache_" in node.run("plugins", "new", "keychain_mine", status=2)

    def test_options(self, node: Node) -> None:
        said = node.run("plugins", "options", "cache_dir")
        assert 'plugin.cache_dir.max_bytes: a size like "20GB" or "64MiB", or a number of bytes, at least 1\n' in said
        assert "did you mean cache_dir?" in node.run("plugins", "options", "cache_dri", status=78)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(node: Node, shell: str) -> None:
    script = node.run("completion", shell)
    assert f"_LAZYLAYER_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_completing_words(node: Node) -> None:
    code = "from lazylayer.cli import main; main()"
    environment = {"_LAZYLAYER_COMPLETE": "bash_complete", "COMP_WORDS": "lazylayer plugins o", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,options\n"
