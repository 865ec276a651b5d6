"""Remember where a registry redirects requests for a blob, while that target serves."""

from __future__ import annotations

import threading

import httpx

__all__ = ["RedirectTarget"]


class RedirectTarget:
    """The URL that served last, or None: then ask the registry. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._url: httpx.URL | None = None

    @property
    def url(self) -> httpx.URL | None:
        """The remembered URL."""
        return self._url

    def keep(self, url: httpx.URL) -> None:
        """Remember a URL that answers."""
        with self._lock:
            self._url = url

    def forget(self, url: httpx.URL | None = None) -> None:
        """Forget `url`, by default whichever is remembered; keep one that another thread found since."""
        with self._lock:
            if url is None or self._url == url:
                self._url = None
