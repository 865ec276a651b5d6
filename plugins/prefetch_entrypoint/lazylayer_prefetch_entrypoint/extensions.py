"""Which modules a Python extension module may import: those that it names among its constants.

C code imports by name, as in `PyCapsule_Import("datetime.datetime_CAPI")`, and what Cython makes out of
import statements keeps their names beside those of everything else. Which of them are modules only the
files tell. Source: CPython's C API, "Importing Modules" and "Capsules"; the C code that Cython 0.29 and 3 write.
"""

from __future__ import annotations

import re

__all__ = ["is_extension", "names_in_extension"]

_EXTENSION = re.compile(rb"\.(cpython-[^/]*|abi3)\.so$")
_DOTTED = re.compile(rb"(?<![^\0])[A-Za-z_]\w{,99}(?:\.\w{1,99})+(?=\0)")
_DOTTED_OR_PLAIN = re.compile(rb"(?<![^\0])[A-Za-z_]\w{,99}(?:\.\w{1,99})*(?=\0)")
_BY_CYTHON = b"__pyx"


def is_extension(path: bytes) -> bool:
    """Whether a library is an extension module of Python, by its name."""
    return _EXTENSION.search(path) is not None


def names_in_extension(constants: bytes) -> list[bytes]:
    """The texts among the constants of an extension module that could name a module, each once.

    Names with a dot are taken of all, others only of what Cython made.
    """
    pattern = _DOTTED_OR_PLAIN if _BY_CYTHON in constants else _DOTTED
    return list(dict.fromkeys(pattern.findall(constants)))
