"""What a Python that an image runs is told to run, where it finds modules, and which of them are fetched ahead."""

from __future__ import annotations

import importlib.util
import itertools
import marshal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer_prefetch_entrypoint import Options, PrefetchEntrypoint
from lazylayer_prefetch_entrypoint.budget import Budget
from lazylayer_prefetch_entrypoint.modules import Modules, version_of
from lazylayer_prefetch_entrypoint.python import Invocation, is_interpreter, read_invocation
from lazylayer_testing.synthetic import MemoryImage, SyntheticLayer, memory_image, until_quiet

from .elf_files import make_elf

NUMBERS = itertools.count()
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}".encode()
TAG = b"cpython-" + VERSION.replace(b".", b"")
LIBRARY = b"usr/lib/python" + VERSION
SITE = LIBRARY + b"/site-packages"
PYTHON = b"usr/bin/python" + VERSION


def padding() -> bytes:
    """What no other file has in it, and makes one large enough to be followed."""
    return b"%d" % next(NUMBERS) + b"." * 300


def source(text: str) -> bytes:
    return text.encode() + b"\n# " + padding()


def compiled(text: str) -> bytes:
    code = compile(f"{text}\npadding = {padding()!r}", "m.py", "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def module(path: bytes, text: str) -> dict[bytes, bytes]:
    """A module in source, and compiled, as `pip install` leaves it."""
    directory, _, name = path.rpartition(b"/")
    return {path + b".py": source(text), directory + b"/__pycache__/" + name + b"." + TAG + b".pyc": compiled(text)}


def elf(*libraries: bytes, constants: bytes | None = None) -> bytes:
    return make_elf(libraries, behind=padding(), constants=constants)


BASE = {
    PYTHON: elf(b"libm.so"),
    b"lib/libm.so": elf(),
    **module(LIBRARY + b"/encodings/__init__", "from . import aliases"),
    **module(LIBRARY + b"/encodings/aliases", "aliases = {}"),
    **module(LIBRARY + b"/encodings/utf_8", "import codecs"),
    **module(LIBRARY + b"/encodings/cp437", "import codecs"),
    **module(LIBRARY + b"/os", "import stat"),
    **module(LIBRARY + b"/json/__init__", "from .decoder import JSONDecoder"),
    **module(LIBRARY + b"/json/decoder", "import re\nfrom json import scanner"),
    **module(LIBRARY + b"/json/scanner", "try:\n    from _json import make_scanner\nexcept ImportError:\n    pass"),
    LIBRARY + b"/lib-dynload/_json." + TAG + b"-x86_64-linux-gnu.so": elf(b"libj.so"),
    LIBRARY + b"/lib-dynload/_json.cpython-32-x86_64-linux-gnu.so": elf(b"wrong.so"),
    b"lib/libj.so": elf(),
    **module(LIBRARY + b"/re", "def late():\n    import json"),
    **module(LIBRARY + b"/email/__init__", "import json"),
    SITE + b"/zzz.pth": b"import os\n",
}
AT_START = [
    PYTHON,
    b"lib/libm.so",
    *(LIBRARY + b"/encodings/__pycache__/%s." % name + TAG + b".pyc" for name in (b"__init__", b"aliases", b"utf_8")),
    SITE + b"/zzz.pth",
]
JSON = [
    *(LIBRARY + b"/json/__pycache__/%s." % name + TAG + b".pyc" for name in (b"__init__", b"decoder", b"scanner")),
    LIBRARY + b"/__pycache__/re." + TAG + b".pyc",
    LIBRARY + b"/lib-dynload/_json." + TAG + b"-x86_64-linux-gnu.so",
    b"lib/libj.so",
]
LINKS = {b"usr/bin/python3": b"python" + VERSION, b"usr/bin/python": b"python3"}


def image_of(
    app: Mapping[bytes, bytes],
    command: list[str],
    *,
    links: Mapping[bytes, bytes] | None = None,
    **config: object,
) -> AbstractContextManager[MemoryImage]:
    """An image of two layers, the lower a Python."""
    layers = [
        SyntheticLayer(dict(BASE), programs=[PYTHON], links=LINKS),
        SyntheticLayer(
            {b"app/.keep": b"x", **app},
            programs=[name for name in app if b"/bin/" in name or name.endswith(b"run.py")],
            links=links,
        ),
    ]
    return memory_image(*layers, config={"Cmd": command, **config}, plugins=[PrefetchEntrypoint()])


def fetched(made: AbstractContextManager[MemoryImage], files: Mapping[bytes, bytes]) -> list[bytes]:
    """What the plugin fetched of an image, without what every Python reads."""
    with made as image:
        prefetch(image)
        return here(image, files)


def here(image: MemoryImage, files: Mapping[bytes, bytes]) -> list[bytes]:
    return sorted(name for name in {**BASE, **files} if name not in AT_START and image.is_here(name))


def prefetch(image: MemoryImage) -> None:
    """Has the image's plugin prefetch it."""
    plugin = image.plugins[0]
    assert isinstance(plugin, PrefetchEntrypoint)
    plugin.lazylayer_configure(Options())
    plugin.lazylayer_prefetch_image(image.image)


# --- what it is told to run ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "invocation"),
    [
        ("", Invocation()),
        ("-", Invocation()),
        ("main.py x:y", Invocation((b"x",), b"main.py")),
        ("-u -X dev -W ignore main.py", Invocation((), b"main.py")),
        ("-Xdev -Wignore -bb --check-hash-based-pycs main.py", Invocation((), b"main.py")),
        ("-m uvicorn app.main:app --port 80", Invocation((b"uvicorn", b"uvicorn.__main__", b"app.main"))),
        ("-Imhttp.server 80", Invocation((b"http.server", b"http.server.__main__"))),
        ("-IBc import|json,re", Invocation((b"json", b"re"))),
        ("-cimport|json", Invocation((b"json",))),
        ("-c", Invocation()),
        ("-m", Invocation((b"", b".__main__"))),
        ("-V", Invocation()),
    ],
)
def test_the_words_behind_an_interpreter(words: str, invocation: Invocation) -> None:
    assert read_invocation([each.replace("|", " ").encode() for each in words.split()], Budget()) == invocation


def test_interpreters_and_modules_tell_their_version() -> None:
    assert version_of(b"/usr/bin/python3.11") == b"3.11"
    assert version_of(b"/opt/x/__pycache__/m.cpython-39.pyc") == b"3.9"
    assert version_of(b"/usr/lib/python3.13/os.py") == b"3.13"
    assert version_of(b"/app/m.py") == version_of(b"/usr/lib/python3/dist-packages/m.py") == b""
    assert is_interpreter(b"/usr/local/bin/python3.12")
    assert not is_interpreter(b"/usr/bin/python3.12-config")
    assert not is_interpreter(b"/usr/bin/python3")


# --- what is fetched -----------------------------------------------------------------------------


def test_what_every_python_reads_is_here_before_it_starts() -> None:
    with image_of({}, ["python3"]) as image:
        before = image.requests()
        prefetch(image)
        assert sorted(name for name in BASE if image.is_here(name)) == sorted(AT_START)
        assert image.requests() - before <= 4


@pytest.mark.parametrize(
    "command", [["python", "-c", "import json"], ["python3", "-m", "json"], ["/usr/bin/python", "-mjson"]]
)
def test_modules_come_with_all_that_they_import(command: list[str]) -> None:
    assert fetched(image_of({}, command), {}) == sorted(JSON)


def test_a_script_comes_with_what_is_beside_it() -> None:
    app = {
        b"app/main.py": source("import json, helper\nfrom tools.one import x"),
        b"app/helper.py": source("from tools import two"),
        b"app/tools/__init__.py": source(""),
        b"app/tools/one.py": source("from .two import y\nfrom ..app import z\nfrom . import three"),
        b"app/tools/two.py": source("import nowhere"),
        b"app/tools/three.py": source(""),
        b"app/tools/unused.py": source(""),
    }
    expected = sorted([*JSON, *(name for name in app if b"unused" not in name)])
    assert fetched(image_of(app, ["python", "main.py"], WorkingDir="/app"), app) == expected
    assert fetched(image_of(app, ["python", "/app/main.py"]), app) == expected
    run = {**app, b"app/run.py": b"#!/usr/bin/env python3\n" + source("import main")}
    assert fetched(image_of(run, ["/app/run.py"]), run) == sorted([*expected, b"app/run.py"])


def test_a_server_comes_with_its_application() -> None:
    """As gunicorn is started: a script without a suffix, whose first line names an interpreter of an environment."""
    home = b"opt/env/lib/python" + VERSION + b"/site-packages"
    app = {
        b"opt/env/pyvenv.cfg": b"home = /usr/bin\n",
        b"opt/env/bin/server": b"#!/opt/env/bin/python\n" + source("from server.main import run"),
        **module(home + b"/server/__init__", ""),
        **module(home + b"/server/main", "import json"),
        b"app/shop/__init__.py": source(""),
        b"app/shop/web.py": source("import server.extra"),
        **module(home + b"/server/extra", ""),
    }
    links = {b"opt/env/bin/python": b"/usr/bin/python3"}
    expected = [name for name in app if not (name.startswith(home) and name.endswith(b".py")) and b"cfg" not in name]
    made = image_of(app, ["/opt/env/bin/server", "shop.web:application"], links=links, WorkingDir="/app")
    assert fetched(made, app) == sorted([*JSON, *expected])


def test_a_shell_that_starts_a_python_is_looked_through() -> None:
    base = {**BASE, b"usr/bin/sh": elf()}
    layer = SyntheticLayer(base, programs=[PYTHON, b"usr/bin/sh"], links=LINKS)
    with memory_image(
        layer, config={"Cmd": ["sh", "-c", "exec python3 -m json && echo done"]}, plugins=[PrefetchEntrypoint()]
    ) as image:
        prefetch(image)
        assert here(image, base) == sorted([*JSON, b"usr/bin/sh"])


def test_extension_modules_come_with_what_they_import() -> None:
    app = {
        **module(SITE + b"/fast/__init__", "from . import _fast"),
        SITE + b"/fast/_fast.abi3.so": elf(constants=b"__pyx\0json\0nowhere\0fast.helper.name\0"),
        **module(SITE + b"/fast/helper", ""),
    }
    expected = [name for name in app if not name.endswith(b".py")]
    assert fetched(image_of(app, ["python", "-m", "fast"]), app) == sorted([*JSON, *expected])


def test_the_python_path_of_the_image_comes_first() -> None:
    app = {b"extra/json.py": source("import re"), b"extra/deep/m.py": source("")}
    made = image_of(app, ["python", "-c", "import json, deep.m"], Env=["PYTHONPATH=relative:/extra"])
    re_compiled = LIBRARY + b"/__pycache__/re." + TAG + b".pyc"
    assert fetched(made, app) == sorted([*app, re_compiled]), "deep is a package without __init__"


def test_modules_that_a_container_reads_unforeseen_are_followed() -> None:
    app = {**module(SITE + b"/web/__init__", "from . import views"), **module(SITE + b"/web/views", "import json")}
    views, first = (SITE + b"/web/__pycache__/%s." % name + TAG + b".pyc" for name in (b"views", b"__init__"))
    with image_of(app, []) as image:
        prefetch(image)
        image.read(first, 0, 10)
        until_quiet()
        assert here(image, app) == sorted([*JSON, views, first])
        before = image.requests()
        image.read(JSON[2])
        assert image.requests() == before


def test_an_interpreter_that_is_started_unforeseen_is_followed() -> None:
    with image_of({b"app/main.py": source("import json")}, []) as image:
        prefetch(image)
        image.read(PYTHON, 0, 10)
        until_quiet()
        assert sorted(name for name in BASE if image.is_here(name)) == sorted(AT_START)
        image.read(b"app/main.py", 0, 10)
        until_quiet()
        assert here(image, {}) == sorted(JSON), "it is known by now which Python that is"


def test_modules_of_a_python_that_is_not_known_are_found_in_source() -> None:
    app = {**module(b"srv/a", "import b"), **module(b"srv/b", "import c"), **module(b"srv/c", "")}
    with image_of(app, []) as image:
        prefetch(image)
        image.read(b"srv/a.py", 0, 10)
        until_quiet()
        assert here(image, app) == [b"srv/a.py", b"srv/b.py", b"srv/c.py"]


def test_whiteouts_and_upper_layers_count() -> None:
    lower = SyntheticLayer({**BASE, LIBRARY + b"/gone.py": source("import email")}, programs=[PYTHON], links=LINKS)
    upper = SyntheticLayer(
        {
            LIBRARY + b"/re.py": source("import email"),
            LIBRARY + b"/.wh.gone.py": b"",
            LIBRARY + b"/json/.wh.scanner.py": b"",
        }
    )
    with memory_image(lower, upper, config={"Cmd": ["python", "-c", "import gone, json.scanner, re"]}) as image:
        names = [
            each.path
            for each in Modules(image.image, VERSION, [b"/" + LIBRARY], Budget()).named(
                [b"gone", b"json.scanner"], b"/"
            )
        ]
        assert names == [b"/" + JSON[0]]
        assert image.image.names(b"/" + LIBRARY + b"/json") == [b"__init__.py", b"__pycache__", b"decoder.py"]


def test_modules_that_import_each_other_come_once_and_deep_chains_end() -> None:
    app = {b"app/m%d.py" % number: source(f"import m{number + 1}, m0") for number in range(60)}
    app[b"app/main.py"] = source("import m0")
    found = fetched(image_of(app, ["python", "/app/main.py"]), app)
    assert 10 < len(found) < 20


def test_a_package_at_the_root_of_an_image_is_one_like_others() -> None:
    app = {b"__init__.py": source(""), b"main.py": source("from . import other\nimport json"), b"other.py": source("")}
    expected = [b"main.py", b"other.py"]
    for command in (["python", "/main.py"], ["python", "-m", "main"]):
        assert fetched(image_of(app, command), app) == sorted([*JSON, *expected])


WORDS = st.sampled_from(
    ["python", "python3", "-", "-c", "-m", "-mjson", "-W", "-IBc", "import json", "json", "/main.py", "a:b", "", ".."]
)


@given(
    words=st.lists(WORDS | st.text(max_size=4), max_size=6), directory=st.sampled_from(["", "/", "/app", "app", ".."])
)
@settings(max_examples=100, deadline=None)
def test_no_command_line_is_an_exception(words: list[str], directory: str) -> None:
    app = {b"main.py": source("import json"), b"app/a.py": source("")}
    with image_of(app, ["python3", *words], WorkingDir=directory, Env=[f"PYTHONPATH={directory}:/:"]) as image:
        prefetch(image)
        assert image.is_here(PYTHON)
