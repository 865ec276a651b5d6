"""Files of an image that are made to cost: every parser takes work in proportion to its input, and has an end."""

from __future__ import annotations

import importlib
import pkgutil
import re
import re._parser as grammar  # type: ignore[import-not-found]
import resource
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazylayer_prefetch_entrypoint
from lazylayer_prefetch_entrypoint.budget import Budget, OverBudgetError
from lazylayer_prefetch_entrypoint.bytecode import names_in_bytecode
from lazylayer_prefetch_entrypoint.command import Command
from lazylayer_prefetch_entrypoint.elf import read_constants, read_needs
from lazylayer_prefetch_entrypoint.extensions import names_in_extension
from lazylayer_prefetch_entrypoint.imports import MAX_NAME, MAX_NAMES, names_in_source
from lazylayer_prefetch_entrypoint.linking import read_loader_cache
from lazylayer_prefetch_entrypoint.modules import Modules, version_of
from lazylayer_prefetch_entrypoint.prefetch import Prefetch
from lazylayer_prefetch_entrypoint.python import is_interpreter
from lazylayer_testing.synthetic import SyntheticLayer, memory_image

from .elf_files import make_elf
from .work import Work, work_of

Parse = Callable[[bytes, Budget], object]
SIZE = 20_000
CONSTANT = MAX_NAMES * 2 * MAX_NAME
"""Work that an input of any size may make: the names that are built."""

SOURCE_TOKENS = [
    *(b"from ", b"import ", b".", b"a", b"a.", b",", b" ", b"\t", b"(", b")", b"\\\n", b"\\\r\n", b"\n", b"\r", b"#"),
    *(b";", b"async ", b"def ", b"if ", b"typing.", b"TYPE_CHECKING", b"__name__", b"from a import (", b"\xff", b"*"),
    *(b"from . import ", b"import a, \\\n", b"from a import (\n", b"from a import b, \\\n", b"if typing.", b"_"),
]
SOURCES = {
    "dots": lambda size: b"from " + b"." * size,
    "dots on lines": lambda size: b"from .......\n" * (size // 13),
    "dots and a name": lambda size: b"from " + b"." * size + b"a",
    "spaces": lambda size: b" " * size + b"import",
    "spaces after from": lambda size: b"from" + b" " * size + b"import",
    "a long module": lambda size: b"from " + b"a." * (size // 2) + b" import a",
    "a long module and many names": lambda size: (
        (b"from " + b"a" * 500 + b" import " + b"b," * 1500 + b"\n") * (size // 3500 + 1)
    ),
    "names": lambda size: b"import " + b"a," * (size // 2),
    "goes on": lambda size: b"import a, \\\n" * (size // 12),
    "opens": lambda size: b"from a import (\n" * (size // 16),
    "opens far from the end": lambda size: b"from a import (\n" * (size // 16) + b")",
    "open and closed": lambda size: b"from a import (b)\n" * (size // 18),
    "comments in parentheses": lambda size: b"from a import (#\n" * (size // 32) + b")" * (size // 2),
    "empty lines": lambda size: b"\n" * size,
    "no line ends": lambda size: b"\r" * size,
    "conditions": lambda size: b"if" + b" " * size + b"TYPE",
    "functions": lambda size: b"async" + b" " * size,
    "deep": lambda size: b"".join(b" " * each + b"if x:\n" for each in range(int((2 * size) ** 0.5))),
}
CONSTANTS = {
    "dots": lambda size: b"\0a" + b".a" * (size // 2),
    "one word": lambda size: b"\0" + b"a" * size,
    "words": lambda size: b"__pyx\0" + b"".join(b"%x\0" % each for each in range(size // 5)),
    "ends": lambda size: b"\0" * size,
    "dots and no end": lambda size: (b"\0" + b"a." * 900) * (size // 1801) + b"!",
}


def text(data: bytes, *, kind: bytes = b"s") -> bytes:
    return kind + struct.pack("<I", len(data)) + data


def listed(objects: list[bytes], *, kind: bytes = b"(") -> bytes:
    return kind + struct.pack("<I", len(objects)) + b"".join(objects)


def module(code: bytes, constants: list[bytes], names: list[bytes]) -> bytes:
    """A file of Python 3.11 with as much of a code object as is read."""
    return (
        (3495).to_bytes(2, "little")
        + b"\r\n"
        + bytes(12)
        + b"c"
        + bytes(20)
        + text(code)
        + listed(constants)
        + listed(names)
    )


REFERRED = 0x80
IMPORT = bytes((100, 0, 100, 1, 108, 0))  # a level, the names, the module
TUPLE = bytes((ord("(") | REFERRED,))
BYTECODES = {
    "nothing, listed in every import": lambda size: module(
        IMPORT * (size // 12), [b"i" + bytes(4), listed([b"N"] * (size // 2))], [text(b"m")]
    ),
    "names, listed in every import": lambda size: module(
        IMPORT * (size // 12), [b"i" + bytes(4), listed([b"z\x01a"] * (size // 6))], [text(b"m")]
    ),
    "a long name in every import": lambda size: module(
        IMPORT * (size // 12), [b"i" + bytes(4), b"N"], [text(b"m" * (size // 2))]
    ),
    "a long name, listed": lambda size: module(
        IMPORT * (size // 12),
        [b"i" + bytes(4), listed([b"z\x01a", text(b"b" * (size // 2), kind=b"\xf3")] + [b"r" + bytes(4)] * 200)],
        [text(b"m")],
    ),
    "a list in itself": lambda size: module(
        IMPORT * (size // 12), [b"i" + bytes(4), listed([b"r" + bytes(4)] * (size // 10), kind=TUPLE)], [text(b"m")]
    ),
    "nothing": lambda size: module(b"", [b"N"] * size, []),
    "arguments of many bytes": lambda size: module(bytes((144, 1)) * (size // 2) + IMPORT, [b"N"] * 2, [text(b"m")]),
    "main": lambda size: module(bytes((100, 0)) * (size // 2), [b"N", text(b"__main__")], [text(b"m")]),
}


def needs(data: bytes, budget: Budget) -> object:
    return read_needs(lambda at, size: data[at : at + size], budget)


def constants(data: bytes, budget: Budget) -> object:
    return read_constants(lambda at, size: data[at : at + size], 1 << 20, budget)


def loader_cache(count: int, strings: bytes, string: Callable[[int], int]) -> bytes:
    at = 48 + 24 * count
    entries = [struct.pack("=iIIIQ", 1, at + string(each), at + string(each), 0, 0) for each in range(count)]
    return (
        struct.pack("=20sIIB3xI12x", b"glibc-ld.so.cache1.1", count, len(strings), 2, 0) + b"".join(entries) + strings
    )


CACHES = {
    "texts without an end": lambda size: loader_cache(size // 48, b"a" * (size // 2), lambda each: each),
    "one text for all": lambda size: loader_cache(size // 48, b"a" * (size // 2 - 1) + b"\0", lambda _: 0),
    "empty texts": lambda size: loader_cache(size // 48, bytes(size // 2), lambda each: each),
}
ELVES = {
    "libraries": lambda size: make_elf([b"l%d" % each for each in range(size // 30)]),
    "directories": lambda size: make_elf([b"l"], rpath=b"$ORIGIN:" * (size // 8)),
    "one library": lambda size: make_elf([b"l" * size] * 10, runpath=b":" * size),
}
CASES: list[tuple[Parse, dict[str, Callable[[int], bytes]]]] = [
    (names_in_source, SOURCES),
    (names_in_extension, CONSTANTS),
    (names_in_bytecode, BYTECODES),
    (read_loader_cache, CACHES),
    (needs, ELVES),
    (constants, ELVES),
]
EACH = [
    pytest.param(parse, make, id=f"{parse.__name__}: {name}")
    for parse, inputs in CASES
    for name, make in inputs.items()
]


def assert_linear(work: Work, size: int) -> None:
    assert work.lines <= 60 * size + 60 * MAX_NAMES + 1000
    assert work.touched <= 6 * size + 100_000
    assert work.paid <= 6 * size + CONSTANT


@pytest.mark.parametrize(("parse", "make"), EACH)
def test_work_grows_no_faster_than_the_file(parse: Parse, make: Callable[[int], bytes]) -> None:
    small, large = (make(size) for size in (SIZE, 4 * SIZE))
    less, more = work_of(parse, small), work_of(parse, large)
    assert_linear(more, len(large))
    for few, many in zip(less, more, strict=True):
        assert many <= 6 * few + 5000, "four times the file, and more than six times the work"


@given(parts=st.lists(st.tuples(st.sampled_from(SOURCE_TOKENS), st.integers(1, 300)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_source_takes_linear_work(parts: list[tuple[bytes, int]]) -> None:
    source = b"".join(token * count for token, count in parts)
    assert_linear(work_of(names_in_source, source), len(source))


@given(data=st.data(), kind=st.sampled_from(sorted(BYTECODES)))
@settings(max_examples=150, deadline=None)
def test_any_bytecode_takes_linear_work(data: st.DataObject, kind: str) -> None:
    body = bytearray(BYTECODES[kind](data.draw(st.integers(100, 3000))))
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(16, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert_linear(work_of(names_in_bytecode, bytes(body)), len(body))


@given(
    parts=st.lists(st.tuples(st.sampled_from([b"\0", b"a", b".", b"a.", b"\0a", b"__pyx", b"!"]), st.integers(1, 3000)))
)
@settings(max_examples=100, deadline=None)
def test_any_constants_take_linear_work_and_pieces_do_not_show(parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(token * count for token, count in parts)
    assert_linear(work_of(names_in_extension, data), len(data))
    before = b"!" * (64 * 1024 - len(data) // 2) + b"\0"
    assert names_in_extension(before + data, Budget()) == names_in_extension(b"!\0" + data, Budget())


@pytest.mark.parametrize(("parse", "make"), EACH)
def test_no_file_multiplies_in_memory(parse: Parse, make: Callable[[int], bytes]) -> None:
    data = make(250_000)
    tracemalloc.start()
    parse(data, Budget())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40 * len(data)


def patterns() -> Iterator[tuple[str, re.Pattern[bytes]]]:
    for found in pkgutil.iter_modules(lazylayer_prefetch_entrypoint.__path__, "lazylayer_prefetch_entrypoint."):
        for name, value in vars(importlib.import_module(found.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{found.name}.{name}", value


@pytest.mark.parametrize(("name", "pattern"), list(patterns()))
def test_no_pattern_backtracks_into_a_repeat(name: str, pattern: re.Pattern[bytes]) -> None:
    """Every repeat without a fixed, small count is possessive, so matching never tries a length again."""

    def repeats(parsed: Any) -> Iterator[tuple[object, int]]:
        for operator, value in parsed:
            for part in value if isinstance(value, tuple | list) else (value,):
                for each in part if isinstance(part, list) and not isinstance(part, grammar.SubPattern) else (part,):
                    if isinstance(each, grammar.SubPattern):
                        yield from repeats(each)
            if "REPEAT" in str(operator):
                yield str(operator), value[1]

    found = repeats(grammar.parse(pattern.pattern, pattern.flags))
    assert [each for each in found if each[0] != "POSSESSIVE_REPEAT" and each[1] > 1] == [], name


def test_a_hostile_module_takes_seconds_of_no_processor() -> None:
    """A mebibyte of dots took hours, and the interpreter's lock all that time; the kernel ends what takes long."""
    program = (
        "from lazylayer_prefetch_entrypoint.budget import Budget\n"
        "from lazylayer_prefetch_entrypoint.imports import names_in_source\n"
        "names_in_source(b'from ' + b'.' * (1 << 20), Budget())\n"
        "names_in_source(b'from ......\\n' * (1 << 16), Budget())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (20, 20)),
    )
    assert done.returncode not in (-signal.SIGXCPU, -signal.SIGKILL)
    assert done.returncode == 0


# --- the budget ----------------------------------------------------------------------------------


class Clock:
    """Processor time that a test makes pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_ends_the_budget() -> None:
    budget = Budget(work=10_000)
    with budget.looking():
        budget.spend(9000)
    with pytest.raises(OverBudgetError, match="units of work"), budget.looking():
        budget.spend(5000)
    with pytest.raises(OverBudgetError), budget.looking():
        pytest.fail("it is used up")


def test_time_ends_the_budget_and_waiting_costs_nothing() -> None:
    clock = Clock()
    budget = Budget(seconds=2.0, clock=clock)
    for _ in range(5):
        clock.now += 100  # between two files
        with budget.looking():
            clock.now += 0.3
            budget.spend(1)
    with pytest.raises(OverBudgetError), budget.looking():
        clock.now += 0.6
        budget.spend(10_000)


def test_threads_share_the_budget() -> None:
    budget = Budget(work=50_000)
    ended = []

    def look() -> None:
        try:
            with budget.looking():
                for _ in range(10):
                    budget.spend(4096)
        except OverBudgetError:
            ended.append(True)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 7
    assert budget.spent < 50_000 + 8 * 8192


def test_an_image_that_is_over_budget_is_fetched_as_far_as_was_looked() -> None:
    """What was found is fetched; files that containers read afterwards are not looked into any more."""
    files = {b"app/m%d.py" % each: b"import m%d\n#" % (each + 1) + b"." * 3000 for each in range(8)}
    with memory_image(SyntheticLayer(files)) as image:
        prefetch = Prefetch(image.image, 1 << 20, Budget(work=20_000))
        first = image.image.find(b"/app/m0.py")
        later = image.image.find(b"/app/m6.py")
        assert first is not None
        assert later is not None
        prefetch.follow(first)
        here = [name for name in sorted(files) if image.is_here(name)]
        assert 2 <= len(here) < 8
        assert here == sorted(files)[: len(here)]
        prefetch.follow(later)
        assert not image.is_here(b"app/m7.py")


# --- trees made to cost --------------------------------------------------------------------------


def test_directories_of_modules_are_remembered_once() -> None:
    """The names on the search path were kept for every directory that a module lay in."""
    library = {b"lib/python3.11/m%d.py" % each: b"x" for each in range(3000)}
    scattered = {b"app/d%d/m.py" % each: b"x" for each in range(300)}
    with memory_image(SyntheticLayer({**library, **scattered})) as image:
        modules = Modules(image.image, b"3.11", [b"/lib/python3.11"], Budget())
        tracemalloc.start()
        for each in range(300):
            assert list(modules.named([b"nowhere"], b"/app/d%d" % each)) == []
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 3_000_000


def test_paths_made_to_cost_have_versions_of_few_digits() -> None:
    digits = b"1" * 5000
    assert version_of(b"/usr/lib/python3." + digits) == version_of(b"/m.cpython-3" + digits + b".pyc") == b""
    assert not is_interpreter(b"/usr/bin/python3." + digits)
    assert version_of(b"/python3." * 1000 + b"x") == b""


def test_a_command_made_to_cost_is_cut() -> None:
    with memory_image(SyntheticLayer({b"bin/sh": b"x"}, programs=[b"bin/sh"])) as image:
        command = Command({"Cmd": ["sh", "-c", "a" * 16_000], "Env": ["PATH=" + "/x:" * 5000 + ":/bin"]})
        work = work_of(lambda _, budget: list(command.files(image.image)), b"")
    assert work.lines < 20_000
