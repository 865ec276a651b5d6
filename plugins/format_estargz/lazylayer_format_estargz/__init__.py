"""eStargz and legacy stargz layers: reader and builder."""

from __future__ import annotations
