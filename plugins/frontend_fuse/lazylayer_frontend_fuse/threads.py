"""Keeps Python's state for the threads of libfuse.

A thread that C code made gets a new Python thread state each time that it calls into Python, which
costs more than most requests. `keep_state` gives such a thread a state that stays; it is freed when
the thread ends, so that threads that come and go leave nothing behind.

The end is heard of by glibc's `__cxa_thread_atexit_impl` (what C++ frees thread-local objects with),
not by the destructor of a pthread key: keys lose their values in the order of their making, Python's
own before ours, and Python 3.12 and newer abort when they free a state that its thread forgot.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

__all__ = ["keep_state"]

_kept = threading.local()

_python: Any = ctypes.pythonapi
_python.PyGILState_Release.argtypes = [ctypes.c_int]
_python.PyGILState_Release.restype = None

_Destructor: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_LOCKED = 0  # PyGILState_LOCKED: what Ensure returns to a thread that holds Python's lock already


def _let_go(_: int | None) -> None:
    # Takes back the one Ensure of `keep_state`; the end of this call then frees the state.
    _python.PyGILState_Release(_LOCKED)


_let_go_callback = _Destructor(_let_go)


@functools.cache
def _find_at_thread_exit() -> Any:
    """`__cxa_thread_atexit_impl`; None with a C library that has none."""
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, _Destructor, ctypes.c_void_p, ctypes.c_void_p)
    try:
        return prototype(("__cxa_thread_atexit_impl", _python))
    except AttributeError:
        return None


def keep_state() -> None:
    """Keep the state of the calling thread, one of C code's; cheap when it is kept already."""
    try:
        _kept.state  # noqa: B018 - only whether it is there
    except AttributeError:
        _kept.state = True
        at_thread_exit = _find_at_thread_exit()
        # The last argument is an address in the library that must stay loaded until then.
        anchor = ctypes.cast(_python.PyGILState_Release, ctypes.c_void_p)
        if at_thread_exit is not None and at_thread_exit(_let_go_callback, None, anchor) == 0:
            _python.PyGILState_Ensure()
