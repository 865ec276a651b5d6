"""The server's answers, with a socket in the kernel's place: packets as the FUSE protocol has them."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazylayer.api.tree import Entry
from lazylayer.errors import LayerError
from lazylayer_frontend_erofs.format import BLOCK
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.server import ImageServer
from lazylayer_frontend_erofs.writer import file_entries, write_metadata
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_testing.frontend.trees import SampleTree

WAIT = 60.0
MAX_READ = 1024 * 1024
GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, INTERRUPT, DESTROY, FORGET = 3, 14, 15, 17, 18, 25, 26, 36, 38, 2
LOOKUP, WRITE, GETXATTR, IOCTL = 1, 16, 22, 39


class Kernel:
    """The other side of a server."""

    def __init__(self) -> None:
        builder = TreeBuilder()
        for number, size in enumerate((1, 4096, 5000, 3_000_000)):
            builder.add(b"%d" % number, Entry(stat.S_IFREG | 0o644, size=size))
        self.tree = SampleTree(builder.finish())
        self.image = Image(self.tree, write_metadata(self.tree.tree))
        self.content = bytes(self.image.metadata)
        for entry in file_entries(self.tree.tree):
            self.content += self.tree.content(entry, 0, entry.size) + bytes(-entry.size % BLOCK)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.socket, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
        self.socket.settimeout(WAIT)
        self.server = ImageServer(
            theirs.detach(), self.image, threads=8, max_read=MAX_READ, max_background=32, direct=True
        )
        self.server.start()
        self.unique = 0

    def send(self, operation: int, body: bytes = b"") -> int:
        self.unique += 2
        header = struct.pack("<IIQQIIIHH", 40 + len(body), operation, self.unique, 1, 0, 0, 0, 0, 0)
        self.socket.send(header + body)
        return self.unique

    def receive(self) -> tuple[int, int, bytes]:
        packet = self.socket.recv(4 * 1024 * 1024)
        length, error, unique = struct.unpack_from("<IiQ", packet)
        assert length == len(packet)
        return unique, -error, packet[16:]

    def ask(self, operation: int, body: bytes = b"") -> tuple[int, bytes]:
        unique = self.send(operation, body)
        answered, error, answer = self.receive()
        assert answered == unique
        return error, answer

    def read(self, offset: int, size: int) -> tuple[int, bytes]:
        return self.ask(READ, read_body(offset, size))

    def close(self) -> None:
        self.socket.close()
        assert self.server.ended.wait(WAIT)


def read_body(offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_init_takes_what_is_wanted_of_what_the_kernel_can(kernel: Kernel) -> None:
    everything = struct.pack("<IIIII", 7, 45, 128 * 1024, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(44)
    error, answer = kernel.ask(INIT, everything)
    assert (error, len(answer)) == (0, 64)
    major, minor, _, flags, background, _, _, _, pages, _, more = struct.unpack_from("<IIIIHHIIHHI", answer)
    assert (major, minor, background, pages) == (7, 45, 32, MAX_READ // 4096)
    # Reads and direct reads that do not wait for each other, large ones, and RESEND; nothing else.
    assert flags == 1 << 0 | 1 << 15 | 1 << 22 | 1 << 30
    assert more == 1 << (39 - 32)


def test_init_of_an_older_kernel(kernel: Kernel) -> None:
    error, answer = kernel.ask(INIT, struct.pack("<IIII", 7, 31, 65536, 1 << 0 | 1 << 22))
    assert error == 0
    _, minor, readahead, flags = struct.unpack_from("<IIII", answer)
    assert (minor, readahead, flags) == (31, 65536, 1 << 0 | 1 << 22)


def test_init_of_another_protocol_is_refused(kernel: Kernel) -> None:
    assert kernel.ask(INIT, struct.pack("<IIII", 8, 0, 0, 0))[0] == errno.EPROTO


def test_the_file_is_a_regular_file_of_the_images_size(kernel: Kernel) -> None:
    error, answer = kernel.ask(GETATTR, bytes(16))
    assert (error, len(answer)) == (0, 104)
    valid, _, _, ino, size = struct.unpack_from("<QIIQQ", answer)
    assert valid > 10**9
    assert (ino, size) == (1, kernel.image.size)
    assert stat.S_ISREG(struct.unpack_from("<I", answer, 16 + 60)[0])


def test_open_keeps_the_page_cache(kernel: Kernel) -> None:
    error, answer = kernel.ask(OPEN, bytes(8))
    assert error == 0
    _, flags, _ = struct.unpack("<QII", answer)
    assert flags == 0b11


@pytest.mark.parametrize("operation", [RELEASE, FLUSH, DESTROY])
def test_what_needs_no_answer_is_fine(kernel: Kernel, operation: int) -> None:
    assert kernel.ask(operation, bytes(24)) == (0, b"")


def test_statfs(kernel: Kernel) -> None:
    error, answer = kernel.ask(STATFS)
    assert (error, len(answer)) == (0, 80)


@pytest.mark.parametrize("operation", [LOOKUP, WRITE, GETXATTR, IOCTL, 77, 4096, 2**32 - 1])
def test_what_is_not_known_is_refused(kernel: Kernel, operation: int) -> None:
    assert kernel.ask(operation, bytes(64)) == (errno.ENOSYS, b"")


def test_forgetting_and_interrupting_are_not_answered(kernel: Kernel) -> None:
    kernel.send(FORGET, bytes(8))
    kernel.send(INTERRUPT, bytes(8))
    assert kernel.ask(RELEASE, bytes(24)) == (0, b"")


@given(st.integers(0, 3_100_000), st.integers(1, MAX_READ))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_are_the_image(kernel: Kernel, offset: int, size: int) -> None:
    assert kernel.read(offset, size) == (0, kernel.content[offset : offset + size])


@pytest.mark.parametrize("failure", [LayerError("wrong digest"), RuntimeError("a mistake"), SystemExit(1)])
def test_failing_read_is_eio(kernel: Kernel, failure: BaseException) -> None:
    kernel.tree.fail = failure  # type: ignore[assignment]
    end = len(kernel.content)
    assert kernel.read(end - 8192, 8192) == (errno.EIO, b"")
    assert kernel.read(0, 4096) == (0, kernel.content[:4096])
    kernel.tree.fail = None
    assert kernel.read(end - 8192, 8192) == (0, kernel.content[end - 8192 :])


def test_reads_do_not_wait_for_each_other(kernel: Kernel) -> None:
    kernel.tree.gate.clear()
    data = len(kernel.image.metadata)
    held = {kernel.send(READ, read_body(data + 4096 * number, 4096)): number for number in range(7)}
    assert kernel.tree.waiting.wait(WAIT)
    # Metadata are there for everybody, though seven readers wait.
    assert kernel.read(4096 if data > 4096 else 0, 4096)[0] == 0
    kernel.tree.gate.set()
    for _ in range(len(held)):
        unique, error, answer = kernel.receive()
        start = data + 4096 * held.pop(unique)
        assert (error, answer) == (0, kernel.content[start : start + 4096])
    assert not held


def test_fail_answers_those_who_wait(kernel: Kernel) -> None:
    kernel.tree.gate.clear()
    unique = kernel.send(READ, read_body(len(kernel.image.metadata), 4096))
    assert kernel.tree.waiting.wait(WAIT)
    kernel.server.fail()
    assert kernel.receive() == (unique, errno.EIO, b"")
    assert kernel.read(0, 4096) == (errno.EIO, b"")
    kernel.tree.gate.set()


def test_a_server_that_left_answers_nothing(kernel: Kernel) -> None:
    kernel.tree.gate.clear()
    kernel.send(READ, read_body(len(kernel.image.metadata), 4096))
    assert kernel.tree.waiting.wait(WAIT)
    kernel.server.leave()
    kernel.tree.fail = LayerError("closed meanwhile")
    kernel.tree.gate.set()
    kernel.send(READ, read_body(0, 4096))
    kernel.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        kernel.socket.recv(1)
    kernel.server.ended.set()


def test_a_server_that_has_ended_writes_to_no_other_file() -> None:
    """The number of its descriptor may be another file's by then."""
    kernel = Kernel()
    number = max(map(int, os.listdir("/proc/self/fd")))
    kernel.close()
    reading, writing = os.pipe()
    others = [os.dup(writing) for _ in range(number)]
    for write in (kernel.server.resend, lambda: kernel.server.store_metadata(4096)):
        with pytest.raises(OSError) as raised:
            write()
        assert raised.value.errno == errno.ENODEV
    kernel.server.fail()
    for descriptor in (*others, writing):
        os.close(descriptor)
    assert os.read(reading, 4096) == b""
    os.close(reading)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_requests_get_no_wrong_bytes(kernel: Kernel, data: st.DataObject) -> None:
    offset, size = data.draw(st.integers(0, 3_100_000)), data.draw(st.integers(1, 200_000))
    packet = bytearray(struct.pack("<IIQQIIIHH", 80, READ, 2, 1, 0, 0, 0, 0, 0) + read_body(offset, size))
    for _ in range(data.draw(st.integers(1, 3))):
        packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    del packet[data.draw(st.integers(1, len(packet))) :]
    kernel.socket.send(packet)
    # Whatever came of it, the server goes on; so its answer, if there is one, comes before that to the next.
    kernel.unique = 2**40
    unique = kernel.send(RELEASE)
    answers = [kernel.receive()]
    if answers[0][0] != unique or (len(packet) >= 80 and packet[4:8] == READ.to_bytes(4, "little")):
        answers.append(kernel.receive())
    for answered, error, answer in answers:
        if answered != unique and answer and not error and packet[4:8] == READ.to_bytes(4, "little"):
            start, length = struct.unpack_from("<QI", packet, 48)
            assert answer == kernel.content[start : start + length]
