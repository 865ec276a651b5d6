"""Credentials from image pull secrets of Kubernetes, watched through its API."""

from __future__ import annotations

from loguru import logger

from lazylayer_keychain_kube.keychain import KubeKeychain, Options

__all__ = ["KubeKeychain", "Options"]

logger.disable(__name__)
