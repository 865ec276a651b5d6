"""The plugin: start the watches when first asked, and answer from the secrets that they see."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.api.units import PositiveDuration
from lazylayer.errors import ConfigurationError, PluginError, SkipPlugin
from lazylayer_keychain_kube.pacing import Pacing
from lazylayer_keychain_kube.pullsecrets import TYPES, PullSecrets

if TYPE_CHECKING:
    from lazylayer_keychain_kube.access import AccessSource
    from lazylayer_keychain_kube.watcher import Watcher

__all__ = ["KubeKeychain", "Options"]

_NAME = "keychain_kube"
_Namespace = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin.keychain_kube]`; one of `kubeconfig` and `in_cluster` turns the plugin on."""

    kubeconfig: str = ""
    """The kubeconfig to use; it may appear later."""
    context: str = ""
    """A context in it; empty for its current one."""
    in_cluster: bool = False
    """Use the service account of the pod that lazylayer runs in."""
    service_account: str = "/var/run/secrets/kubernetes.io/serviceaccount"
    """The directory of that account's files."""
    namespaces: tuple[_Namespace, ...] = ()
    """The namespaces whose secrets are used; empty for all."""
    label_selector: str = ""
    """Only secrets with these labels, as `kubectl --selector` takes them."""
    timeout: PositiveDuration = 10.0
    """Seconds that a question waits for the first list of secrets."""
    unavailable: Literal["error", "pass"] = "error"
    """The answer until the secrets were listed once: an error, or no credentials."""
    exec_timeout: PositiveDuration = 30.0
    """Seconds that an exec plugin in the kubeconfig may take."""


class KubeKeychain:
    """The plugin. The lock guards the start of the watches."""

    def __init__(self, pacing: Pacing | None = None) -> None:
        self._options = Options()
        self._pacing = pacing or Pacing()
        self._lock = threading.Lock()
        self._watchers: list[Watcher] | None = None
        self._secrets = PullSecrets()
        self._closed = False

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Take `[plugin.keychain_kube]`."""
        self._options = options
        if options.kubeconfig and options.in_cluster:
            raise ConfigurationError(
                f"[plugin.{_NAME}] has both kubeconfig and in_cluster; remove one", key=f"plugin.{_NAME}.in_cluster"
            )
        if not options.kubeconfig and not options.in_cluster:
            raise SkipPlugin(f"[plugin.{_NAME}] names no kubeconfig; set kubeconfig or in_cluster to use it")

    @hookimpl
    def lazylayer_get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """Answer from the secrets as they were last seen; wait for the first list."""
        deadline = time.monotonic() + self._options.timeout
        watchers = self._start()
        waiting = [each for each in watchers if not each.wait_until_synced(max(0.0, deadline - time.monotonic()))]
        if waiting:
            reason = waiting[0].error or "the API does not answer"
            message = f"the pull secrets could not be listed within {self._options.timeout:g} s: {reason}"
            if self._options.unavailable == "error":
                raise PluginError(
                    f'{message}; or set [plugin.{_NAME}] unavailable = "pass" to go on without them',
                    plugin=_NAME,
                    distribution="lazylayer-keychain-kube",
                )
            logger.warning("{message}; going on without them", message=message)
        return self._secrets.find(host, reference.repository)

    @hookimpl
    def lazylayer_close(self) -> None:
        """End the watches."""
        with self._lock:
            self._closed = True
            watchers, self._watchers = self._watchers or [], None
        for watcher in watchers:
            watcher.close()

    @property
    def watchers(self) -> list[Watcher]:
        """The watches in flight; none before the first question."""
        with self._lock:
            return list(self._watchers or [])

    def _start(self) -> list[Watcher]:
        with self._lock:
            if self._watchers is None and not self._closed:
                self._watchers = self._make_watchers()
                for watcher in self._watchers:
                    watcher.start()
            return list(self._watchers or [])

    def _make_watchers(self) -> list[Watcher]:
        # Here, because httpx and yaml would slow down every command.
        from lazylayer_keychain_kube.access import ServiceAccount
        from lazylayer_keychain_kube.api import Query
        from lazylayer_keychain_kube.kubeconfig import Kubeconfig
        from lazylayer_keychain_kube.watcher import Watcher

        options = self._options
        source: AccessSource
        if options.in_cluster:
            source = ServiceAccount(Path(options.service_account))
        else:
            source = Kubeconfig(Path(options.kubeconfig), options.context, options.exec_timeout)
        return [
            Watcher(source, Query(kind, namespace, options.label_selector), self._secrets, self._pacing)
            for namespace in options.namespaces or ("",)
            for kind in TYPES
        ]
