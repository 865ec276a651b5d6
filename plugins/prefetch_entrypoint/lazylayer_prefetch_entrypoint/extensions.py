"""Read the names of modules that a Python extension module may import from its constants.

C code imports by name, as in `PyCapsule_Import("datetime.datetime_CAPI")`, and what Cython makes out of
import statements keeps their names beside those of everything else. Only the files of the image tell
which of them are modules. Source: CPython's C API, "Importing Modules" and "Capsules"; the C code that
Cython 0.29 and 3 write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lazylayer_prefetch_entrypoint.imports import MAX_NAMES

if TYPE_CHECKING:
    from lazylayer_prefetch_entrypoint.budget import Budget

__all__ = ["is_extension", "names_in_extension"]

# These never backtrack, and a name is shorter than `_OVERLAP`.
_DOTTED = re.compile(rb"(?<![^\0])[A-Za-z_]\w{,99}+(?:\.\w{1,99}+){1,19}+(?=\0)")
_DOTTED_OR_PLAIN = re.compile(rb"(?<![^\0])[A-Za-z_]\w{,99}+(?:\.\w{1,99}+){,19}+(?=\0)")
_PIECE = 64 * 1024
"""Bytes to search in one call, which holds the interpreter's lock."""
_OVERLAP = 2048 + 2
_BY_CYTHON = b"__pyx"


def is_extension(path: bytes) -> bool:
    """Return True if a library is an extension module of Python, by its name."""
    name = path.rpartition(b"/")[2]
    return name.endswith(b".abi3.so") or (name.endswith(b".so") and b".cpython-" in name)


def names_in_extension(constants: bytes, budget: Budget) -> list[bytes]:
    """Return the texts among the constants of an extension module that could name a module, each once.

    All names with a dot are taken, others only where Cython made the module. Raises OverBudgetError.
    """
    pattern = _DOTTED_OR_PLAIN if _BY_CYTHON in constants else _DOTTED
    names: dict[bytes, None] = {}
    for start in range(0, len(constants), _PIECE):
        budget.spend(_PIECE + _OVERLAP)
        # A name that begins in the overlap begins in the next piece, too.
        for found in pattern.finditer(constants, start, start + _PIECE + _OVERLAP):
            names[found[0]] = None
            if len(names) >= MAX_NAMES:
                return list(names)
    return list(names)
