"""What modules import, by their source and by their bytecode; and files that are neither."""

from __future__ import annotations

import base64
import dis
import importlib.util
import marshal
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer_prefetch_entrypoint import bytecode, extensions, imports
from lazylayer_prefetch_entrypoint.budget import Budget
from lazylayer_prefetch_entrypoint.elf import read_constants
from lazylayer_prefetch_entrypoint.extensions import is_extension
from lazylayer_prefetch_entrypoint.imports import dotted_names

from .compiled_modules import COMPILED, SOURCE

IN_SAMPLE = [b"os", b"sys", b".a", b"..b.c", b"..b.d", b"f.g", b"h.i", b"j"]
NUMPY = Path("/usr/lib/python3/dist-packages/numpy")
STANDARD_LIBRARY = Path(os.__file__).parent


def names_in_source(source: bytes) -> list[bytes]:
    return imports.names_in_source(source, Budget())


def names_in_bytecode(data: bytes) -> list[bytes]:
    return bytecode.names_in_bytecode(data, Budget())


def names_in_extension(constants: bytes) -> list[bytes]:
    return extensions.names_in_extension(constants, Budget())


def compiled(source: str | bytes) -> tuple[CodeType, bytes]:
    code = compile(source, "m.py", "exec", dont_inherit=True)
    return code, importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def sample(version: str) -> bytes:
    return zlib.decompress(base64.b85decode(COMPILED[version]))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (b"import a", [b"a"]),
        (b"import a.b as c, d", [b"a.b", b"d"]),
        (b"from a import b as c, d  # e, f", [b"a.b", b"a.d"]),
        (b"from . import (\n    a,  # one, two\n    b as c,\n)\nimport d", [b".a", b".b", b"d"]),
        (b"from ...a.b import c", [b"...a.b.c"]),
        (b"from a import *", [b"a"]),
        (b"from a import b, \\\n    c\r\nimport d, \\\r\n  e", [b"a.b", b"a.c", b"d", b"e"]),
        (b"try:\n\timport a\nexcept ImportError:\n\timport b", [b"a", b"b"]),
        (b"def f():\n    import a\n    if b:\n        import c\nimport d", [b"d"]),
        (b"class A:\n    import a\n    async def f(self):\n        import b\n    import c", [b"a", b"c"]),
        (b"if TYPE_CHECKING:\n    import a\nelse:\n    import b", [b"b"]),
        (b"if typing.TYPE_CHECKING:\n    import a\nimport b", [b"b"]),
        (b"if __name__ == '__main__':\n    import a", []),
        (b"important = 1\nfromage = 2\n# import a\nx = 'import b'", []),
        (b"", []),
    ],
)
def test_statements_of_all_kinds_are_understood(source: bytes, names: list[bytes]) -> None:
    assert names_in_source(source) == names


@pytest.mark.parametrize("version", COMPILED)
def test_bytecode_of_all_versions_says_the_same(version: str) -> None:
    assert names_in_source(SOURCE.encode()) == IN_SAMPLE
    assert names_in_bytecode(sample(version)) == IN_SAMPLE


def test_the_standard_library_is_understood_as_python_does_itself() -> None:
    """The oracle is `dis`, and for the source what was compiled of it."""
    differing = modules = 0
    for path in STANDARD_LIBRARY.glob("*.py"):
        source = path.read_bytes()
        code, data = compiled(source)
        expected = list(imported(code))
        assert names_in_bytecode(data) == expected, path
        modules += 1
        differing += set(names_in_source(source)) != set(expected)
    assert modules > 50
    assert differing < modules / 10, "texts that look like statements, and rare ways to write them"


def imported(code: CodeType) -> Iterator[bytes]:
    loaded: list[object] = []
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        if instruction.opname.startswith("LOAD_CONST") and value == "__main__":
            return
        if instruction.opname == "IMPORT_NAME":
            level, members = loaded[-2:]
            assert isinstance(level, int)
            module = "." * level + value
            listed = [each.encode() for each in members] if isinstance(members, tuple) else []
            yield from dotted_names(module.encode(), listed) if listed else [module.encode()]
        if instruction.opname != "EXTENDED_ARG":
            loaded.append(value)


def test_arguments_that_do_not_fit_a_byte_are_read_whole() -> None:
    lines = [f"x = 'constant {number}', {number}.5" for number in range(300)]
    lines += [f"name_{number}.attribute = 1" for number in range(300)]
    lines += ["from .package import one, two", "if __name__ == '__main__':", "    import never"]
    assert names_in_bytecode(compiled("\n".join(lines))[1]) == [b".package.one", b".package.two"]


def test_a_version_that_is_not_known_says_nothing() -> None:
    assert names_in_bytecode((4000).to_bytes(2, "little") + compiled("import a")[1][2:]) == []
    assert names_in_bytecode(b"") == names_in_bytecode(compiled("import a")[1][:16]) == []


@given(data=st.data(), version=st.sampled_from(sorted(COMPILED)))
@settings(max_examples=500, deadline=None)
def test_damaged_bytecode_is_no_exception(data: st.DataObject, version: str) -> None:
    body = bytearray(sample(version))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(16, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    names_in_bytecode(bytes(body[:cut]))
    names_in_bytecode(bytes(body))


def test_bytecode_made_to_cost_is_read_quickly() -> None:
    """References make one list of names the members of a thousand imports; lists in lists have no bottom."""
    _, good = compiled(
        "from m import " + ", ".join(f"n{number}" for number in range(5000)) + "\n" + "import x\n" * 5000
    )
    assert len(names_in_bytecode(good)) <= 4000
    header = compiled("")[1][:16]
    deep = header + b"\xe3" + bytes(20) + b"s\x00\x00\x00\x00" + b"\x29\x01" * 100_000
    wide = header + b"\xe3" + bytes(20) + b"s\x00\x00\x00\x00" + b"(\xff\xff\xff\x7f"
    assert names_in_bytecode(deep) == names_in_bytecode(wide) == []


@given(source=st.binary(max_size=300) | st.text().map(str.encode))
@settings(max_examples=500, deadline=None)
def test_no_source_is_an_exception(source: bytes) -> None:
    names_in_source(source)
    names_in_source(b"from a import (" + source)


def test_source_made_to_cost_is_read_quickly() -> None:
    assert names_in_source(b"from a import (\n" * 60_000) == []
    assert names_in_source(b"import a, \\\n" * 60_000)[:1] == [b"a"]


def test_extension_modules_name_modules_among_their_constants() -> None:
    texts = [b"plain", b"datetime.datetime_CAPI", b"a.b", b"", b"9.5", b"no name.at", b"a.b", b"x" * 200, b"end.of"]
    constants = b"\0".join(texts) + b"\0"
    dotted = [b"datetime.datetime_CAPI", b"a.b", b"end.of"]
    assert names_in_extension(constants) == dotted
    assert names_in_extension(constants + b"__pyx_capi__\0") == [b"plain", *dotted, b"__pyx_capi__"]
    assert names_in_extension(b"") == names_in_extension(b"a.b") == []


def test_extension_modules_are_known_by_their_names() -> None:
    for name in (b"m.cpython-311-x86_64-linux-gnu.so", b"m.abi3.so"):
        assert is_extension(b"/usr/lib/" + name)
    for name in (b"libm.so", b"libm.so.6", b"m.cpython-311.pyc", b"m.abi3.so.1"):
        assert not is_extension(b"/usr/lib/" + name)


def constants_of(data: bytes) -> bytes:
    return read_constants(lambda at, size: data[at : at + size], 2 << 20, Budget())


def test_what_cython_made_names_what_it_imports() -> None:
    """Debian's numpy: its bit generators import `secrets`, its arrays `datetime`, and no Python code of numpy does."""
    found = {}
    for name in ("core/_multiarray_umath", "random/bit_generator"):
        paths = list(NUMPY.glob(f"{name}.cpython-*.so")) + list(NUMPY.glob(f"_{name}.cpython-*.so"))
        if not paths:
            pytest.skip("python3-numpy is not installed")
        found[name] = names_in_extension(constants_of(paths[0].read_bytes()))
    assert b"datetime.datetime_CAPI" in found["core/_multiarray_umath"]
    assert {b"secrets", b"numpy.random._common"} <= set(found["random/bit_generator"])
