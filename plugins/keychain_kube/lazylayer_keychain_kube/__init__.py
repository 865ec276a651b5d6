"""Credentials from image pull secrets of Kubernetes, watched through its API."""

from __future__ import annotations

import sys

from loguru import logger

from lazylayer_keychain_kube.keychain import KubeKeychain, Options

__all__ = ["KubeKeychain", "Options"]

logger.disable(__name__)

# Importing httpx would import its command line, with rich and pygments, where those are installed:
# 0.1 s and 7 MB for nothing. None makes that import fail, which httpx expects.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
