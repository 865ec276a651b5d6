"""A read that makes no progress, or takes too long, is an error that says why; later reads go on."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

from lazylayer.errors import UnavailableError
from lazylayer_testing.synthetic import SyntheticLayer
from synthetic.opened import Opened

FILES = {b"%02d" % n: random.Random(n).randbytes(2500) for n in range(4)}


def test_a_read_without_progress_ends() -> None:
    opened = Opened(SyntheticLayer(FILES), stall_timeout=0.2)
    opened.source.gate.clear()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no bytes arrived for 0\.2 s \(fetch\.stall_timeout\)") as caught:
        opened.read(b"01")
    assert 0.2 <= time.monotonic() - started < 5
    assert "MemorySource" in str(caught.value), "it names the source"
    assert opened.made.digest in str(caught.value)
    assert opened.layer.state().error == str(caught.value)
    opened.source.gate.set()
    assert opened.read(b"01") == FILES[b"01"]


def test_a_read_that_drips_ends() -> None:
    opened = Opened(SyntheticLayer({b"f": random.Random(1).randbytes(100_000)}, chunk_size=100_000), read_timeout=0.5)
    opened.source.on_piece = lambda _: time.sleep(0.05)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"took longer than 0\.5 s \(fetch\.read_timeout\)"):
        opened.read(b"f")
    assert 0.5 <= time.monotonic() - started < 5


def test_the_deadline_is_that_of_a_whole_read() -> None:
    files = {b"f": random.Random(1).randbytes(20_000)}
    opened = Opened(SyntheticLayer(files, chunk_size=1000), read_timeout=0.5)
    opened.source.on_piece = lambda _: time.sleep(0.1)  # each chunk by itself is quick
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"took longer than 0\.5 s \(fetch\.read_timeout\)"):
        opened.read(b"f")
    assert time.monotonic() - started < 2
    opened.source.on_piece = lambda _: None
    assert opened.read(b"f") == files[b"f"]


def test_a_request_that_drips_for_ever_is_given_up() -> None:
    """Later reads ask anew, instead of waiting for the same one."""
    opened = Opened(SyntheticLayer({b"f": random.Random(1).randbytes(50_000)}, chunk_size=50_000), read_timeout=0.4)
    opened.source.on_piece = lambda _: time.sleep(0.05)
    with pytest.raises(UnavailableError):
        opened.read(b"f")
    opened.source.on_piece = lambda _: None
    deadline = time.monotonic() + 10
    while opened.source.asked and time.monotonic() < deadline:
        with contextlib.suppress(UnavailableError):
            assert opened.read(b"f") == opened.made.files[b"f"]
            break
    assert len(opened.source.asked) == 2


def test_bytes_of_the_request_are_progress() -> None:
    opened = Opened(SyntheticLayer({b"f": random.Random(1).randbytes(10_000)}, chunk_size=10_000), stall_timeout=0.4)
    opened.source.on_piece = lambda _: time.sleep(0.1)
    assert opened.read(b"f") == opened.made.files[b"f"]


def test_each_of_many_readers_ends_within_the_deadline() -> None:
    opened = Opened(SyntheticLayer(FILES), stall_timeout=0.5, threads=2)
    opened.source.gate.clear()
    errors: list[Exception] = []

    def read(number: int) -> None:
        try:
            opened.read(b"%02d" % (number % 4), number * 10)
        except UnavailableError as error:
            errors.append(error)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(64)]
    started = time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    assert time.monotonic() - started < 5
    assert len(errors) == 64
    opened.source.gate.set()
