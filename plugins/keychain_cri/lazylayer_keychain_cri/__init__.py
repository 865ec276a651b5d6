"""Credentials seen on the CRI image service, which it proxies between kubelet and containerd."""

from __future__ import annotations

from loguru import logger

from lazylayer_keychain_cri.keychain import CriKeychain
from lazylayer_keychain_cri.options import Options

__all__ = ["CriKeychain", "Options"]

logger.disable(__name__)
