"""The hooks as the core calls them: one typed method per hook.

Only this room calls pluggy. A `LazylayerError` that a plugin raises goes up unchanged; any other
exception becomes a `PluginError` that names plugin, version and hook. Hooks that reach all plugins
are called one by one, so that a failing plugin never affects the others.

All methods may be called from any thread. No lock is held while a plugin runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from lazylayer.errors import ConfigurationError, FormatError, MountError, PluginRequiredError, ResolveError
from lazylayer.plugin.calling import Calls

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api import mounting
    from lazylayer.api.cache import Cache, CachePurpose
    from lazylayer.api.credentials import Credentials, Keychain
    from lazylayer.api.events import StateEvent
    from lazylayer.api.layers import LayerContents, Locality, PrefetchPlan
    from lazylayer.api.oci import Descriptor, Digest, Platform, Reference, ResolvedImage
    from lazylayer.api.opened import CompanionImages, OpenedBlob, OpenedImage, OpenedLayer
    from lazylayer.api.sources import BlobSource
    from lazylayer.plugin.formats import Formats
    from lazylayer.plugin.records import PluginRecord

__all__ = ["AUTO", "Hooks", "NamedPlugin"]

AUTO = "auto"
"""The value of a setting that leaves the choice of a plugin to their preferences."""


class Hooks:
    """The hooks of all registered plugins.

    :param manager: the plugins. `lazylayer.plugin.registry.make_manager` makes a manager for tests, and
        for programs with plugins of their own.
    :param records: the state of each plugin by name.
    """

    def __init__(self, manager: pluggy.PluginManager, records: Mapping[str, PluginRecord] | None = None) -> None:
        self._records: Mapping[str, PluginRecord] = {} if records is None else records
        self._calls = Calls(manager, self._records)
        self._formats: Formats | None = None

    def of(self, plugin: str) -> NamedPlugin:
        """Return one plugin, to be asked by its name. Never raises: its methods do."""
        record = self._records.get(plugin)
        return NamedPlugin(plugin, self._calls, record.options if record is not None else None)

    def candidates(self, hook: str) -> list[str]:
        """Return the usable plugins with a hook that is asked by name, the most preferred first."""
        names = [each.plugin_name for each in self._calls.implementations(hook)]
        preferences = {name: self._records[name].preference for name in names if name in self._records}
        return sorted(names, key=lambda name: -preferences.get(name, 0))

    def choose_cache(self, wanted: str) -> NamedPlugin:
        """Return the cache plugin that a setting names, or for `auto` the preferred one.

        Raises ConfigurationError if there is none for `auto`.
        """
        hook = "lazylayer_open_cache"
        if wanted != AUTO:
            return self.of(wanted)
        for name in self.candidates(hook):
            return self.of(name)
        raise ConfigurationError(f"no cache plugin is usable; {self._calls.unusable() or self._calls.asked(hook)}")

    def first(self, hook: str, **arguments: object) -> Any:
        """Return the first answer to a hook, or None: for hooks that other distributions specify.

        Raises what a plugin raises if it is a LazylayerError, and PluginError for any other failure.
        """
        return self._calls.first(hook, **arguments)

    # --- start-up ----------------------------------------------------------------------------------

    def daemon_started(self, frontend: str) -> None:
        """Tell every plugin that a daemon serves now. Never raises; failures are logged."""
        self._tell("lazylayer_daemon_started", frontend=frontend)

    # --- finding images and their bytes ------------------------------------------------------------

    def resolve_image(
        self, reference: Reference, platform: Platform, *, on_behalf_of: Reference | None = None
    ) -> ResolvedImage:
        """Return the image that `reference` names; raises ResolveError if no plugin takes its kind.

        Credentials are looked up as for the image `on_behalf_of`, if that is given.
        """
        image: ResolvedImage = self._resolve("image", reference, on_behalf_of, platform=platform)
        return image

    def resolve_blob(
        self, reference: Reference, descriptor: Descriptor, *, on_behalf_of: Reference | None = None
    ) -> BlobSource:
        """Return the source of a blob's bytes; `on_behalf_of` and errors as in `resolve_image`."""
        source: BlobSource = self._resolve("blob", reference, on_behalf_of, descriptor=descriptor)
        return source

    def _resolve(self, what: str, reference: Reference, on_behalf_of: Reference | None, **wanted: object) -> Any:
        hook, keychain = f"lazylayer_resolve_{what}", self.keychain(on_behalf_of or reference)
        answer = self._calls.first(hook, reference=reference, keychain=keychain, **wanted)
        if answer is None:
            raise ResolveError(self.why_unanswered(reference, hook))
        return answer

    def get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """Return the credentials for `host`, or None if no keychain has any."""
        answer: Credentials | None = self._calls.first("lazylayer_get_credentials", host=host, reference=reference)
        return answer

    def keychain(self, reference: Reference) -> Keychain:
        """Return the function by which a plugin gets credentials for the image `reference`."""
        return lambda host: self.get_credentials(host, reference)

    def why_unanswered(self, reference: Reference, hook: str) -> str:
        """Return the message for a reference that no plugin with this hook takes."""
        kind = f"{reference.scheme}:…" if reference.scheme else "registry"
        unusable = self._calls.unusable()
        aside = f"; not usable: {unusable}" if unusable else ""
        return (
            f"{reference}: no plugin takes {kind} references ({self._calls.asked(hook)}{aside}); "
            "check the reference, or install or enable the plugin for it"
        )

    # --- understanding layers ----------------------------------------------------------------------

    def open_layer(
        self, blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
    ) -> LayerContents:
        """Return the layer's tree and chunk map; raises FormatError if no plugin knows its format."""
        hook = "lazylayer_open_layer"
        answer: LayerContents | None = self._calls.first(
            hook, blob=blob, descriptor=descriptor, verify=verify, companions=companions
        )
        if answer is None:
            raise FormatError(
                f"layer {descriptor.digest}: unsupported format ({self._calls.asked(hook)}); "
                "convert the image with `lazylayer convert`"
            )
        return answer

    def annotate_layers(
        self,
        manifest_digest: Digest | None,
        labels: Mapping[str, str],
        companions: CompanionImages,
        layers: Iterable[Descriptor],
    ) -> list[Descriptor]:
        """Return descriptors with the annotations that plugins add; of one name their own stays, then the first.

        Never raises; a plugin that fails is logged. Without `manifest_digest`, MANIFEST_DIGEST in `labels` tells it.
        """
        from msgspec.structs import replace

        from lazylayer.api.labels import MANIFEST_DIGEST

        hook, merged = "lazylayer_annotate_layers", {each.digest: dict(each.annotations) for each in layers}
        digest = manifest_digest or labels.get(MANIFEST_DIGEST)
        for _, found in self._calls.every(hook, manifest_digest=digest, labels=labels, companions=companions):
            for layer, added in (found or {}).items():
                if layer in merged:
                    merged[layer] = {**added, **merged[layer]}
        return [replace(each, annotations=merged[each.digest]) for each in layers]

    def formats(self) -> Formats:
        """Return the formats of all plugins, asked once. A plugin that fails is logged and has none."""
        if self._formats is None:
            from lazylayer.plugin.formats import Formats

            described = self._calls.every("lazylayer_describe_format")
            self._formats = Formats((plugin, info) for plugin, info in described if info is not None)
        return self._formats

    def layer_opened(self, layer: OpenedLayer) -> list[Locality]:
        """Tell every plugin of an opened layer; return what policies know of it. Never raises; failures are logged."""
        told = self._calls.every("lazylayer_layer_opened", layer=layer)
        return [locality for _, locality in told if locality is not None]

    def plan_prefetch(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
        """Return the bytes to fetch before first use, or None if no policy decides."""
        answer: PrefetchPlan | None = self._calls.first("lazylayer_plan_prefetch", layer=layer, labels=labels)
        return answer

    def prefetch_image(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        """Let every policy fetch files of an image. Never raises; failures are logged."""
        self._tell("lazylayer_prefetch_image", image=image, labels=labels)

    # --- showing trees -----------------------------------------------------------------------------

    def recognize_mount(self, mount: mounting.KernelMount) -> mounting.LeftMount | None:
        """Return the mount as the frontend that made it knows it; None if no frontend did."""
        answer: mounting.LeftMount | None = self._calls.first("lazylayer_recognize_mount", mount=mount)
        return answer

    def add_virtual_entries(self, layer: OpenedLayer) -> Mapping[bytes, mounting.VirtualDirectory]:
        """Return the hidden directories of a layer's root, from all plugins; of files of one name the first wins.

        A plugin that fails adds nothing and is logged.
        """
        from lazylayer.api.mounting import merge_directories

        hook = "lazylayer_add_virtual_entries"
        merged: dict[bytes, mounting.VirtualDirectory] = {}
        for plugin, answer in self._calls.every(hook, layer=layer):
            try:
                merged = merge_directories([merged, answer or {}])
            except Exception as error:  # noqa: BLE001 - a layer is mounted without its hidden files
                self._calls.log_failure(plugin, hook, error)
        return merged

    def report_state(self, event: StateEvent) -> None:
        """Tell every plugin what happened. Never raises; a plugin that fails is logged once."""
        self._tell("lazylayer_report_state", log_once=True, event=event)

    # --- the end -----------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Tell every plugin to fail what it waits for. Never raises; failures are logged."""
        self._tell("lazylayer_interrupt")

    def close(self) -> None:
        """Tell every plugin to release what it holds. Never raises; failures are logged."""
        self._tell("lazylayer_close")

    def _tell(self, hook: str, *, log_once: bool = False, **arguments: object) -> None:
        for _ in self._calls.every(hook, log_once=log_once, **arguments):
            pass


class NamedPlugin:
    """One plugin, asked by its name."""

    def __init__(self, name: str, calls: Calls, options: msgspec.Struct | None) -> None:
        self.name = name
        self._calls = calls
        self._options = options

    def why_not(self, hook: str) -> str:
        """Return why the plugin cannot be asked, and what to do; empty if it can."""
        return self._calls.why_not(self.name, hook)

    def ask(self, hook: str, **arguments: object) -> Any:
        """Return the plugin's answer to a hook that it has. Raises as `Hooks.first` does."""
        return self._calls.one(self.name, hook, **arguments)

    def open_cache(self, purpose: CachePurpose) -> Cache:
        """Open the plugin's cache; raises PluginRequiredError if it cannot be asked."""
        hook = "lazylayer_open_cache"
        reason = self.why_not(hook)
        if reason:
            raise PluginRequiredError(f"cache.{purpose} names it, but {reason}", plugin=self.name, hook=hook)
        answer: Cache = self.ask(hook, purpose=purpose, options=self._options)
        return answer

    def open_guarded_cache(self, purpose: CachePurpose) -> Cache:
        """Open the plugin's cache so that none of its failures is more than a miss. Raises as `open_cache` does."""
        from lazylayer.plugin.guardedcache import GuardedCache

        return GuardedCache(self.name, self.open_cache(purpose))

    def probe_frontend(self) -> mounting.Works | mounting.Missing:
        """Return whether the frontend works on this machine; Missing also if the plugin cannot be asked."""
        from lazylayer.api.mounting import Missing

        hook = "lazylayer_probe_frontend"
        reason = self.why_not(hook)
        if reason:
            return Missing(reason)
        answer: mounting.Works | mounting.Missing = self.ask(hook, options=self._options)
        return answer

    def mount_tree(
        self, tree: mounting.MountableTree, mountpoint: str, mount_options: mounting.MountOptions
    ) -> mounting.MountedTree:
        """Mount a tree with the frontend; raises MountError if it cannot be asked."""
        hook = "lazylayer_mount_tree"
        reason = self.why_not(hook)
        if reason:
            raise MountError(f"{mountpoint}: cannot mount with {self.name}: {reason}")
        answer: mounting.MountedTree = self.ask(
            hook, tree=tree, mountpoint=mountpoint, mount_options=mount_options, options=self._options
        )
        return answer
