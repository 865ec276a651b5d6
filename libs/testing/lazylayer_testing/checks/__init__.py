"""Run the conformance kits on an installed plugin, for `lazylayer plugins check`."""

from __future__ import annotations
