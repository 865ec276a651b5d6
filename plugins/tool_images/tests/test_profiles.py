from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.errors import BuildError
from lazylayer_tool_images.profiles import ProfileEntry, compile_globs, read_profile, write_profile


def matches(glob: bytes, path: bytes) -> bool:
    (pattern,) = compile_globs([glob])
    return pattern.fullmatch(path) is not None


@pytest.mark.parametrize(
    ("glob", "path", "wanted"),
    [
        (b"bin/sh", b"bin/sh", True),
        (b"/bin/sh", b"bin/sh", True),
        (b"bin/sh", b"usr/bin/sh", False),
        (b"bin/*", b"bin/sh", True),
        (b"bin/*", b"bin/a/b", False),
        (b"bin/s?", b"bin/sh", True),
        (b"bin?sh", b"bin/sh", False),
        (b"**/*.py", b"a/b/c.py", True),
        (b"**/*.py", b"c.py", True),
        (b"usr/**", b"usr/lib/x", True),
        (b"usr/**", b"usr", False),
        (b"usr/**/x", b"usr/x", True),
        (b"usr/**/x", b"usr/a/b/x", True),
        (b"**", b"any/thing", True),
        (b"[ab].so", b"a.so", True),
        (b"[!ab].so", b"a.so", False),
        (b"[!ab].so", b"c.so", True),
        (b"x[!a]y", b"x/y", False),
        (b"[a-c]", b"b", True),
        (b"[]]", b"]", True),
        (b"[", b"[", True),
        (b"a.b+c(d)$", b"a.b+c(d)$", True),
        (b"a.b", b"axb", False),
        (b"caf\xe9*", b"caf\xe9\xff", True),
        (b"*", b"with\nnewline", True),
    ],
)
def test_glob_matches_whole_paths(glob: bytes, path: bytes, wanted: bool) -> None:
    assert matches(glob, path) is wanted


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_glob_is_understood_or_refused(glob: bytes, path: bytes) -> None:
    try:
        patterns = compile_globs([glob])
    except BuildError:
        return
    assert all(isinstance(pattern, re.Pattern) for pattern in patterns)
    patterns[0].fullmatch(path)


@given(st.lists(st.builds(ProfileEntry, st.binary(min_size=1, max_size=9), st.one_of(st.none(), st.integers(0, 9)))))
def test_profile_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, entries: list[ProfileEntry]
) -> None:
    clean = [entry for entry in entries if not set(entry.path) & set(b"/.\0")]
    path = tmp_path_factory.getbasetemp() / "profile"
    write_profile(path, clean)
    assert read_profile(path) == list(dict.fromkeys(clean))


def test_record_of_the_go_tool_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_text(
        '{"path":"/usr/bin/python3","manifestDigest":"sha256:abc","layerIndex":1}\n'
        "\n"
        '{"path":"usr/lib/x.so","manifestDigest":"sha256:abc","layerIndex":0}\n'
        '{"path":"usr/bin/python3","manifestDigest":"sha256:abc","layerIndex":1}\n'
    )
    assert read_profile(path) == [ProfileEntry(b"usr/bin/python3", 1), ProfileEntry(b"usr/lib/x.so", 0)]


NO_RECORDS = ["x", "[]", "5", "{}", '{"path": 5}', '{"path": "a", "layerIndex": "1"}', "[" * 100_000]


@pytest.mark.parametrize("line", NO_RECORDS)
def test_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "record"
    path.write_text('{"path": "a"}\n' + line + "\n")
    with pytest.raises(BuildError, match="line 2"):
        read_profile(path)
