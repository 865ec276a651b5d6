"""A program: its settings, its plugins, and the hooks they answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from loguru import logger

from lazylayer.configuration import Configuration, load_configuration
from lazylayer.hooks import Hooks
from lazylayer.plugins import Plugins
from lazylayer.settings import Settings

__all__ = ["Program"]


class Program:
    """What everything else is made from. Made once, at the start, in the main thread.

    `plugins` may be given where they were loaded before, with the same configuration.

    Raises ConfigurationError for options that a plugin refuses, and PluginRequiredError for a
    plugin that is required, or selected by name, and not usable.
    """

    def __init__(self, configuration: Configuration, plugins: Plugins | None = None) -> None:
        self.configuration = configuration
        self.settings: Settings = configuration.settings
        self.plugins = Plugins.load(self.settings.plugins) if plugins is None else plugins
        self.plugins.configure(self.settings)
        self.hooks: Hooks = self.plugins.hooks()
        for refusal in self.plugins.refusals:
            raise configuration.located(refusal)
        for name, by in self.selected_plugins():
            self.plugins.require(name, by)
        self._warn_of_unusable_plugins()

    @classmethod
    def load(cls, config: Path | None = None, overrides: Sequence[str] = ()) -> Program:
        """The program that the configuration describes; see `lazylayer.configuration` for the layers.

        :param config: the file that the user named; None for the default one, if it exists.
        :param overrides: `KEY=VALUE`, stronger than files and environment.
        """
        return cls(load_configuration(config, overrides))

    def selected_plugins(self) -> Iterator[tuple[str, str]]:
        """The plugins that the settings name, each with the setting, in words, that names it."""
        for wish in self.settings.plugins.required:
            yield wish.partition("@")[0], "[plugins] required"
        yield self.settings.cache.chunks, "[cache] chunks"
        yield self.settings.cache.ranges, "[cache] ranges"
        if self.settings.mount.frontend != "auto":
            yield self.settings.mount.frontend, "[mount] frontend"

    def close(self) -> None:
        """Ends the program's use of its plugins. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _warn_of_unusable_plugins(self) -> None:
        for record in self.plugins.records:
            if record.status == "error":
                logger.warning("plugin {name} is left out: {reason}", name=record.name, reason=record.reason)
            elif record.status == "skipped":
                logger.debug("plugin {name} is left out: {reason}", name=record.name, reason=record.reason)
