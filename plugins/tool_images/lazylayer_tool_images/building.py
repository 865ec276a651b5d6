"""Ask plugins to build layers, and to know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from lazylayer.errors import BuildError

if TYPE_CHECKING:
    from lazylayer.program import Hooks
    from lazylayer_building import BuildOptions, BuiltLayer

__all__ = ["build_layer", "is_promised"]


def is_promised(hooks: Hooks, annotations: Mapping[str, str]) -> bool:
    """Return True if a layer with these annotations is in one of the formats, to be mounted lazily."""
    return any(info.promises(annotations) for info in hooks.formats())


def build_layer(
    hooks: Hooks, format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
) -> BuiltLayer:
    """Return the layer that the plugin of this format built. Raises BuildError if no plugin builds it."""
    hook = "lazylayer_build_layer"
    name = hooks.formats().plugin(format)
    if name is None:
        known = ", ".join(dict.fromkeys(name for info in hooks.formats() for name in info.names)) or "none"
        raise BuildError(f"unknown format {format!r}: no installed plugin describes it; formats here: {known}")
    plugin = hooks.of(name)
    if plugin.why_not(hook):
        raise BuildError(f"format {format!r}: the plugin {name} reads it and does not build it")
    built: BuiltLayer = plugin.ask(
        hook, format=format, source=source, destination=destination, build_options=build_options
    )
    return built
