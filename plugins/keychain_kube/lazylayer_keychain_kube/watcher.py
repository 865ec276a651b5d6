"""Keep the pull secrets of one query in step with the API, in a thread.

List, then watch from there; a watch that ends goes on where it stopped; 410 Gone lists again; whatever
else fails is tried again with a growing pause, forever. The kubeconfig is read anew for each
connection, so that it may come later and change.
"""

from __future__ import annotations

import random
import threading

from loguru import logger

from lazylayer_keychain_kube.access import AccessSource
from lazylayer_keychain_kube.api import Connection, Query, WatchEvent
from lazylayer_keychain_kube.errors import ApiError, GoneError
from lazylayer_keychain_kube.pacing import Pacing
from lazylayer_keychain_kube.pullsecrets import PullSecrets

__all__ = ["Watcher"]


class Watcher:
    """Watches one query until it is closed.

    The condition guards `_error`, `_version` and the connection that `close` interrupts.
    """

    def __init__(self, source: AccessSource, query: Query, secrets: PullSecrets, pacing: Pacing) -> None:
        self._source = source
        self._query = query
        self._secrets = secrets
        self._pacing = pacing
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._synced = False
        self._version = ""
        self._error = ""
        self._failures = 0
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name=f"keychain_kube {query.namespace or 'all'}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """End the thread; wait at most `seconds` for a request that cannot be interrupted."""
        self._stop.set()
        with self._changed:
            if self._connection is not None:
                self._connection.interrupt()
        self._thread.join(seconds)

    @property
    def running(self) -> bool:
        """Return True while the thread runs."""
        return self._thread.is_alive()

    @property
    def version(self) -> str:
        """The resource version up to which everything is known."""
        return self._version

    @property
    def error(self) -> str:
        """The reason why the API cannot be reached now; empty if it can."""
        return self._error

    def wait_until_synced(self, seconds: float) -> bool:
        """Wait at most `seconds` until the secrets were listed once; return False if they were not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._synced, seconds)

    # --- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._connect()
            except GoneError as error:
                self._version = ""
                logger.debug("{query}: listing again: {error}", query=str(self._query), error=str(error))
                # The first time at once; a server that repeats it gets a pause.
                self._failures += 1
                self._pause(self._failures - 1)
            except ApiError as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - a defect must not end the watch for good
                self._fail(f"{type(error).__name__}: {error}")

    def _connect(self) -> None:
        with Connection(self._source.read(), self._pacing.page_items) as connection:
            self._use(connection)
            try:
                self._follow(connection)
            finally:
                self._use(None)

    def _use(self, connection: Connection | None) -> None:
        with self._changed:
            self._connection = connection
            if connection is not None and self._stop.is_set():
                connection.interrupt()

    def _follow(self, connection: Connection) -> None:
        if not self._version:
            secrets, version = connection.list(self._query)
            self._secrets.replace(self._query.type, self._query.namespace, secrets)
            self._succeed(version)
        while not self._stop.is_set():
            # Spread the nodes of a cluster over time.
            seconds = self._pacing.watch_seconds * random.uniform(1, 2)  # noqa: S311 - no secret
            heard = False
            for event in connection.watch(self._query, self._version, seconds):
                heard = True
                self._take(event)
            if not heard and not self._stop.is_set():
                self._failures += 1
                self._pause(self._failures - 1)

    def _take(self, event: WatchEvent) -> None:
        if event.type == "DELETED":
            self._secrets.remove(self._query.type, event.secret)
        elif event.type != "BOOKMARK":
            self._secrets.put(self._query.type, event.secret)
        self._succeed(event.resource_version)

    def _succeed(self, version: str) -> None:
        with self._changed:
            was = self._error
            self._error, self._failures, self._synced = "", 0, True
            self._version = version or self._version
            self._changed.notify_all()
        if was:
            logger.info("{query}: the API answers again", query=str(self._query))

    def _fail(self, error: str) -> None:
        if self._stop.is_set():
            return
        with self._changed:
            news = error != self._error
            self._error = error
            self._failures += 1
            self._changed.notify_all()
        level = "WARNING" if news else "DEBUG"
        logger.log(level, "{query}: {error}; trying again", query=str(self._query), error=error)
        self._pause(self._failures)

    def _pause(self, failures: int) -> None:
        if failures > 0:
            longest = min(self._pacing.longest_pause, self._pacing.first_pause * 2 ** min(failures - 1, 10))
            self._stop.wait(longest * random.uniform(0.5, 1))  # noqa: S311 - no secret
