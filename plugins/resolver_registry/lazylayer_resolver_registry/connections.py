"""Connection options of a host (certificates, proxy, time-outs) and the httpx client made from them.

Trusted are the system's certificates, and those configured for a host.
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
from lazylayer_resolver_registry.pools import PoolTransport, make_pool
from lazylayer_resolver_registry.streams import Streams

__all__ = ["UNCONFIGURED", "ConnectionOptions", "make_client"]


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The configured connection options of one host."""

    ca: tuple[str, ...] = ()
    """Files with certificates to trust, besides the system's."""
    client: tuple[tuple[str, str], ...] = ()
    """Files with a client certificate and its key; an empty key means the certificate's file."""
    skip_verify: bool = False
    connect_timeout: float | None = None
    """Seconds; None for the plugin's option."""
    idle_timeout: float | None = None
    """Seconds; None for the plugin's option, 0 for no limit."""
    proxy: str = ""
    """The URL of a proxy that overrides the environment's."""
    changed: tuple[int, ...] = ()
    """Modification times of the files, in nanoseconds, to notice new ones: see `stamped`."""

    def stamped(self) -> ConnectionOptions:
        """Return a copy with current modification times. Raises ConfigurationError for a missing file."""
        files = [*self.ca, *(file for pair in self.client for file in pair if file)]
        if not files:
            return self
        try:
            stamps = tuple(os.stat(file).st_mtime_ns for file in files)  # noqa: PTH116 - text, as configured
        except OSError as error:
            raise ConfigurationError(f"{error.filename}: cannot read the certificate: {error.strerror}") from error
        return msgspec.structs.replace(self, changed=stamps)

    def refreshed(self) -> ConnectionOptions:
        """Return a copy with current modification times, or `self` while a file is being replaced."""
        if not self.changed:
            return self
        try:
            return self.stamped()
        except ConfigurationError:
            return self

    def elsewhere(self) -> ConnectionOptions:
        """Return the options for hosts that this one redirects to: trust and time-outs.

        Client certificates, `skip_verify` and the proxy apply to this host alone.
        """
        return msgspec.structs.replace(self, client=(), skip_verify=False, proxy="")


UNCONFIGURED = ConnectionOptions()


def make_client(
    secure: bool, proxy: str, connection: ConnectionOptions, defaults: Options, streams: Streams
) -> httpx.Client:
    """Return an httpx client with these options.

    :param secure: True for https; certificates are loaded only then.
    :param proxy: the URL of the proxy to use, empty for none.
    :param streams: makes the connections.

    Raises ConfigurationError for invalid certificates and proxies.
    """
    idle = defaults.idle_timeout if connection.idle_timeout is None else connection.idle_timeout or None
    connect = connection.connect_timeout or defaults.connect_timeout
    context = _ssl_context(connection) if secure else None
    return httpx.Client(
        transport=PoolTransport(make_pool(context, _proxy(proxy), streams)),
        trust_env=False,  # httpx raises for networks in NO_PROXY; `Proxies` reads the environment
        follow_redirects=False,
        headers={"User-Agent": f"lazylayer/{__version__}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(idle, connect=connect, pool=None),
    )


def _proxy(url: str) -> httpx.Proxy | None:
    if not url:
        return None
    try:
        proxy = httpx.Proxy(url)
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not proxy.url.host:
        # Do not show the value: it may hold a password.
        raise ConfigurationError(
            "proxy (configured, or from HTTPS_PROXY, HTTP_PROXY or ALL_PROXY): not a proxy URL; "
            "expected for example http://proxy.test:3128"
        )
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"proxy {proxy.url.scheme}://{proxy.url.host}: SOCKS is not installed; install the package socksio"
        )
    return proxy


def _ssl_context(connection: ConnectionOptions) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Python 3.13 demands extensions that many company authorities lack; containerd and curl do not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not _system_has_certificates():
        import certifi

        context.load_verify_locations(certifi.where())
    for file in connection.ca:
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{file}: not a file of trusted certificates: {error}") from error
    for certificate, key in connection.client:
        try:
            # An empty password, so that OpenSSL never prompts for one at the terminal.
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
