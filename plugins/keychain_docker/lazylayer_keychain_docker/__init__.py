"""Credentials from Docker's config.json and its credential helpers."""

from __future__ import annotations
