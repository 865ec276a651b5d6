"""Keeps Python's state for the threads of libfuse.

A thread that C code made gets a new Python thread state each time that it calls into Python, which
costs more than most requests. `keep_state` gives such a thread a state that stays; it is freed when
the thread ends, so that threads that come and go leave nothing behind.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

__all__ = ["keep_state"]

_kept = threading.local()

_python: Any = ctypes.pythonapi
_python.PyGILState_GetThisThreadState.restype = ctypes.c_void_p
_python.PyThreadState_Clear.argtypes = [ctypes.c_void_p]
_python.PyThreadState_Clear.restype = None
_python.PyThreadState_Delete.argtypes = [ctypes.c_void_p]
_python.PyThreadState_Delete.restype = None


def _free(state: int) -> None:
    # By now the C library has taken the state from the thread, and this call runs on one of its own.
    _python.PyThreadState_Clear(state)
    _python.PyThreadState_Delete(state)


_free_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_free)


@functools.cache
def _key() -> int:
    """A pthread key whose destructor frees a state in the thread that ends; -1 if there is none to be had."""
    key = ctypes.c_uint()
    return key.value if _python.pthread_key_create(ctypes.byref(key), _free_callback) == 0 else -1


def keep_state() -> None:
    """Keeps the state of the calling thread, one of C code's; cheap when it is kept already."""
    try:
        _kept.state  # noqa: B018 - only whether it is there
    except AttributeError:
        _kept.state = True
        key = _key()
        if key >= 0:
            state = ctypes.c_void_p(_python.PyGILState_GetThisThreadState())
            if _python.pthread_setspecific(ctypes.c_uint(key), state) == 0:
                _python.PyGILState_Ensure()
