"""Tell by its name whether a value is a secret, so that it is neither logged nor shown."""

from __future__ import annotations

import re

__all__ = ["is_secret_name"]

_SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token|authorization")


def is_secret_name(name: str) -> bool:
    """Return True if a value called `name` is a secret: a password, a token."""
    return bool(_SECRET_NAME.search(name))
