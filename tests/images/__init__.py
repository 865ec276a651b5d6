"""Images for tests, made by other people's tools, and GNU tar's word on what they hold."""

from __future__ import annotations
