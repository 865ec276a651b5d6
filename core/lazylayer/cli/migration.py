"""Say what to change in a plugin that was written for an earlier contract."""

from __future__ import annotations

from collections.abc import Mapping

from lazylayer.api.settings import Settings
from lazylayer.plugin.records import ContractError, PluginRecord

__all__ = ["HOOKS", "MOVED", "explain_failure"]

_OPTIONS = "declare a struct named Options beside it; the core fills and checks it"

HOOKS: Mapping[str, str] = {
    "lazylayer_warm_up": "implement lazylayer_daemon_started(frontend) instead",
    "lazylayer_add_commands": "name each command in the entry-point group lazylayer.commands instead",
    "lazylayer_remove_mount": "implement lazylayer_recognize_mount(mount), which returns an object that removes it",
}
"""Hooks of earlier contracts, and what to do."""

ARGUMENTS: Mapping[tuple[str, str], str] = {
    (
        "lazylayer_open_cache",
        "kind",
    ): "only the named cache is asked; take (purpose, options) and always return a cache",
    ("lazylayer_probe_frontend", "frontend"): (
        "only the named frontend is asked; take (options) and return Works() or Missing(reason, remedy)"
    ),
    ("lazylayer_mount_tree", "options"): "MountOptions are now called mount_options",
    ("lazylayer_build_layer", "options"): "BuildOptions are now called build_options",
}
"""Arguments of earlier contracts, by hook, and what to do."""

SETTINGS: Mapping[str, str] = {
    "plugin_options": f"take lazylayer_configure(settings, options), and {_OPTIONS}",
    "resolver_options": f'take lazylayer_configure(settings, options), set options_table = "resolver", and {_OPTIONS}',
    "plugin": f"settings hold no options of plugins; take (settings, options), and {_OPTIONS}",
    "resolver": f'settings hold no table of plugins; set options_table = "resolver", and {_OPTIONS}',
}
"""Attributes that settings had, and what to do."""

MOVED: Mapping[str, str] = {
    **{
        name: f"lazylayer.api.{name}"
        for name in (
            "cache",
            "chunks",
            "events",
            "hookspecs",
            "labels",
            "mounting",
            "oci",
            "settings",
            "tree",
        )
    },
    "allocator": "lazylayer.cli (use_few_arenas)",
    "building": "lazylayer_building",
    "blob": "lazylayer.api.opened (OpenedBlob)",
    "companions": "lazylayer.api.opened (CompanionImages)",
    "contents": "lazylayer.api.layers",
    "dockerconfig": "lazylayer_logins.dockerconfig",
    "extents": "lazylayer.api.byteranges (ByteRange, ByteRanges)",
    "helperprograms": "lazylayer_logins.helperprograms",
    "image": "lazylayer.api.opened (OpenedImage)",
    "inflate": "lazylayer_tarlayers.inflate",
    "kernelmounts": "lazylayer_frontends.mountcalls",
    "layer": "lazylayer.api.opened (OpenedLayer)",
    "memberwriting": "lazylayer_tarlayers.members",
    "mounttable": "lazylayer.linux.mounttable",
    "packing": "lazylayer_tarlayers.packing",
    "prefetching": "lazylayer.api.layers",
    "source": "lazylayer.api.sources (BlobSource) and lazylayer.api.credentials (Credentials)",
    "tararchive": "lazylayer_tarlayers.tarreader",
    "tarheaders": "lazylayer_tarlayers.tarwriter",
    "testing": "lazylayer_testing",
    "toc": "lazylayer_tarlayers.toc",
    "tocbuilder": "lazylayer_tarlayers.tocbuilder",
}
"""The modules of `lazylayer` that plugins imported, and where their names are now."""


def explain_failure(record: PluginRecord) -> str:
    """Return what to change in a plugin if an earlier contract explains why it failed; empty if it does not."""
    failure = record.failure
    if isinstance(failure, ContractError):
        return HOOKS.get(failure.hook, "") or ARGUMENTS.get((failure.hook, failure.argument), "")
    if isinstance(failure, ImportError) and failure.name:
        package, _, module = failure.name.partition(".")
        target = MOVED.get(module.partition(".")[0], "") if package == "lazylayer" else ""
        return f"lazylayer.{module} is now {target}" if target else ""
    if isinstance(failure, AttributeError) and isinstance(failure.obj, Settings):
        advice = SETTINGS.get(failure.name or "", "")
        return f"settings.{failure.name} is gone: {advice}" if advice else ""
    return ""
