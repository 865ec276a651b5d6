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

from lazylayer.api.hookspecs import images, layers, mounts, programs

__all__ = ["MODULES"]

MODULES = (programs, images, layers, mounts)
"""The modules that specify the hooks."""
