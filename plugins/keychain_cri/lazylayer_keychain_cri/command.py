"""`lazylayer cri-proxy`."""

from __future__ import annotations

import click

from lazylayer.cli import load_options, load_settings

__all__ = ["cri_proxy"]


@click.command("cri-proxy", short_help="Serve kubelet's image service and remember its credentials.")
@click.pass_context
def cri_proxy(context: click.Context) -> None:
    """Serve the CRI image service for kubelet, and remember the credentials of its pulls.

    Passes every request on to the real image service. Point kubelet at the socket that
    [plugin.keychain_cri] listen names, with --image-service-endpoint.
    """
    from lazylayer_keychain_cri.options import NAME, Options
    from lazylayer_keychain_cri.serving import serve_proxy

    serve_proxy(load_settings(context), load_options(context, NAME, Options))
