"""Facts of file trees, in one form that can be compared: mode, owner, size, links, xattrs, content.

`trees` reads the facts of a directory and lists the differences of two trees. `layers` reads the
facts of an opened layer, and inflates and verifies each file on the way.
"""

from __future__ import annotations
