"""Put settings, plugins and hooks together into a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lazylayer.api.settings import Settings
from lazylayer.configuration.loading import Configuration, load_configuration
from lazylayer.errors import ConfigurationError, LazylayerError, PluginRequiredError
from lazylayer.logger import logger
from lazylayer.plugin.hooks import AUTO, Hooks
from lazylayer.plugin.registry import Plugins

__all__ = ["Hooks", "Program", "find_problems"]


class Program:
    """The settings, plugins and hooks of one process. Make it once, at the start, in the main thread.

    :param plugins: plugins that were already loaded with the same configuration.

    Raises ConfigurationError for options that a plugin rejects, and PluginRequiredError for a
    plugin that is required, or selected by name, and not usable.
    """

    def __init__(self, configuration: Configuration, plugins: Plugins | None = None) -> None:
        self.configuration = configuration
        self.settings: Settings = configuration.settings
        self.plugins = Plugins.load(self.settings.plugins) if plugins is None else plugins
        self.plugins.configure(self.settings, configuration.plugin_tables)
        self.hooks: Hooks = self.plugins.hooks()
        self._closed = False
        for problem in find_problems(configuration, self.plugins):
            self.close()
            raise problem
        self._warn_of_unusable_plugins()

    @classmethod
    def load(cls, config: Path | None = None, overrides: Sequence[str] = ()) -> Program:
        """Return the program that files, environment and `overrides` configure.

        :param config: the configuration file; None for the default one, if it exists.
        :param overrides: `KEY=VALUE`, which override files and environment.
        """
        return cls(load_configuration(config, overrides))

    def close(self) -> None:
        """Close the plugins (`lazylayer_close`). Idempotent."""
        if not self._closed:
            self._closed = True
            self.hooks.close()

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


def find_problems(configuration: Configuration, plugins: Plugins) -> list[LazylayerError]:
    """Return the reasons why a program with these configured plugins cannot start.

    Rejected options come first, then needed plugins that are not usable.
    """
    problems: list[LazylayerError] = [configuration.located(refusal) for refusal in plugins.refusals]
    for name, by in _needed_plugins(configuration):
        try:
            plugins.require(name, by)
        except PluginRequiredError as error:
            problems.append(error)
    cache = configuration.settings.cache
    try:
        for wanted in (cache.chunks, cache.ranges):
            plugins.hooks().choose_cache(wanted)
    except ConfigurationError as error:
        problems.append(error)
    return problems


def _needed_plugins(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the plugins that settings name, each with the setting's key."""
    settings = configuration.settings
    for wish in settings.plugins.required:
        yield wish.partition("@")[0], "plugins.required"
    named = {
        "cache.chunks": settings.cache.chunks,
        "cache.ranges": settings.cache.ranges,
        "mount.frontend": settings.mount.frontend,
    }
    yield from ((name, key) for key, name in named.items() if name != AUTO)
