"""What is the FUSE frontend's own: options, probing, sessions, threads and guarded operations."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazylayer.api.mounting import MountedTree, MountOptions, VirtualDirectory, VirtualFile, Works
from lazylayer.api.tree import Entry
from lazylayer.errors import ConfigurationError, MountError
from lazylayer.linux import mounttable
from lazylayer_frontend_fuse import NAME, FrontendFuse, Options, connection, libfuse
from lazylayer_frontend_fuse.operations import Operations
from lazylayer_frontend_fuse.session import mount_tree
from lazylayer_frontends import mountcalls
from lazylayer_tarlayers.treebuilder import Landmarks, TreeBuilder
from lazylayer_testing.configuring import configured
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.trees import SampleTree, access_tree, odd_tree

OPTIONS = MountOptions()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[str]:
    directory = tmp_path / "mount"
    directory.mkdir()
    yield str(directory)
    assert mounttable.mount_at(str(directory)) is None


def show(tree: SampleTree, mountpoint: str, own: Options | None = None) -> MountedTree:
    return mount_tree(tree, mountpoint, OPTIONS, own or Options())


# --- the plugin ------------------------------------------------------------------------------------


@pytest.mark.fuse
def test_probe_finds_that_fuse_works() -> None:
    assert FrontendFuse().lazylayer_probe_frontend() == Works()


@pytest.mark.parametrize(
    "table", [{"attribute_timout": 1.0}, {"max_background": 0}, {"entry_timeout": -1.0}, {"threads": "yes"}]
)
def test_wrong_options_are_refused(table: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"plugin\.frontend_fuse"):
        configured(FrontendFuse(), NAME, table)


def test_probe_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "_DEVICE", str(tmp_path / "fuse"))
    assert "modprobe fuse" in str(connection.what_is_missing())
    (tmp_path / "fuse").mkdir()
    assert "cannot be opened" in str(connection.what_is_missing())


@pytest.mark.fuse
def test_mount_error_says_why_and_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mountpoint: str) -> None:
    monkeypatch.setattr(connection, "_DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(MountError, match="modprobe fuse"):
        show(access_tree(b""), mountpoint)


@pytest.mark.fuse
def test_libfuse_that_refuses_leaves_no_mount(monkeypatch: pytest.MonkeyPatch, mountpoint: str) -> None:
    def refuse(descriptor: int, *_: object) -> int:
        os.close(descriptor)
        return 0

    monkeypatch.setattr(libfuse, "new_session", refuse)
    with pytest.raises(MountError, match="libfuse"):
        show(access_tree(b""), mountpoint)


def test_importing_the_plugin_does_not_need_libfuse() -> None:
    code = "import sys, lazylayer_frontend_fuse; assert 'fuse' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "FUSE_LIBRARY_PATH": "/nowhere.so"})


def test_missing_library_is_a_reason(tmp_path: Path) -> None:
    code = "from lazylayer_frontend_fuse.connection import what_is_missing; print(what_is_missing())"
    environment = {**os.environ, "FUSE_LIBRARY_PATH": str(tmp_path / "nowhere.so")}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert "libfuse2" in done.stdout or "/dev/fuse" in done.stdout


def test_mounting_without_the_library_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
from lazylayer.errors import MountError
from lazylayer_frontend_fuse import FrontendFuse
try:
    FrontendFuse().lazylayer_mount_tree(None, sys.argv[1], None, None)
except MountError as error:
    print(error)
"""
    environment = {**os.environ, "FUSE_LIBRARY_PATH": str(tmp_path / "nowhere.so")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path} cannot be mounted with FUSE: ")
    assert "libfuse2" in done.stdout or "/dev/fuse" in done.stdout


# --- rows of the list of behaviours ------------------------------------------------------------------


@pytest.mark.fuse
@pytest.mark.seed(10)
def test_mount_is_read_only_for_all_users_with_set_uid_and_long_timeouts(mountpoint: str) -> None:
    mounted = show(access_tree(b""), mountpoint)
    try:
        (line,) = [line for line in Path("/proc/self/mounts").read_text().splitlines() if mountpoint in line]
        options = line.split()[3].split(",")
        assert {"ro", "allow_other", "default_permissions"} <= set(options)
        assert not {"nosuid", "nodev"} & set(options)
    finally:
        mounted.unmount()


@pytest.mark.fuse
@pytest.mark.seed(11)
@pytest.mark.seed(12)
def test_listing_is_sorted_and_shows_no_marks(mountpoint: str) -> None:
    build = TreeBuilder(Landmarks(b".prefetch.landmark", b".no.prefetch.landmark"))
    for name in (b"b", b"a", b".prefetch.landmark", b".no.prefetch.landmark", b".wh.gone", b"sub/.wh.x", b"sub/x"):
        build.add(name, Entry(mode=stat.S_IFREG | 0o644))
    build.add(b"opaque/.wh..wh..opq", Entry(mode=stat.S_IFREG | 0o644))
    build.add(b"sub/.prefetch.landmark", Entry(mode=stat.S_IFREG | 0o644))
    hidden = {b".state": VirtualDirectory(0o500, {})}
    mounted = show(SampleTree(build.finish(), virtual=hidden), mountpoint)
    try:
        assert os.listdir(mountpoint) == ["a", "b", "gone", "opaque", "sub"]
        assert os.listdir(f"{mountpoint}/sub") == [".prefetch.landmark", "x"]
        assert os.listdir(f"{mountpoint}/opaque") == []
        gone = os.lstat(f"{mountpoint}/gone")
        assert stat.S_ISCHR(gone.st_mode)
        assert gone.st_rdev == 0
        assert stat.S_ISREG(os.lstat(f"{mountpoint}/sub/x").st_mode)
        for path in (".prefetch.landmark", ".no.prefetch.landmark", ".wh.gone", "sub/.wh.x", "opaque/.wh..wh..opq"):
            assert not os.path.lexists(f"{mountpoint}/{path}")
        assert stat.S_ISDIR(os.lstat(f"{mountpoint}/.state").st_mode)
    finally:
        mounted.unmount()


@pytest.mark.fuse
@pytest.mark.seed(13)
def test_opaque_directory_lists_its_mark_first(mountpoint: str) -> None:
    build = TreeBuilder()
    attributes = {b"trusted.overlay.opaque": b"n", b"trusted.a": b"1"}
    build.add(b"d", Entry(mode=stat.S_IFDIR | 0o755, children={}, xattrs=attributes))
    build.add(b"d/.wh..wh..opq", Entry(mode=stat.S_IFREG))
    mounted = show(SampleTree(build.finish()), mountpoint)
    try:
        assert os.listxattr(f"{mountpoint}/d") == ["trusted.overlay.opaque", "user.overlay.opaque", "trusted.a"]
        assert os.getxattr(f"{mountpoint}/d", "trusted.overlay.opaque") == b"y"
        with pytest.raises(OSError) as raised:
            os.getxattr(mountpoint, "trusted.overlay.opaque")
        assert raised.value.errno == errno.ENODATA
    finally:
        mounted.unmount()


@pytest.mark.fuse
@pytest.mark.seed(15)
def test_sizes_are_told_in_blocks_of_512(mountpoint: str) -> None:
    tree = odd_tree()
    mounted = show(tree, mountpoint)
    try:
        assert os.stat(f"{mountpoint}/sizes/4097").st_blocks == 9
        assert os.stat(f"{mountpoint}/sizes/1").st_blocks == 1
        status = os.statvfs(mountpoint)
        assert (status.f_bsize, status.f_frsize) == (512, 512)
    finally:
        mounted.unmount()


@pytest.mark.fuse
@pytest.mark.seed(16)
def test_inode_numbers_of_the_hidden_directory_stay(mountpoint: str) -> None:
    names = [b"b.json", b"a.json"]
    seen = []
    for order in (names, reversed(names)):
        files = {name: VirtualFile(0o400, lambda: b"{}\n") for name in order}
        mounted = show(access_tree(b"", {b".state": VirtualDirectory(0o500, files)}), mountpoint)
        paths = [f"{mountpoint}/.state/{name.decode()}" for name in names]
        seen.append([os.lstat(path).st_ino for path in (f"{mountpoint}/.state", *paths)])
        mounted.unmount()
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 3


@pytest.mark.fuse
def test_hidden_directory_does_not_replace_an_entry_of_the_layer(mountpoint: str) -> None:
    build = TreeBuilder()
    build.add(b".state", Entry(mode=stat.S_IFREG | 0o644, size=3))
    mounted = show(SampleTree(build.finish(), virtual={b".state": VirtualDirectory(0o500, {})}), mountpoint)
    try:
        assert stat.S_ISREG(os.lstat(f"{mountpoint}/.state").st_mode)
    finally:
        mounted.unmount()


@pytest.mark.fuse
def test_many_open_files_of_the_hidden_directory(mountpoint: str) -> None:
    contents = [b"first\n"]
    files = {b"a.json": VirtualFile(0o400, lambda: contents[-1])}
    mounted = show(access_tree(b"", {b".state": VirtualDirectory(0o500, files)}), mountpoint)
    opened = [os.open(f"{mountpoint}/.state/a.json", os.O_RDONLY) for _ in range(300)]
    try:
        contents.append(b"second\n")
        # The last 256 keep the content of their opening; older ones are made anew rather than kept forever.
        assert os.pread(opened[-1], 100, 0) == b"first\n"
        assert os.pread(opened[0], 100, 0) == b"second\n"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        mounted.unmount()


@pytest.mark.fuse
def test_hidden_file_whose_content_cannot_be_made_is_eio(mountpoint: str) -> None:
    def fail() -> bytes:
        raise ValueError("no state")

    files = {b"a.json": VirtualFile(0o400, fail)}
    mounted = show(access_tree(b"", {b".state": VirtualDirectory(0o500, files)}), mountpoint)
    try:
        with pytest.raises(OSError) as raised:
            os.open(f"{mountpoint}/.state/a.json", os.O_RDONLY)
        assert raised.value.errno == errno.EIO
    finally:
        mounted.unmount()


# --- sessions and threads ----------------------------------------------------------------------------


@pytest.mark.fuse
@pytest.mark.parametrize(
    "own",
    [
        Options(threads=False),
        Options(keep_thread_state=False),
        Options(attribute_timeout=0, entry_timeout=0, negative_timeout=0, kernel_cache=False),
        Options(max_read=4096, max_background=1),
    ],
)
def test_options_show_the_same_tree(mountpoint: str, own: Options) -> None:
    tree = access_tree(b"x" * 100_000)
    mounted = show(tree, mountpoint, own)
    try:
        assert differences(tree, mountpoint) == []
    finally:
        mounted.unmount()


@pytest.mark.fuse
def test_bursts_of_readers_leave_no_thread_behind(mountpoint: str) -> None:
    tree = odd_tree()
    mounted = show(tree, mountpoint, Options(kernel_cache=False, attribute_timeout=0, entry_timeout=0))
    try:
        with ThreadPoolExecutor(40) as threads:
            for _ in range(3):
                tree.gate.clear()
                reads = [
                    threads.submit(Path(mountpoint, "sizes", str(size)).read_bytes) for size in (1, 511, 4095) * 13
                ]
                assert tree.waiting.wait(60)
                tree.gate.set()
                assert [len(read.result(60)) for read in reads] == [1, 511, 4095] * 13
    finally:
        mounted.unmount()
    assert mounted.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "lazylayer-fuse" and thread.is_alive()]


@pytest.mark.fuse
def test_debug_traces_the_protocol(mountpoint: str) -> None:
    code = (
        "import sys, os\n"
        "from lazylayer.api.mounting import MountOptions\n"
        "from lazylayer_testing.frontend.trees import access_tree\n"
        "from lazylayer_frontend_fuse import NAME, Options\n"
        "from lazylayer_frontend_fuse.session import mount_tree\n"
        "mounted = mount_tree(access_tree(b''), sys.argv[1], MountOptions(debug=True), Options())\n"
        "os.listdir(sys.argv[1])\n"
        "mounted.unmount()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, mountpoint], check=True, capture_output=True, text=True)
    assert "READDIR" in done.stderr


@pytest.mark.fuse
def test_a_process_that_ends_takes_its_mounts_along(mountpoint: str) -> None:
    code = (
        "import sys\n"
        "from lazylayer.api.mounting import MountOptions\n"
        "from lazylayer_testing.frontend.trees import access_tree\n"
        "from lazylayer_frontend_fuse import NAME, Options\n"
        "from lazylayer_frontend_fuse.session import mount_tree\n"
        "mount_tree(access_tree(b''), sys.argv[1], MountOptions(), Options())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, mountpoint], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert mounttable.mount_at(mountpoint) is None


@pytest.mark.fuse
def test_another_mount_on_top_is_not_unmounted(mountpoint: str) -> None:
    mounted = show(access_tree(b""), mountpoint)
    mountcalls.mount("none", mountpoint, "tmpfs", mountcalls.MountFlags(0), "size=1m")
    with pytest.raises(MountError, match="tmpfs"):
        mounted.unmount()
    mountcalls.unmount(mountpoint)
    mounted.unmount()


@pytest.mark.fuse
def test_signals_stay_as_they_were(mountpoint: str) -> None:
    import signal

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
    before = [signal.getsignal(number) for number in numbers]
    actions = Path("/proc/self/status").read_text().split("SigCgt:")[1].split()[0]
    mounted = show(access_tree(b""), mountpoint)
    assert [signal.getsignal(number) for number in numbers] == before
    assert Path("/proc/self/status").read_text().split("SigCgt:")[1].split()[0] == actions
    mounted.unmount()


@pytest.mark.fuse
def test_ordinary_user_mounts_with_fusermount(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become an ordinary user")
    # As on every desktop: /dev/fuse is for all. Where it is not, it is in a mount namespace of our own.
    for_all = (
        f"mknod {tmp_path}/fuse c 10 229 && chmod 666 {tmp_path}/fuse && "
        f'mount --bind {tmp_path}/fuse /dev/fuse && exec "$@"'
    )
    code = (
        "import faulthandler, os, sys, tempfile\n"
        "faulthandler.dump_traceback_later(120, exit=True)  # a hang shows where\n"
        "from lazylayer.api.mounting import MountOptions\n"
        "from lazylayer_testing.frontend.facts import differences\n"
        "from lazylayer_testing.frontend.trees import access_tree\n"
        "from lazylayer_frontend_fuse import NAME, Options\n"
        "from lazylayer_frontend_fuse.session import mount_tree\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "with tempfile.TemporaryDirectory() as directory:\n"
        "    mounted = mount_tree(access_tree(b''), directory, MountOptions(), Options())\n"
        "    print(sorted(os.listdir(directory)))\n"
        "    mounted.unmount()\n"
        "    print(os.listdir(directory), mounted.wait(0))\n"
        "    mounted = mount_tree(access_tree(b''), directory, MountOptions(), Options())\n"
        "    file = open(directory + '/for-all', 'rb')\n"
        "    mounted.unmount(force=True)\n"
        "    print(os.listdir(directory), mounted.wait(0))\n"
    )
    command = ["unshare", "-m", "sh", "-c", for_all, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "for-all" in done.stdout
    assert done.stdout.count("[] True") == 2


# --- operations, without a kernel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), OSError("no number"), MemoryError(), ValueError()]
)
def test_no_exception_leaves_a_callback(error: BaseException) -> None:
    tree = access_tree(b"")
    operations = Operations(tree, lambda: None, None)
    callbacks = operations.callbacks()
    info = libfuse.FileInfo()
    pointer = ctypes.pointer(info)
    assert callbacks["open"](b"/for-all", pointer) == 0
    buffer = ctypes.create_string_buffer(100)
    assert callbacks["read"](b"/for-all", buffer, 100, 0, pointer) == len(b"for all")
    tree.fail = error  # type: ignore[assignment]
    assert callbacks["read"](b"/for-all", buffer, 100, 0, pointer) == -errno.EIO


def test_values_that_do_not_fit_are_refused() -> None:
    callbacks = Operations(odd_tree(), lambda: None, None).callbacks()
    buffer = ctypes.create_string_buffer(64)
    assert callbacks["getxattr"](b"/xattrs/large", b"user.large", buffer, 64) == -errno.ERANGE
    assert callbacks["getxattr"](b"/xattrs/large", b"user.large", buffer, 0) == 3072
    assert callbacks["listxattr"](b"/xattrs/many", buffer, 64) == -errno.ERANGE
    assert callbacks["listxattr"](b"/sizes/1", buffer, 64) == 0
    assert callbacks["getxattr"](b"/nothing", b"user.x", buffer, 64) == -errno.ENOENT


def test_status_is_packed_as_the_c_compiler_lays_it_out() -> None:
    layout = libfuse.StatLayout()
    packed = layout.pack(1, 2, 3, 4, 5, 6, 7, 8, 9, -10, 11, -12, 13, -14, 15)
    status = libfuse.Stat.from_buffer_copy(packed)
    assert [status.st_ino, status.st_nlink, status.st_mode, status.st_uid, status.st_gid] == [1, 2, 3, 4, 5]
    assert [status.st_rdev, status.st_size, status.st_blksize, status.st_blocks] == [6, 7, 8, 9]
    assert (status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec) == (-12, 13)
    assert (status.st_atimespec.tv_sec, status.st_ctimespec.tv_nsec) == (-10, 15)
