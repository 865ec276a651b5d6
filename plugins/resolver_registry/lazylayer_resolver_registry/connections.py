"""How a host is reached: certificates, a proxy, and time-outs; and the httpx client that does it.

Trust comes from the system's certificates, and from those that are configured for a host in addition.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from pathlib import Path

import httpx
import msgspec

from lazylayer import __version__
from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.options import Options

__all__ = ["UNCONFIGURED", "ConnectionOptions", "make_client"]

_KEPT_ALIVE = 32
_KEPT_ALIVE_SECONDS = 30.0
"""Longer than httpx does: reads come now and then, and a handshake costs round trips. Shorter than what
firewalls and address translators on the way forget a silent connection after, which would cost a time-out."""


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured for connections to one host. Hosts with equal options share a client."""

    ca: tuple[str, ...] = ()
    """Files with certificates to trust besides the system's."""
    client: tuple[tuple[str, str], ...] = ()
    """Files with a client certificate and its key; an empty key is in the certificate's file."""
    skip_verify: bool = False
    connect_timeout: float | None = None
    """Seconds; None for what the plugin's options say."""
    idle_timeout: float | None = None
    """Seconds; None likewise, 0 for none."""
    proxy: str = ""
    """The URL of a proxy, instead of those that the environment names."""
    changed: tuple[int, ...] = ()
    """When the files were changed, so that new ones are noticed: see `stamped`."""

    def stamped(self) -> ConnectionOptions:
        """The same with `changed` as the files are now. Raises ConfigurationError for one that is not there."""
        files = [*self.ca, *(file for pair in self.client for file in pair if file)]
        if not files:
            return self
        try:
            stamps = tuple(os.stat(file).st_mtime_ns for file in files)  # noqa: PTH116 - text, as configured
        except OSError as error:
            raise ConfigurationError(
                f"{error.filename}: a certificate that cannot be read: {error.strerror}"
            ) from error
        return msgspec.structs.replace(self, changed=stamps)

    def refreshed(self) -> ConnectionOptions:
        """The same as the files are now, or as they were when one is away: it is about to be replaced."""
        if not self.changed:
            return self
        try:
            return self.stamped()
        except ConfigurationError:
            return self

    def elsewhere(self) -> ConnectionOptions:
        """What of it holds for hosts that this one sends us to: whom to trust, and time-outs.

        Client certificates prove who we are, to this host alone; that its certificate is not looked
        at says nothing about others.
        """
        return msgspec.structs.replace(self, client=(), skip_verify=False, proxy="")


UNCONFIGURED = ConnectionOptions()


def make_client(secure: bool, proxy: str, connection: ConnectionOptions, defaults: Options) -> httpx.Client:
    """A client for hosts with these options.

    :param secure: whether it is for https; certificates are loaded only then.
    :param proxy: the URL of the proxy that leads there, empty for none.

    Raises ConfigurationError for certificates and proxies that cannot be used.
    """
    idle = defaults.idle_timeout if connection.idle_timeout is None else connection.idle_timeout or None
    connect = connection.connect_timeout or defaults.connect_timeout
    return httpx.Client(
        verify=_ssl_context(connection) if secure else False,
        proxy=_proxy(proxy),
        trust_env=False,  # httpx ends with a traceback for networks in NO_PROXY; and see `Proxies`
        follow_redirects=False,
        headers={"User-Agent": f"lazylayer/{__version__}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(idle, connect=connect, pool=None),
        limits=httpx.Limits(
            max_connections=defaults.connections,
            max_keepalive_connections=_KEPT_ALIVE,
            keepalive_expiry=_KEPT_ALIVE_SECONDS,
        ),
    )


def _proxy(url: str) -> httpx.Proxy | None:
    if not url:
        return None
    try:
        proxy = httpx.Proxy(url)
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not proxy.url.host:
        # What was configured is not shown: it may hold a password.
        raise ConfigurationError(
            "the proxy that is configured, or named by HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, is no URL of a proxy, "
            "as in http://proxy.test:3128"
        )
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"the proxy {proxy.url.scheme}://{proxy.url.host} cannot be used: install the package socksio"
        )
    return proxy


def _ssl_context(connection: ConnectionOptions) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Python 3.13 demands extensions that the authorities of many a company lack; containerd and curl do not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not _system_has_certificates():
        import certifi

        context.load_verify_locations(certifi.where())
    for file in connection.ca:
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{file}: no certificate that can be trusted is in it: {error}") from error
    for certificate, key in connection.client:
        try:
            # A password would be asked for at the terminal: nobody sits there.
            context.load_cert_chain(certificate, key or None, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{certificate}: not a client certificate with its key: {error}") from error
    if connection.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _system_has_certificates() -> bool:
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))
