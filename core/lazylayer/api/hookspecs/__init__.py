"""Every hook that a plugin may implement: the contract between core and plugins.

The modules `programs`, `images`, `layers` and `mounts` explain them.

A plugin is a module with functions, or a class of which one instance is made, with methods, named after the
hooks and marked with `lazylayer.hookimpl`. An entry point of the group `lazylayer.plugins` leads to
it. An implementation may leave out arguments that it does not need.

- *first result*: plugins are asked in configured order (`plugins.enabled`, else by name), and the first
  answer that is not None is used. None means "not mine".
- *all*: every plugin is called, in the same order; one that fails never affects the others.
- *one*: only the plugin that the configuration names is called.

Hooks run when something is opened or changes, never on a read; the objects that they return are called
then. Unless a hook says otherwise it may be called from any thread, and from several at once. Wrappers
(`hookimpl(wrapper=True)`) are for first-result hooks only. An exception that is not a `LazylayerError`
becomes a `PluginError` that names plugin, version and hook; a `LazylayerError` goes up as it is.
"""

from __future__ import annotations

from lazylayer.api.hookspecs.images import (
    lazylayer_get_credentials,
    lazylayer_open_cache,
    lazylayer_open_store,
    lazylayer_resolve_blob,
    lazylayer_resolve_image,
)
from lazylayer.api.hookspecs.layers import (
    lazylayer_add_virtual_entries,
    lazylayer_build_layer,
    lazylayer_describe_format,
    lazylayer_layer_opened,
    lazylayer_open_layer,
    lazylayer_plan_prefetch,
    lazylayer_prefetch_image,
)
from lazylayer.api.hookspecs.mounts import (
    lazylayer_mount_tree,
    lazylayer_probe_frontend,
    lazylayer_recognize_mount,
)
from lazylayer.api.hookspecs.programs import (
    lazylayer_close,
    lazylayer_configure,
    lazylayer_daemon_started,
    lazylayer_interrupt,
    lazylayer_report_state,
)

__all__ = [
    "lazylayer_add_virtual_entries",
    "lazylayer_build_layer",
    "lazylayer_close",
    "lazylayer_configure",
    "lazylayer_daemon_started",
    "lazylayer_describe_format",
    "lazylayer_get_credentials",
    "lazylayer_interrupt",
    "lazylayer_layer_opened",
    "lazylayer_mount_tree",
    "lazylayer_open_cache",
    "lazylayer_open_layer",
    "lazylayer_open_store",
    "lazylayer_plan_prefetch",
    "lazylayer_prefetch_image",
    "lazylayer_probe_frontend",
    "lazylayer_recognize_mount",
    "lazylayer_report_state",
    "lazylayer_resolve_blob",
    "lazylayer_resolve_image",
]
