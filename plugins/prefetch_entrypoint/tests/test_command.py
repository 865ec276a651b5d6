"""Which files the command of an image config leads to; and configs that are anything but one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazylayer_prefetch_entrypoint.command import Command, environment_of
from lazylayer_testing.synthetic import MemoryImage, SyntheticLayer, memory_image

PROGRAMS = [b"bin/sh", b"usr/bin/env", b"usr/bin/python3", b"usr/local/bin/tool", b"app/run", b"usr/bin/foo"]
SCRIPTS = {
    b"app/plain.sh": b"#!/bin/sh\nexec foo",
    b"app/spaced": b"#!  /bin/sh -e \n",
    b"app/env": b"#!/usr/bin/env python3\nprint()",
    b"app/split": b"#!/usr/bin/env -S python3 -u -X dev\n",
    b"app/assigned": b"#!/usr/bin/env -S A=b python3\n",
    b"app/unknown": b"#!/usr/bin/unknown\n",
    b"app/empty": b"#!\n",
    b"app/endless": b"#!" + b"x" * 5000,
    b"app/text": b"hello",
}
DATA = {b"app/main.py": b"print()", b"etc/app.conf": b"a = b", b"etc/big": bytes(5000)}


@pytest.fixture(scope="module")
def image() -> Iterator[MemoryImage]:
    programs = {name: b"\x7fELF " + name for name in PROGRAMS}
    layer = SyntheticLayer(
        {**programs, **SCRIPTS, **DATA},
        links={b"usr/bin/python": b"python3", b"usr/bin/loop": b"loop", b"usr/bin/dir": b"/etc"},
        programs=[*PROGRAMS, *SCRIPTS],
    )
    with memory_image(layer) as image:
        yield image


def files(image: MemoryImage, **config: object) -> list[bytes]:
    return [each.file.path for each in Command(config).files(image.image)]


def test_entry_point_and_command_are_one_line(image: MemoryImage) -> None:
    assert files(image, Entrypoint=["tool"], Cmd=["/app/run", "--fast"]) == [b"/usr/local/bin/tool", b"/app/run"]
    assert files(image, Cmd=["python", "main.py"], WorkingDir="/app") == [b"/usr/bin/python3", b"/app/main.py"]
    assert files(image, Entrypoint=None, Cmd=None) == files(image) == files(image, Entrypoint=[]) == []


def test_the_path_of_the_image_counts(image: MemoryImage) -> None:
    assert files(image, Cmd=["run"]) == []
    assert files(image, Cmd=["run"], Env=["A=b", "PATH=/nowhere::/app:/usr/bin"]) == [b"/app/run"]
    assert files(image, Cmd=["tool"], Env=["PATH=/usr/bin"]) == []


def test_a_command_with_a_slash_is_relative_to_the_working_directory(image: MemoryImage) -> None:
    assert files(image, Cmd=["./run"], WorkingDir="/app") == [b"/app/run"]
    assert files(image, Cmd=["bin/sh"]) == [b"/bin/sh"]
    assert files(image, Cmd=["../bin/sh", "../etc/app.conf"], WorkingDir="/app/") == [b"/bin/sh", b"/etc/app.conf"]


def test_what_cannot_be_executed_is_no_program_but_may_be_an_argument(image: MemoryImage) -> None:
    assert files(image, Cmd=["/app/main.py", "/app/main.py", "/etc", "dir", "loop"]) == [b"/app/main.py"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sh", "-c", "exec foo bar"], [b"/usr/bin/foo"]),
        (["/bin/sh", "-ec", "A=1 B='2 3' exec /app/run --it's"], [b"/app/run"]),
        (["sh", "-c", "foo; tool"], [b"/usr/bin/foo"]),
        (["sh", "-c", "foo&&tool 'unbalanced"], [b"/usr/bin/foo"]),
        (["sh", "-x", "-c", "# a comment\nfoo"], [b"/usr/bin/foo"]),
        (["sh", "-c", ""], []),
        (["sh", "-c", "'"], []),
        (["sh", "-c"], []),
        (["tool", "-c", "foo bar"], []),
    ],
)
def test_the_first_command_that_a_shell_is_told(image: MemoryImage, words: list[str], found: list[bytes]) -> None:
    first = files(image, Cmd=[words[0]])
    assert files(image, Cmd=words) == [*first, *found]


@pytest.mark.parametrize(
    ("script", "programs"),
    [
        (b"app/plain.sh", [b"/bin/sh"]),
        (b"app/spaced", [b"/bin/sh"]),
        (b"app/env", [b"/usr/bin/env", b"/usr/bin/python3"]),
        (b"app/split", [b"/usr/bin/env", b"/usr/bin/python3"]),
        (b"app/assigned", [b"/usr/bin/env", b"/usr/bin/python3"]),
        (b"app/unknown", []),
        (b"app/empty", []),
        (b"app/endless", []),
        (b"app/text", []),
        (b"etc/big", []),
    ],
)
def test_the_interpreter_of_a_script(image: MemoryImage, script: bytes, programs: list[bytes]) -> None:
    found = image.image.find(script)
    assert found is not None
    assert [each.file.path for each in Command({}).interpreters(image.image, found)] == programs


def test_variables_are_split_at_the_first_sign() -> None:
    assert environment_of({"Env": ["A=b=c", "EMPTY=", "NOTHING", 7]}) == {b"A": b"b=c", b"EMPTY": b"", b"NOTHING": b""}


def test_a_text_is_no_list_of_letters(image: MemoryImage) -> None:
    assert files(image, Cmd="sh", WorkingDir="/bin") == []


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None), max_size=8),
        st.sampled_from(
            ["sh", "-c", "exec", "/bin/sh", "/", "..", "PATH=", "PATH=:/bin:", "\0", "\ud800", "'", "tool"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)
KEYS = st.sampled_from(["Entrypoint", "Cmd", "Env", "WorkingDir"])


@given(config=st.dictionaries(KEYS, ANYTHING))
@settings(max_examples=500, deadline=None)
@example(config={"Cmd": ["sh", "-c", "\ud800"], "WorkingDir": "\ud800", "Env": ["PATH=\ud800"]})
def test_no_config_is_an_exception(image: MemoryImage, config: dict[str, Any]) -> None:
    for found in Command(config).files(image.image):
        assert found.file.entry.is_file
    environment_of(config)


@given(line=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_script_is_an_exception(line: bytes) -> None:
    layer = SyntheticLayer({b"script": b"#!" + line, b"bin/sh": b"x"}, programs=[b"script", b"bin/sh"])
    with memory_image(layer) as made:
        found = made.image.find(b"script")
        assert found is not None
        list(Command({}).interpreters(made.image, found))


def test_a_config_of_megabytes_is_looked_at_quickly(image: MemoryImage) -> None:
    long = "a" * 4_000_000
    words = ["sh", "-c", long, *["x"] * 100_000]
    assert files(image, Cmd=words, Env=["PATH=" + "/a:" * 1_000_000]) == [b"/bin/sh"], "no process has such a PATH"
    assert files(image, Cmd=words, Env=["PATH=" + "/a:" * 5000]) == []
    assert files(image, Cmd=[long, "/bin/sh"] * 10) == [b"/bin/sh"] * 10
