"""The hooks as the core calls them: one typed method per hook, and errors that name the culprit.

Nobody else calls pluggy. What a plugin raises arrives here: a `LazylayerError` goes up as it is, and
anything else becomes a `PluginError` that names plugin, version and hook. Hooks for all plugins are
called one by one, so that a plugin that fails disturbs no other.

All methods may be called from any thread. No lock is held while a plugin runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import pluggy
from loguru import logger

from lazylayer.errors import (
    BuildError,
    FormatError,
    LazylayerError,
    MountError,
    PluginError,
    PluginRequiredError,
    ResolveError,
    SkipPlugin,
)
from lazylayer.plugin.records import distribution_hint

if TYPE_CHECKING:
    import click

    from lazylayer.api.building import BuildOptions, BuiltLayer, ImageStore
    from lazylayer.api.cache import Cache, CachePurpose
    from lazylayer.api.credentials import Credentials, Keychain
    from lazylayer.api.events import StateEvent
    from lazylayer.api.layers import FormatInfo, LayerContents, Locality, PrefetchPlan
    from lazylayer.api.mounting import (
        KernelMount,
        MountableTree,
        MountedTree,
        MountOptions,
        VirtualDirectory,
        VirtualFile,
    )
    from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
    from lazylayer.api.opened import CompanionImages, OpenedBlob, OpenedImage, OpenedLayer
    from lazylayer.api.sources import BlobSource
    from lazylayer.plugin.formats import Formats
    from lazylayer.plugin.records import PluginRecord

__all__ = ["Hooks"]


class Hooks:
    """What the registered plugins answer.

    :param manager: the plugins, as `lazylayer.plugins` registered them; `make_manager` there makes
        one for tests and for programs with plugins of their own.
    :param records: what is known of each plugin by name, for messages: versions, and why a plugin
        cannot be asked.
    """

    def __init__(self, manager: pluggy.PluginManager, records: Mapping[str, PluginRecord] | None = None) -> None:
        self._manager = manager
        self._records = {} if records is None else records
        self._reporters_that_failed: set[str] = set()
        self._formats: Formats | None = None

    # --- start-up ----------------------------------------------------------------------------------

    def add_commands(self, cli: click.Group) -> None:
        """Adds the plugins' commands to `cli`; a plugin that fails adds none and is logged.

        A name that is taken stays with who came first.
        """
        import click

        for plugin, call in self._one_by_one("lazylayer_add_commands"):
            its_own = click.Group(cli.name)
            try:
                call(cli=its_own)
            except Exception as error:  # noqa: BLE001 - it loses its commands and nothing else
                self._log_failure(plugin, "lazylayer_add_commands", error)
                continue
            for name, command in its_own.commands.items():
                if name in cli.commands:
                    logger.warning("plugin {plugin}: there is another command {name}", plugin=plugin, name=name)
                else:
                    cli.add_command(command, name)

    # --- finding images and their bytes ------------------------------------------------------------

    def resolve_image(
        self, reference: Reference, platform: Platform, *, on_behalf_of: Reference | None = None
    ) -> ResolvedImage:
        """The image that `reference` names; raises ResolveError if nobody knows its kind.

        Credentials are looked for as for the image `on_behalf_of`, if that is given.
        """
        keychain = self._keychain(on_behalf_of or reference)
        answer: ResolvedImage | None = self._first(
            "lazylayer_resolve_image", reference=reference, platform=platform, keychain=keychain
        )
        if answer is None:
            raise ResolveError(self._nobody_resolves(reference, "lazylayer_resolve_image"))
        return answer

    def resolve_blob(
        self, reference: Reference, descriptor: Descriptor, *, on_behalf_of: Reference | None = None
    ) -> BlobSource:
        """Where the bytes of a blob come from; `on_behalf_of` and errors as in `resolve_image`."""
        keychain = self._keychain(on_behalf_of or reference)
        answer: BlobSource | None = self._first(
            "lazylayer_resolve_blob", reference=reference, descriptor=descriptor, keychain=keychain
        )
        if answer is None:
            raise ResolveError(self._nobody_resolves(reference, "lazylayer_resolve_blob"))
        return answer

    def get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """How to authenticate to `host`, or None if no keychain knows it."""
        answer: Credentials | None = self._first("lazylayer_get_credentials", host=host, reference=reference)
        return answer

    def open_cache(self, kind: str, purpose: CachePurpose) -> Cache:
        """The cache that plugin `kind` opens; raises PluginRequiredError if nobody does."""
        answer: Cache | None = self._first("lazylayer_open_cache", kind=kind, purpose=purpose)
        if answer is None:
            message = f"cache.{purpose} names it, but {self._why_not(kind)} ({self._asked('lazylayer_open_cache')})"
            raise PluginRequiredError(message, plugin=kind, hook="lazylayer_open_cache")
        return answer

    # --- understanding layers ----------------------------------------------------------------------

    def open_layer(
        self, blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
    ) -> LayerContents:
        """The layer's tree and chunk map; raises FormatError if it is in nobody's format."""
        answer: LayerContents | None = self._first(
            "lazylayer_open_layer", blob=blob, descriptor=descriptor, verify=verify, companions=companions
        )
        if answer is None:
            raise FormatError(
                f"layer {descriptor.digest}: it is in no format that can be mounted lazily "
                f"({self._asked('lazylayer_open_layer')}); convert the image with `lazylayer convert`"
            )
        return answer

    def formats(self) -> Formats:
        """Return the formats of all plugins, asked once. A plugin that fails is logged and has none."""
        if self._formats is None:
            from lazylayer.plugin.formats import Formats

            described: list[tuple[str, FormatInfo]] = []
            for plugin, call in self._one_by_one("lazylayer_describe_format"):
                try:
                    info = call()
                except Exception as error:  # noqa: BLE001 - its layers are left to other formats
                    self._log_failure(plugin, "lazylayer_describe_format", error)
                else:
                    described += [(plugin, info)] if info is not None else []
            self._formats = Formats(described)
        return self._formats

    def layer_opened(self, layer: OpenedLayer) -> list[Locality]:
        """Tell every plugin of an opened layer; return what policies know of it. Never raises; failures are logged."""
        localities: list[Locality] = []
        for plugin, call in self._one_by_one("lazylayer_layer_opened"):
            try:
                locality: Locality | None = call(layer=layer)
            except Exception as error:  # noqa: BLE001 - the layer can be read all the same
                self._log_failure(plugin, "lazylayer_layer_opened", error)
                continue
            if locality is not None:
                localities.append(locality)
        return localities

    def plan_prefetch(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
        """Which bytes to fetch before first use, or None if no policy decides."""
        answer: PrefetchPlan | None = self._first("lazylayer_plan_prefetch", layer=layer, labels=labels)
        return answer

    # --- showing trees -----------------------------------------------------------------------------

    def prefetch_image(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        """Lets every policy fetch what it wants of an image. Never raises; what fails is logged."""
        for plugin, call in self._one_by_one("lazylayer_prefetch_image"):
            try:
                call(image=image, labels=labels)
            except Exception as error:  # noqa: BLE001 - the image can be used all the same
                self._log_failure(plugin, "lazylayer_prefetch_image", error)

    def probe_frontend(self, frontend: str) -> str:
        """An empty string if the frontend works here, else why not; also when it is not installed."""
        answer: str | None = self._first("lazylayer_probe_frontend", frontend=frontend)
        return self._why_not(frontend) if answer is None else answer

    def mount_tree(self, tree: MountableTree, mountpoint: str, options: MountOptions) -> MountedTree:
        """The mount that the wanted frontend made; raises MountError if it cannot be asked."""
        answer: MountedTree | None = self._first(
            "lazylayer_mount_tree", tree=tree, mountpoint=mountpoint, options=options
        )
        if answer is None:
            why = self._why_not(options.frontend)
            raise MountError(
                f"{mountpoint}: cannot mount with {options.frontend}: {why} ({self._asked('lazylayer_mount_tree')})"
            )
        return answer

    def remove_mount(self, mount: KernelMount) -> bool | None:
        """Takes away a mount whose process has died; None if it is nobody's. Raises MountError."""
        answer: bool | None = self._first("lazylayer_remove_mount", mount=mount)
        return answer

    def add_virtual_entries(self, layer: OpenedLayer) -> Mapping[bytes, VirtualDirectory]:
        """The hidden directories of a layer's root, from all plugins; files of one name: the first wins.

        A plugin that fails adds nothing and is logged.
        """
        from lazylayer.api.mounting import VirtualDirectory

        merged: dict[bytes, VirtualDirectory] = {}
        for plugin, call in self._one_by_one("lazylayer_add_virtual_entries"):
            try:
                answer: Mapping[bytes, VirtualDirectory] = call(layer=layer) or {}
                for name, directory in answer.items():
                    files: dict[bytes, VirtualFile] = dict(directory.files)
                    if name in merged:
                        files.update(merged[name].files)
                    mode = merged[name].mode if name in merged else directory.mode
                    merged[name] = VirtualDirectory(mode, files)
            except Exception as error:  # noqa: BLE001 - a layer is mounted without its hidden files
                self._log_failure(plugin, "lazylayer_add_virtual_entries", error)
        return merged

    def report_state(self, event: StateEvent) -> None:
        """Tells every plugin what happened. Never raises; a plugin that fails is logged once."""
        for plugin, call in self._one_by_one("lazylayer_report_state"):
            try:
                call(event=event)
            except Exception as error:  # noqa: BLE001 - a reporter cannot fail a mount
                if plugin not in self._reporters_that_failed:
                    self._reporters_that_failed.add(plugin)
                    self._log_failure(plugin, "lazylayer_report_state", error)

    # --- building images ---------------------------------------------------------------------------

    def build_layer(self, format: str, source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
        """Return the layer that the plugin of this format built; raise BuildError if no plugin builds it."""
        hook = "lazylayer_build_layer"
        plugin = self.formats().plugin(format)
        if plugin is None:
            known = ", ".join(self.formats().names) or "none"
            raise BuildError(f"unknown format {format!r}: no installed plugin describes it; formats here: {known}")
        build = dict(self._one_by_one(hook)).get(plugin)
        if build is None:
            raise BuildError(f"format {format!r}: the plugin {plugin} reads it and does not build it")
        try:
            built: BuiltLayer = build(format=format, source=source, destination=destination, build_options=options)
        except LazylayerError:
            raise
        except Exception as error:
            raise self._plugin_error(plugin, hook, _describe(error)) from error
        return built

    def open_store(self, reference: Reference) -> ImageStore:
        """Where an image can be written to; raises BuildError if nobody writes to such a place."""
        answer: ImageStore | None = self._first(
            "lazylayer_open_store", reference=reference, keychain=self._keychain(reference)
        )
        if answer is None:
            raise BuildError(self._nobody_resolves(reference, "lazylayer_open_store"))
        return answer

    # --- a daemon ----------------------------------------------------------------------------------

    def warm_up(self, frontend: str) -> None:
        """Lets every plugin get ready for mounts to come. Never raises; what fails is logged."""
        for plugin, call in self._one_by_one("lazylayer_warm_up"):
            try:
                call(frontend=frontend)
            except Exception as error:  # noqa: BLE001 - a mount will tell, if it matters
                self._log_failure(plugin, "lazylayer_warm_up", error)

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Tells every plugin to give back what it holds. Never raises; what fails is logged."""
        for plugin, call in self._one_by_one("lazylayer_close"):
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                self._log_failure(plugin, "lazylayer_close", error)

    # --- calling -----------------------------------------------------------------------------------

    def _first(self, hook: str, **arguments: object) -> Any:
        logger.trace("asking {hook}", hook=hook)
        caller = getattr(self._manager.hook, hook)
        try:
            return caller(**arguments)
        except LazylayerError:
            raise
        except Exception as error:
            raise self._blame(hook, caller.get_hookimpls(), error) from error

    def _one_by_one(self, hook: str) -> Iterator[tuple[str, Any]]:
        """Each implementation as (plugin, function of keyword arguments), first in the order first."""
        logger.trace("telling {hook}", hook=hook)
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            if implementation.wrapper or implementation.hookwrapper:
                continue
            yield implementation.plugin_name, _with_wanted_arguments(implementation)

    def _keychain(self, reference: Reference) -> Keychain:
        return lambda host: self.get_credentials(host, reference)

    # --- explaining --------------------------------------------------------------------------------

    def _blame(self, hook: str, implementations: list[pluggy.HookImpl], error: Exception) -> PluginError:
        plugin = _culprit(implementations, error)
        said = f"it cannot be used here: {error}" if isinstance(error, SkipPlugin) else _describe(error)
        return self._plugin_error(plugin, hook, said)

    def _log_failure(self, plugin: str, hook: str, error: Exception) -> None:
        said = str(error) if isinstance(error, LazylayerError) else _describe(error)
        logger.warning("{failure}", failure=str(self._plugin_error(plugin, hook, said)))
        logger.opt(exception=error).debug("plugin {plugin} failed here", plugin=plugin)

    def _plugin_error(self, plugin: str, hook: str, said: str) -> PluginError:
        record = self._records.get(plugin)
        distribution, version = (record.distribution, record.version) if record is not None else ("", "")
        return PluginError(said, plugin=plugin, distribution=distribution, version=version, hook=hook)

    def _asked(self, hook: str) -> str:
        implementations = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        names = [each.plugin_name for each in implementations if not each.wrapper and not each.hookwrapper]
        return f"asked: {', '.join(names)}" if names else f"no installed plugin has {hook}"

    def _why_not(self, plugin: str) -> str:
        """Why a plugin named in the configuration did not answer, and what to do."""
        record = self._records.get(plugin)
        if record is None:
            return f"it is not installed; {distribution_hint(plugin)}"
        return record.reason or "it does not answer to its name"

    def _nobody_resolves(self, reference: Reference, hook: str) -> str:
        kind = f"{reference.scheme}:…" if reference.scheme else "registry"
        unusable = [f"{each.name} ({each.reason})" for each in self._records.values() if each.reason]
        aside = f"; not usable: {', '.join(unusable)}" if unusable else ""
        return (
            f"{reference}: no plugin takes {kind} references ({self._asked(hook)}{aside}); "
            "check the reference, or install or enable the plugin for it"
        )


def _with_wanted_arguments(implementation: pluggy.HookImpl) -> Any:
    def call(**arguments: object) -> Any:
        return implementation.function(*[arguments[name] for name in implementation.argnames])

    return call


def _culprit(implementations: list[pluggy.HookImpl], error: Exception) -> str:
    """The plugin whose function the exception came through: pluggy does not say.

    Several, where they share the function, or where the exception came through none.
    """
    codes = [(each.plugin_name, getattr(inspect.unwrap(each.function), "__code__", None)) for each in implementations]
    suspects: list[str] = []
    trace = error.__traceback__
    while trace is not None and not suspects:
        suspects = [plugin for plugin, code in codes if code is trace.tb_frame.f_code]
        trace = trace.tb_next
    return " or ".join(suspects or [plugin for plugin, _ in codes])


def _describe(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
