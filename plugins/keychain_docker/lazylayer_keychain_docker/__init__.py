"""Credentials from Docker's config.json and its credential helpers."""

from __future__ import annotations

from loguru import logger

from lazylayer_keychain_docker.keychain import DockerKeychain, Options

__all__ = ["DockerKeychain", "Options"]

logger.disable(__name__)
