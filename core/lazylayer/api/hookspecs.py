"""Every hook that a plugin may implement, in life-cycle order: the contract between core and plugins.

A plugin is a module with functions, or a class of which one instance is made, with methods, named after the
hooks below and marked with `lazylayer.hookimpl`. An entry point of the group `lazylayer.plugins` leads to
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

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from pluggy import HookspecMarker

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api import mounting
    from lazylayer.api.building import BuildOptions, BuiltLayer, ImageStore
    from lazylayer.api.cache import Cache, CachePurpose
    from lazylayer.api.credentials import Credentials, Keychain
    from lazylayer.api.events import StateEvent
    from lazylayer.api.layers import FormatInfo, LayerContents, Locality, PrefetchPlan
    from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
    from lazylayer.api.opened import CompanionImages, OpenedBlob, OpenedImage, OpenedLayer
    from lazylayer.api.settings import Settings
    from lazylayer.api.sources import BlobSource

hookspec = HookspecMarker("lazylayer")


@hookspec
def lazylayer_configure(settings: Settings, options: msgspec.Struct | None) -> None:
    """Take the settings and your options; called once, before every other hook.

    All plugins are called.

    :param settings: the core's settings. They hold no options of plugins.
    :param options: the table `[plugin.NAME]` as an instance of the `Options` that you declare: a frozen
        `msgspec.Struct` of this name in your class or its module. None if there is none.

    Example::

        @hookimpl
        def lazylayer_configure(self, settings, options):
            self.directory = options.directory or f"{settings.root}/mine"

    Threading and errors: called from the main thread. Raise `SkipPlugin(reason)` to be left out, and
    `ConfigurationError` for options that contradict each other. Open nothing yet.
    """


@hookspec
def lazylayer_daemon_started(frontend: str) -> None:
    """Start what only a daemon needs, and prepare for its first mount.

    All plugins are called, once, when the daemon already serves. Short-lived commands never call it.

    :param frontend: the frontend that the daemon mounts with; empty if none works here.

    Example::

        @hookimpl
        def lazylayer_daemon_started(self):
            self.client = heavy_library.connect()

    Threading and errors: called from the main thread; the daemon is ready when you return. An error is logged.
    """


@hookspec(firstresult=True)
def lazylayer_resolve_image(reference: Reference, platform: Platform, keychain: Keychain) -> ResolvedImage | None:
    """Find the manifest and config that `reference` names, for one platform.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image, as the user named it; its `scheme` is empty for a registry.
    :param platform: which manifest of an index to choose (`lazylayer.api.oci.choose_manifest`).
    :param keychain: `keychain(host)` returns credentials for a host, or None.
    :returns: the image; manifest and config were checked against their digests.

    Example::

        @hookimpl
        def lazylayer_resolve_image(reference, platform, keychain):
            return read_shelf(reference.repository, platform) if reference.scheme == "shelf" else None

    Threading and errors: raise NotFoundError, AuthenticationError, UnavailableError or FormatError.
    """


@hookspec(firstresult=True)
def lazylayer_resolve_blob(reference: Reference, descriptor: Descriptor, keychain: Keychain) -> BlobSource | None:
    """Give random access to the bytes of one blob of an image.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image that the blob belongs to.
    :param descriptor: the blob. If its `size` is 0, it is unknown, and the source finds it out.
    :param keychain: `keychain(host)` returns credentials for a host, or None. Keep it, to call it again later.
    :returns: the source, ready to `fetch`. The core closes it.

    Example::

        @hookimpl
        def lazylayer_resolve_blob(reference, descriptor, keychain):
            return ShelfBlob(reference.repository, descriptor) if reference.scheme == "shelf" else None

    Threading and errors: raise NotFoundError, AuthenticationError or UnavailableError.
    """


@hookspec(firstresult=True)
def lazylayer_get_credentials(host: str, reference: Reference) -> Credentials | None:
    """Say how to authenticate to a registry host.

    Stops at the first result that is not None; None means that you know nothing of this host. An error ends
    the search, so that no request is sent anonymously because a keychain was broken.

    :param host: the registry as in the reference, `name[:port]`, with `docker.io` for Docker Hub.
    :param reference: the image that it is about.
    :returns: credentials for exactly this host.

    Example::

        @hookimpl
        def lazylayer_get_credentials(host, reference):
            password = vault.get(host)
            return Credentials(username="robot", password=password, source="vault") if password else None

    Threading and errors: asked once per resolve, and again after a refusal; answer from fresh data. Log no secret.
    """


@hookspec
def lazylayer_open_cache(purpose: CachePurpose, options: msgspec.Struct | None) -> Cache:
    """Open your cache for one purpose.

    Only the plugin that the configuration names is called.

    :param purpose: `chunks` (verified, uncompressed) or `ranges` (compressed); keep them apart.
    :param options: your options, as in `lazylayer_configure`.
    :returns: a cache, shared by all layers. The core closes it.

    Example::

        @hookimpl
        def lazylayer_open_cache(purpose, options):
            return MyCache(purpose, options.max_bytes)

    Threading and errors: an error here ends the start-up. A cache never fails a read.
    """


@hookspec
def lazylayer_describe_format() -> FormatInfo | None:
    """Describe your layer format: its names, and the annotations by which its layers are recognized.

    All plugins are called, once per program, before the first layer is mounted, verified or built.

    :returns: the description, by which verify, convert, pull and mounts treat its layers like any other.

    Example::

        @hookimpl
        def lazylayer_describe_format():
            return FormatInfo(names=("mine",), annotations=(TOC, SIZE), toc_digest_label=TOC)

    Threading and errors: an error is logged, and the format is unknown.
    """


@hookspec(firstresult=True)
def lazylayer_open_layer(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
) -> LayerContents | None:
    """Read a layer's table of contents and verify it.

    Stops at the first result that is not None; None means that the layer is not in your format.

    :param blob: the layer's bytes. Read the tail once, large enough for most tables: each read may be a round trip.
    :param descriptor: the layer, with its annotations.
    :param verify: True if the table must have the digest that an annotation promises; no annotation is an error.
    :param companions: the images beside the layer's own, for what the layer keeps outside of it.
    :returns: the tree, the chunk map and how to inflate a member.

    Example::

        @hookimpl
        def lazylayer_open_layer(blob, descriptor, verify):
            footer = blob.read(blob.size - FOOTER_SIZE, FOOTER_SIZE)
            return read_contents(blob, footer, descriptor, verify) if footer.startswith(MAGIC) else None

    Threading and errors: raise FormatError or VerificationError for a bad layer. Bound every size first.
    """


@hookspec
def lazylayer_layer_opened(layer: OpenedLayer) -> Locality | None:
    """Hear of an opened layer, and return what you know of the files that are read together in it.

    All plugins are called, once for each opened layer, before its first read.

    :param layer: the layer. Keep a weak reference to it, if any: layers are closed, and opened again.
    :returns: an object that the layer's misses call until it is closed, or None.

    Example::

        @hookimpl
        def lazylayer_layer_opened(layer):
            return Fonts(layer)

    Threading and errors: a mount waits for you, so work when a miss calls, and not now. An error is logged.
    """


@hookspec(firstresult=True)
def lazylayer_plan_prefetch(layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
    """Say which bytes of a layer to fetch before its first use.

    Stops at the first result that is not None; None leaves the decision to the next policy.

    :param layer: the opened layer; `layer.contents` has its tree and its chunks, `layer.descriptor` its size.
    :param labels: the labels of the mount, which may carry wishes; empty for a mount by hand.
    :returns: the plan; one without ranges prefetches nothing.

    Example::

        @hookimpl
        def lazylayer_plan_prefetch(layer, labels):
            return PrefetchPlan((ByteRange(0, min(layer.descriptor.size, 1 << 20)),), "the first MiB")

    Threading and errors: called once per layer. An error is reported, and nothing is prefetched.
    """


@hookspec
def lazylayer_prefetch_image(image: OpenedImage, labels: Mapping[str, str]) -> None:
    """Fetch files of an image before its first use, as far as the image as a whole says which.

    All plugins are called, once while the image's layers are open.

    :param image: the image. Keep it, if you like: its files can be fetched as long as their layers are open.
    :param labels: the labels of the first mount; empty for a mount by hand.

    Example::

        @hookimpl
        def lazylayer_prefetch_image(image):
            image.fetch(filter(None, [image.find(b"/etc/os-release")]))

    Threading and errors: called from a thread of its own, for which no mount waits. An error is logged.
    """


@hookspec
def lazylayer_probe_frontend(options: msgspec.Struct | None) -> mounting.Works | mounting.Missing:
    """Say whether your frontend works on this machine.

    Only the named frontend is called, before `mount.frontend = "auto"` chooses it.

    :param options: your options, as in `lazylayer_configure`.
    :returns: `Works()`, or `Missing(reason, remedy)`.

    Example::

        @hookimpl
        def lazylayer_probe_frontend():
            return Works() if os.access("/dev/mine", os.W_OK) else Missing("no /dev/mine", "modprobe mine")

    Threading and errors: must not mount anything that stays, nor take longer than a second.
    """


@hookspec
def lazylayer_mount_tree(
    tree: mounting.MountableTree, mountpoint: str, mount_options: mounting.MountOptions, options: msgspec.Struct | None
) -> mounting.MountedTree:
    """Show a tree at a mountpoint, read-only.

    Only the chosen frontend is called.

    :param tree: what to show.
    :param mountpoint: an existing directory, as an absolute path.
    :param mount_options: how to mount: `[mount]` of the settings.
    :param options: your options, as in `lazylayer_configure`.
    :returns: the mount, which answers by the time it is returned.

    Example::

        @hookimpl
        def lazylayer_mount_tree(tree, mountpoint, mount_options):
            return MyMount(tree, mountpoint, mount_options.allow_other)

    Threading and errors: raise MountError. Serve from threads of your own: the caller goes on. Never fork.
    """


@hookspec(firstresult=True)
def lazylayer_recognize_mount(mount: mounting.KernelMount) -> mounting.LeftMount | None:
    """Recognize a mount that your frontend made in another process, or left in this one.

    Stops at the first result that is not None; None means that the mount is not yours.

    :param mount: the topmost mount of a mountpoint (`lazylayer.api.mounting.KernelMount`).
    :returns: an object that says whether the mount's process lives, and removes the mount.

    Example::

        @hookimpl
        def lazylayer_recognize_mount(mount):
            return MyLeftMount(mount) if mount.kind == "fuse.mine" else None

    Threading and errors: answer in two seconds, whether the mount's process is dead, stopped or busy:
    do not look into the mount. Recognize only what is provably yours: it may be removed by force.
    """


@hookspec
def lazylayer_add_virtual_entries(layer: OpenedLayer) -> Mapping[bytes, mounting.VirtualDirectory] | None:
    """Add hidden directories to the root of a layer's mount.

    All plugins are called, when a layer is opened; the answers are put together.

    :param layer: the layer; `layer.state()` says how much of it is here.
    :returns: directories by name, or None for none. They can be looked up, but are not listed.

    Example::

        @hookimpl
        def lazylayer_add_virtual_entries(layer):
            return {b".lazy": VirtualDirectory(0o555, {b"README": VirtualFile(0o444, lambda: b"lazy\\n")})}

    Threading and errors: `content` is called from any thread, each time the file is opened; keep it cheap.
    """


@hookspec
def lazylayer_report_state(event: StateEvent) -> None:
    """Hear what happened: mounted, fetched, failed, and so on.

    All plugins are called. One that fails is logged, and the others are still called.

    :param event: what happened (`lazylayer.api.events.StateEvent`).

    Example::

        @hookimpl
        def lazylayer_report_state(event):
            journal.write(event.kind, event.error)

    Threading and errors: a mount or a failed read waits: return soon. Never called for a read that went well.
    """


@hookspec
def lazylayer_build_layer(
    format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
) -> BuiltLayer:
    """Build a layer of your format from a plain tar archive.

    Only the plugin whose `lazylayer_describe_format` has the name `format` is called.

    :param format: a name of your format, as in `convert --format`.
    :param source: the plain tar archive, read once from start to end.
    :param destination: where the layer goes, written once from start to end.
    :param build_options: how to build it. The same archive and options give the same bytes.
    :returns: the layer's descriptor, with the annotations that its readers need, and its diff ID.

    Example::

        @hookimpl
        def lazylayer_build_layer(source, destination, build_options):
            return write_layer(source, destination, build_options)

    Threading and errors: raise BuildError, which names the entry that cannot be represented, or FormatError.
    """


@hookspec(firstresult=True)
def lazylayer_open_store(reference: Reference, keychain: Keychain) -> ImageStore | None:
    """Open the place that `reference` names for writing an image to it.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image to be written.
    :param keychain: `keychain(host)` returns credentials for a host, or None.
    :returns: the store. The core closes it.

    Example::

        @hookimpl
        def lazylayer_open_store(reference, keychain):
            return Shelf(reference.repository) if reference.scheme == "shelf" else None

    Threading and errors: raise BuildError or ResolveError.
    """


@hookspec
def lazylayer_interrupt() -> None:
    """Fail what you wait for on behalf of others, at once: the program is about to end.

    All plugins are called, once, before layers and caches are closed. Requests under way, and those that come
    later, raise UnavailableError. A plugin that only computes, or waits for milliseconds, does not need it.

    Example::

        @hookimpl
        def lazylayer_interrupt(self):
            self.connections.shut_down()

    Threading and errors: called from any thread, while others wait inside your hooks and objects: do not wait for
    them. An error is logged.
    """


@hookspec
def lazylayer_close() -> None:
    """Release what you hold: threads, sockets, files.

    All plugins are called, when the program closes.

    Example::

        @hookimpl
        def lazylayer_close(self):
            self.thread.stop()

    Threading and errors: called from the main thread, as the last hook. Return within seconds. An error is logged.
    """
