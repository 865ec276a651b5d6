"""Say what to change in a plugin that was written for an earlier contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lazylayer.api.settings import Settings

__all__ = ["MOVED", "ContractError", "check_signature", "explain_error", "explain_hook"]

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
            "building",
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


class ContractError(Exception):
    """A plugin does not fit the contract. The message says what to change."""


def explain_hook(hook: str) -> str:
    """Return why a hook that does not exist does not, and what to do."""
    if hook in HOOKS:
        return f"{hook} is a hook of an earlier lazylayer; {HOOKS[hook]}"
    return (
        f"it implements {hook}, a hook that this version of lazylayer does not have; "
        "upgrade lazylayer, or use a version of the plugin that fits"
    )


def check_signature(hook: str, arguments: tuple[str, ...], known: tuple[str, ...], returns: Any, options: bool) -> None:
    """Raise ContractError if an implementation does not fit its hook.

    :param arguments: those of the implementation, without `self`.
    :param known: those of the hook.
    :param returns: the annotation of the answer, if there is one.
    :param options: True if the plugin declares `Options`.
    """
    for argument in arguments:
        if argument not in known:
            advice = ARGUMENTS.get((hook, argument), f"the hook has ({', '.join(known)})")
            raise ContractError(f"{hook} does not take {argument}: {advice}")
    if hook == "lazylayer_mount_tree" and "options" in arguments and not options:
        raise ContractError(
            f"{hook}: options are now the plugin's own, and it declares none; MountOptions are called mount_options"
        )
    if hook == "lazylayer_probe_frontend" and (returns is str or str(returns).startswith("str")):
        raise ContractError(f"{hook} returns Works() or Missing(reason, remedy), not a text")


def explain_error(error: BaseException) -> str:
    """Return what to change if an earlier contract explains an error; empty if it does not."""
    if isinstance(error, ImportError) and error.name:
        package, _, module = error.name.partition(".")
        target = MOVED.get(module.partition(".")[0], "") if package == "lazylayer" else ""
        return f"lazylayer.{module} is now {target}" if target else ""
    if isinstance(error, AttributeError) and isinstance(error.obj, Settings):
        advice = SETTINGS.get(error.name or "", "")
        return f"settings.{error.name} is gone: {advice}" if advice else ""
    return ""
