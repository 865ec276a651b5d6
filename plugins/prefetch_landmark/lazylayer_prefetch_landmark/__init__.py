"""The prefetch policy that landmarks and labels describe."""

from __future__ import annotations
