"""The conformance kit, run on the plugin with layers whose zTOC stands beside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import pytest

from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor, Digest, MediaType, sha256_digest
from lazylayer.errors import FormatError, NotFoundError, VerificationError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuiltLayer
from lazylayer_format_soci import FormatSoci
from lazylayer_format_soci.annotations import ZTOC_DIGEST, ZTOC_SIZE
from lazylayer_testing.format import BuiltFormatLayer, FormatConformance, MakeLayer
from lazylayer_testing.format.building import BuildingChecks
from lazylayer_testing.synthetic import MemorySource, make_blob

from .ztocs import pack, ztoc_of


class Beside:
    """A repository that serves one zTOC, whatever it is asked for; what it serves is checked as by the core."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        raise NotFoundError(suffix)

    def read_manifest(self, digest: Digest) -> bytes:
        raise NotFoundError(digest)

    def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
        if sha256_digest(self._data) != descriptor.digest:
            raise VerificationError(f"{descriptor.digest} is damaged")
        return self._data


class TestFormat(FormatConformance):
    """The checks of every layer format."""

    ztocs: dict[str, bytes]

    @pytest.fixture
    def plugin(self) -> object:
        return FormatSoci()

    @pytest.fixture
    def make_layer(self, request: pytest.FixtureRequest) -> MakeLayer:
        if request.function.__name__ in {name for name, _ in inspect.getmembers(BuildingChecks, callable)}:
            pytest.skip("the plugin builds no layers")
        self.ztocs = {}

        def make(archive: bytes, name: str = "", chunk_size: int = 100_000, **_: object) -> BuiltFormatLayer:
            blob, ztoc = pack(archive, chunk_size), ztoc_of(archive, chunk_size)
            annotations = {ZTOC_DIGEST: sha256_digest(ztoc), ZTOC_SIZE: str(len(ztoc))}
            descriptor = Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(blob), len(blob), annotations)
            self.ztocs[descriptor.digest] = ztoc
            return BuiltFormatLayer(blob, BuiltLayer(descriptor, sha256_digest(archive)))

        return make

    @pytest.fixture
    def open_layer(self, plugin: object) -> Callable[..., LayerContents]:
        manager = make_manager()
        manager.register(plugin, "format_checked")
        hooks = Hooks(manager)

        def open_contents(
            blob: bytes, descriptor: Descriptor, verify: bool = True, source: MemorySource | None = None
        ) -> LayerContents:
            beside = Beside(getattr(self, "ztocs", {}).get(descriptor.digest, b""))
            return hooks.open_layer(make_blob(blob, source), descriptor, verify, beside)

        return open_contents

    def test_layer_without_a_promise_is_opened_only_unverified(
        self, make_layer: MakeLayer, open_layer: Callable[..., LayerContents], info: FormatInfo
    ) -> None:
        """Nothing else names the zTOC: without the annotation the layer is like any other."""
        layer = make_layer(bytes(1024))
        bare = Descriptor(layer.descriptor.media_type, layer.descriptor.digest, layer.descriptor.size)
        for verify in (True, False):
            with pytest.raises(FormatError, match="unsupported format"):
                open_layer(layer.blob, bare, verify)
        assert info.promises(layer.descriptor.annotations)
