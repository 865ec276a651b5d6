"""Images whose program is fetched ahead, and programs that are followed when they are loaded."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import pytest

from lazylayer import hookimpl
from lazylayer.api.tree import Entry
from lazylayer.errors import UnavailableError
from lazylayer_prefetch_entrypoint import Options, PrefetchEntrypoint
from lazylayer_prefetch_entrypoint.following import ProgramLocality, is_program
from lazylayer_testing.synthetic import MemoryImage, SyntheticLayer, memory_image, until_quiet

from .elf_files import make_elf, make_loader_cache

GLIBC = b"lib64/ld-linux.so.2"
NUMBERS = itertools.count()


def filler(seed: int, size: int = 2000) -> bytes:
    return random.Random(seed).randbytes(size)


def elf(*libraries: bytes, rpath: bytes | None = None, runpath: bytes | None = None, program: bool = False) -> bytes:
    """A file of some chunks that needs these; no other has its content."""
    behind = filler(next(NUMBERS), 3000)
    return make_elf(libraries, loader=b"/" + GLIBC if program else b"", rpath=rpath, runpath=runpath, behind=behind)


BASE = {
    GLIBC: elf(),
    b"lib64/libc.so.6": elf(b"ld-linux.so.2"),
    b"usr/lib64/libz.so.1": elf(b"libc.so.6"),
    b"etc/ld.so.cache": make_loader_cache([(b"libdeep.so.1", b"/opt/deep/libdeep.so.1")]),
    b"etc/passwd": b"root:x:0:0::/:/bin/sh\n",
    b"opt/deep/libdeep.so.1": elf(b"libz.so.1"),
    b"usr/share/data": filler(1),
}
APP = {
    b"app/server": elf(b"libdeep.so.1", b"libc.so.6", program=True),
    b"app/start.sh": b"#!/bin/sh\nexec /app/server\n",
    b"app/config": filler(2),
    b"app/unused": filler(3),
    b"bin/sh": elf(b"libc.so.6", program=True),
}
SERVER = {"Entrypoint": ["/app/server", "/app/config"]}
OF_SERVER = [GLIBC, b"lib64/libc.so.6", b"usr/lib64/libz.so.1", b"opt/deep/libdeep.so.1", b"app/server", b"app/config"]


def image_of(
    app: Mapping[bytes, bytes] = APP,
    config: Mapping[str, object] = SERVER,
    base: Mapping[bytes, bytes] = BASE,
    links: Mapping[bytes, bytes] | None = None,
    others: Sequence[object] = (),
) -> AbstractContextManager[MemoryImage]:
    """An image of two layers, everything in which can be executed but what lies in /etc."""
    layers = [
        SyntheticLayer(dict(files), programs=[name for name in files if name[:4] != b"etc/"], links=links)
        for files in (base, app)
    ]
    return memory_image(*layers, config=config, plugins=[PrefetchEntrypoint(), *others])


def prefetch(image: MemoryImage, max_bytes: int = 64 << 20) -> None:
    """Has the image's plugin prefetch it, with this limit."""
    plugin = image.plugins[0]
    assert isinstance(plugin, PrefetchEntrypoint)
    plugin.lazylayer_configure(Options(max_bytes=max_bytes))
    plugin.lazylayer_prefetch_image(image.image)


def here(image: MemoryImage, names: Mapping[bytes, bytes]) -> list[bytes]:
    """Those of the files that are in the cache."""
    return sorted(name for name in names if image.is_here(name))


class Watcher:
    """Another policy, which follows programs and keeps the paths that it is told of."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    @hookimpl
    def lazylayer_layer_opened(self) -> Watcher:
        return self

    def follows(self, name: bytes, entry: Entry) -> bool:
        return is_program(name, entry)

    def missed(self, path: bytes, entry: Entry) -> None:
        self.told.append(path)


def test_the_program_and_all_that_it_is_linked_with_is_here_before_it_starts() -> None:
    with image_of() as image:
        before = image.requests()
        prefetch(image)
        assert image.requests() - before <= 4, "the program; its libraries; theirs, twice"
        assert here(image, {**BASE, **APP}) == sorted([*OF_SERVER, b"etc/ld.so.cache", b"etc/passwd"])


def test_the_directory_of_debians_loader_is_looked_into_where_no_cache_is() -> None:
    base = {
        b"lib/x86_64-linux-gnu/ld-2.so": elf(),
        b"lib/x86_64-linux-gnu/libc.so.6": elf(),
        b"usr/lib/x86_64-linux-gnu/libz.so.1": elf(b"libc.so.6"),
    }
    app = {b"p": elf(b"libz.so.1", program=True)}
    with image_of(app, {"Cmd": ["/p"]}, base, links={GLIBC: b"/lib/x86_64-linux-gnu/ld-2.so"}) as image:
        prefetch(image)
        assert here(image, base) == sorted(base)


def test_a_script_leads_to_its_interpreter() -> None:
    with image_of(config={"Cmd": ["/app/start.sh"]}) as image:
        prefetch(image)
        assert here(image, APP) == [b"app/start.sh", b"bin/sh"]


def test_an_image_without_a_command_costs_nothing() -> None:
    for config in ({}, {"Cmd": ["/none"]}):
        with image_of(config=config) as image:
            before = image.requests()
            prefetch(image)
            assert image.requests() == before


def test_the_origin_of_a_program_is_where_its_links_lead() -> None:
    app = {
        b"opt/tool/bin/tool": elf(b"libtool.so", runpath=b"$ORIGIN/../lib", program=True),
        b"opt/tool/lib/libtool.so": elf(),
        b"usr/lib/libtool.so": elf(b"wrong"),
    }
    links = {b"usr/bin/tool": b"../../opt/tool/bin/tool"}
    with image_of(app, {"Cmd": ["tool"]}, links=links) as image:
        prefetch(image)
        assert here(image, app) == [b"opt/tool/bin/tool", b"opt/tool/lib/libtool.so"]


def test_the_origin_of_a_library_is_where_it_lies() -> None:
    """As in what pip installs: libraries of their own, beside those that need them."""
    app = {
        b"venv/bin/program": elf(b"one.so", rpath=b"$ORIGIN/../lib/one", program=True),
        b"venv/lib/one/one.so": elf(b"two.so", runpath=b"${ORIGIN}/../one.libs"),
        b"venv/lib/one.libs/two.so": elf(b"three.so", runpath=b"$ORIGIN"),
        b"venv/lib/one.libs/three.so": elf(b"two.so"),
    }
    with image_of(app, {"Cmd": ["/venv/bin/program"]}) as image:
        prefetch(image)
        assert here(image, app) == sorted(app)


def test_an_rpath_counts_for_what_libraries_need_and_a_runpath_does_not() -> None:
    app = {
        b"app/one": elf(b"first.so", rpath=b"/r", program=True),
        b"app/two": elf(b"other.so", runpath=b"/u", program=True),
        b"r/first.so": elf(b"second.so"),
        b"r/second.so": elf(b"third.so", runpath=b"/nowhere"),
        b"r/third.so": elf(),
        b"u/other.so": elf(b"another.so"),
        b"u/another.so": elf(),
    }
    with image_of(app, {"Cmd": ["/app/one", "/app/two"]}) as image:
        prefetch(image)
        assert here(image, app) == [b"app/one", b"app/two", b"r/first.so", b"r/second.so", b"u/other.so"]


def test_the_library_path_of_the_image_counts() -> None:
    app = {b"app/one": elf(b"a.so", program=True), b"x/a.so": elf(), b"lib/a.so": elf(b"wrong")}
    with image_of(app, {"Cmd": ["/app/one"], "Env": ["LD_LIBRARY_PATH=/none:/x"]}) as image:
        prefetch(image)
        assert here(image, app) == [b"app/one", b"x/a.so"]


def test_libraries_that_need_each_other_come_once() -> None:
    app = {b"p": elf(b"a.so", program=True), b"lib/a.so": elf(b"b.so", b"a.so"), b"lib/b.so": elf(b"a.so")}
    with image_of(app, {"Cmd": ["/p"]}) as image:
        prefetch(image)
        assert here(image, app) == sorted(app)


def test_an_endless_chain_of_libraries_ends() -> None:
    app = {b"lib/%d.so" % number: elf(b"%d.so" % (number + 1)) for number in range(100)}
    app[b"p"] = elf(b"0.so", program=True)
    with image_of(app, {"Cmd": ["/p"]}) as image:
        prefetch(image)
        assert 10 <= len(here(image, app)) <= 20


def test_no_more_is_fetched_than_may_be() -> None:
    size = len(APP[b"app/server"])
    with image_of() as image:
        prefetch(image, size)
        assert here(image, {**BASE, **APP}) == [b"app/server", b"etc/ld.so.cache"]
    with image_of() as image:
        prefetch(image, size - 1)
        assert b"app/server" not in here(image, APP), "what is larger than that is left out"


def test_nothing_is_fetched_nor_followed_when_nothing_may_be() -> None:
    with image_of() as image:
        before = image.requests()
        prefetch(image, 0)
        assert image.requests() == before
        image.read(b"app/server", 0, 10)
        until_quiet()
        assert image.requests() == before + 1


def test_an_image_that_says_what_it_reads_is_followed_only() -> None:
    app = {**APP, b".prefetch.landmark": b"\xf0"}
    with image_of(app) as image:
        before = image.requests()
        prefetch(image)
        assert image.requests() == before
        image.read(b"bin/sh", 0, 10)
        until_quiet()
        assert here(image, BASE) == [b"etc/ld.so.cache", b"etc/passwd", GLIBC, b"lib64/libc.so.6"]


def test_a_program_that_nobody_foresaw_is_followed_to_its_libraries() -> None:
    app = {**APP, b"usr/bin/other": elf(b"extra.so", program=True), b"lib/extra.so": elf(b"libz.so.1")}
    with image_of(app) as image:
        prefetch(image)
        image.read(b"usr/bin/other", 0, 10)
        until_quiet()
        before = image.requests()
        assert len(image.read(b"lib/extra.so")) == len(app[b"lib/extra.so"])
        assert image.requests() == before


def test_programs_are_followed_where_the_prefetch_failed() -> None:
    with image_of() as image:
        for source in image.plugin.sources.values():
            source.fail = lambda _: UnavailableError("away")
        with pytest.raises(UnavailableError):
            prefetch(image)
        for source in image.plugin.sources.values():
            source.fail = lambda _: None
        image.read(b"bin/sh", 0, 10)
        until_quiet()
        assert here(image, BASE) == [b"etc/ld.so.cache", b"etc/passwd", GLIBC, b"lib64/libc.so.6"]


def test_what_is_followed_counts_too() -> None:
    with image_of(config={}) as image:
        prefetch(image, len(APP[b"bin/sh"]) + len(BASE[GLIBC]))
        image.read(b"bin/sh", 0, 10)
        until_quiet()
        assert here(image, BASE) == [b"etc/ld.so.cache", GLIBC]


def test_another_policy_that_follows_programs_is_told_as_well() -> None:
    watcher = Watcher()
    with image_of(config={}, others=[watcher]) as image:
        prefetch(image)
        image.read(b"bin/sh", 0, 10)
        until_quiet()
        assert watcher.told == [b"/bin/sh"], "what was fetched ahead is no reader's miss"
        assert GLIBC in here(image, BASE)


@pytest.mark.parametrize(
    ("name", "mode", "size", "follow"),
    [
        (b"tool", 0o100755, 300, True),
        (b"tool", 0o100755, 200, False),
        (b"libz.so.1", 0o100644, 300, True),
        (b"libz.so", 0o100644, 300, True),
        (b"libz.so", 0o100644, 200, False),
        (b"m.py", 0o100644, 1, True),
        (b"n.pyc", 0o100644, 1, True),
        (b"data.bin", 0o100644, 5000, False),
        (b"ld.so.cache", 0o100644, 5000, False),
        (b"a.sort", 0o100644, 5000, False),
    ],
)
def test_programs_libraries_and_modules_are_followed(name: bytes, mode: int, size: int, follow: bool) -> None:
    assert ProgramLocality().follows(name, Entry(mode, size=size)) is follow


def test_a_closed_layer_is_not_kept_by_what_follows_its_programs() -> None:
    with image_of() as image:
        prefetch(image)
        alive = [weakref.ref(layer) for layer in image.image.layers]
        image.read(b"bin/sh", 0, 10)
        until_quiet()
        plugin = image.plugins[0]
    del image
    gc.collect()
    assert [each() for each in alive] == [None, None]
    assert plugin


def test_readers_at_the_same_time_are_followed_without_trouble() -> None:
    names = [b"usr/bin/%d" % number for number in range(30)]
    app = {name: elf(b"%d.so" % number, b"libc.so.6", program=True) for number, name in enumerate(names)}
    app |= {b"lib/%d.so" % number: elf(b"libz.so.1") for number in range(30)}
    with image_of(app, {}) as image:
        prefetch(image)
        threads = [threading.Thread(target=image.read, args=(name, 0, 10)) for name in names]
        start: list[Callable[[], None]] = [each.start for each in threads]
        for each in start:
            each()
        for thread in threads:
            thread.join()
        until_quiet()
        libraries = {name: data for name, data in app.items() if name.startswith(b"lib/")}
        assert here(image, libraries) == sorted(libraries)
