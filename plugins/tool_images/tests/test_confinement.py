"""What a recorded workload may do, and who it is."""

from __future__ import annotations

import stat
from types import SimpleNamespace
from typing import Any

import pytest

from lazylayer.api.tree import Entry
from lazylayer.errors import BuildError
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_tool_images.confinement import Confinement, specification
from lazylayer_tool_images.container import workload_of
from lazylayer_tool_images.identities import FIRST_ID, IDS, shift_owners, user_ids


def spec(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    confinement = Confinement(**{"first_id": FIRST_ID, "ids": IDS, "seccomp": True, "network": False, **changes})
    return specification("/root", confinement, ["sh"], (5, 6), config or {})


def test_workload_is_confined_as_far_as_can_be() -> None:
    made = spec()
    linux, process = made["linux"], made["process"]
    assert {each["type"] for each in linux["namespaces"]} == {"pid", "ipc", "uts", "mount", "network", "user"}
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": FIRST_ID, "size": IDS}]
    assert {"/proc/kcore", "/sys/firmware"} <= set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])
    assert process["noNewPrivileges"]
    for held in process["capabilities"].values():
        assert not {"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_SETFCAP"} & set(held)
    blocked = {name for rule in linux["seccomp"]["syscalls"] for name in rule["names"]}
    assert {"mount", "bpf", "unshare", "keyctl", "open_by_handle_at", "init_module", "clone3"} <= blocked
    for mount in made["mounts"]:
        assert "nosuid" in mount["options"]


@pytest.mark.parametrize("first_id", [None, FIRST_ID])
@pytest.mark.parametrize("network", [True, False])
def test_it_is_confined_less_only_where_it_must_be(first_id: int | None, network: bool) -> None:
    made = spec(first_id=first_id, network=network, seccomp=False)
    kinds = {each["type"] for each in made["linux"]["namespaces"]}
    assert ("user" in kinds, "network" in kinds) == (first_id is not None, not network)
    assert "seccomp" not in made["linux"]
    (sys,) = [mount for mount in made["mounts"] if mount["destination"] == "/sys"]
    assert "ro" in sys["options"]
    assert (sys["type"] == "none") == (network and first_id is not None)


def test_what_the_image_says_is_kept() -> None:
    process = spec({"Env": ["A=b"], "WorkingDir": "/work"})["process"]
    assert process["env"] == ["A=b", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert (process["cwd"], process["user"]) == ("/work", {"uid": 5, "gid": 6})
    assert spec({"Env": ["PATH=/x"]})["process"]["env"] == ["PATH=/x"]


def test_command_is_that_of_the_user_or_that_of_the_image() -> None:
    config = {"Entrypoint": ["/entry"], "Cmd": ["a", "b"]}
    assert workload_of("sh -c 'echo x'", config) == ["sh", "-c", "echo x"]
    assert workload_of("", config) == ["/entry", "a", "b"]
    with pytest.raises(BuildError, match="name a command"):
        workload_of("", {})


# --- identities ----------------------------------------------------------------------------------


class Files:
    """An image that has some files."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/etc/{name}".encode(): content for name, content in files.items()}

    def find(self, path: bytes) -> Any:
        content = self.files.get(path)
        if content is None:
            return None
        entry = Entry(stat.S_IFREG | 0o644, size=len(content))
        return SimpleNamespace(entry=entry, path=path, layer=None, read=lambda offset, size: content[offset:][:size])


PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\nodd:x:-1:7\nshort:x\n"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("7", (7, 0)),
        ("7:8", (7, 8)),
        ("web", (33, 34)),
        ("web:8", (33, 8)),
        ("web:staff", (33, 50)),
        (":staff", (0, 50)),
    ],
)
def test_user_is_looked_up_in_the_image(user: str, ids: tuple[int, int]) -> None:
    assert user_ids(Files(passwd=PASSWD, group=b"staff:x:50:\n"), user) == ids


@pytest.mark.parametrize("user", ["missing", "short", "odd", "web:nogroup", "4294967296", "99999999999", "٣"])
def test_user_that_is_not_there_is_told(user: str) -> None:
    with pytest.raises(BuildError):
        user_ids(Files(passwd=PASSWD, group=b"staff:x:50:\n"), user)
    with pytest.raises(BuildError, match="/etc/passwd"):
        user_ids(Files(), "web")


def test_owners_are_shifted_and_links_stay_links() -> None:
    builder = TreeBuilder()
    builder.add(b"d", Entry(stat.S_IFDIR | 0o755, uid=1, gid=2, children={}))
    builder.add(b"d/f", Entry(stat.S_IFREG | 0o644, uid=0, gid=IDS - 1, size=3, first_chunk=4, chunk_count=1))
    builder.link(b"g", b"d/f")
    builder.add(b"h", Entry(stat.S_IFREG | 0o644, uid=IDS, gid=1 << 31))
    tree = builder.finish()
    shifted = shift_owners(tree)
    owners = {path: (entry.uid, entry.gid) for path, entry in shifted.walk()}
    assert owners == {
        b"": (FIRST_ID, FIRST_ID),
        b"d": (FIRST_ID + 1, FIRST_ID + 2),
        b"d/f": (FIRST_ID, FIRST_ID + IDS - 1),
        b"g": (FIRST_ID, FIRST_ID + IDS - 1),
        b"h": (IDS, 1 << 31),
    }
    assert shifted.lookup(b"g") is shifted.lookup(b"d/f")
    assert [(path, entry.ino, entry.first_chunk) for path, entry in shifted.walk()] == [
        (path, entry.ino, entry.first_chunk) for path, entry in tree.walk()
    ]
    assert tree.root.uid == 0, "the image's own tree is as it was"
