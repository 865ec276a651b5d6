"""Extended attributes as they lie behind an EROFS inode."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from lazylayer.api.tree import OPAQUE_XATTRS, Entry
from lazylayer.errors import MountError
from lazylayer_frontend_erofs.format import (
    MAX_XATTR_NAME,
    MAX_XATTR_VALUE,
    XATTR_PREFIXES,
    XATTR_WHOLE_NAMES,
)

__all__ = ["encode_xattrs"]

_HEADER = struct.Struct("<IB7x")
_ENTRY = struct.Struct("<BBH")
_LARGEST_BODY = _HEADER.size + 4 * 65534


def encode_xattrs(entry: Entry) -> bytes:
    """Encode what follows the inode of `entry`: empty if it has no attributes.

    An opaque directory's marks come first. Attributes outside of the name spaces that EROFS knows
    (user, trusted, security, POSIX ACLs) cannot be shown and are left out. Raises MountError for
    attributes that are larger than the format holds.
    """
    attributes: Mapping[bytes, bytes] = entry.xattrs or {}
    if entry.opaque:
        marks = dict.fromkeys(OPAQUE_XATTRS, b"y")
        attributes = {**marks, **attributes, **marks}
    encoded = [part for name, value in attributes.items() if (part := _encode(name, value))]
    if not encoded:
        return b""
    body = _HEADER.pack(0, 0) + b"".join(encoded)
    if len(body) > _LARGEST_BODY:
        raise MountError(f"{len(body)} bytes of extended attributes on one file are more than EROFS holds")
    return body


def _encode(name: bytes, value: bytes) -> bytes:
    index, rest = _divide(name)
    if not index:
        return b""
    if len(rest) > MAX_XATTR_NAME or len(value) > MAX_XATTR_VALUE:
        raise MountError(f"the extended attribute {name[:80]!r} of {len(value)} bytes is larger than EROFS holds")
    encoded = _ENTRY.pack(len(rest), index, len(value)) + rest + value
    return encoded + bytes(-len(encoded) % 4)


def _divide(name: bytes) -> tuple[int, bytes]:
    """Return the number of a name's prefix and the rest of the name; 0 for a prefix that EROFS does not have."""
    if name in XATTR_WHOLE_NAMES:
        return XATTR_WHOLE_NAMES[name], b""
    for prefix, index in XATTR_PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return index, name[len(prefix) :]
    return 0, b""
