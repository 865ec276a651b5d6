"""The registry plugin as the core would use it, towards a scripted registry."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor, Platform, ResolvedImage, parse_reference
from lazylayer.api.settings import ResolveSettings, Settings
from lazylayer.api.sources import BlobSource
from lazylayer_resolver_registry import ResolverRegistry
from lazylayer_testing.configuring import configured
from lazylayer_testing.registry import ImageLayer, ScriptedRegistry

__all__ = ["PLATFORM", "REPOSITORY", "Client", "fetched"]

REPOSITORY = "tests/image"
PLATFORM = Platform("amd64", "linux")


class Client:
    """The plugin, configured for one registry, with credentials that a test may change."""

    def __init__(
        self, registry: ScriptedRegistry, resolver: Mapping[str, object] | None = None, **options: object
    ) -> None:
        self.registry = registry
        settings = Settings(resolve=ResolveSettings(plain_http=(registry.host,)))
        self.plugin = configured(
            ResolverRegistry(), "resolver_registry", options, settings, resolver=dict(resolver or {})
        )
        self.credentials: Credentials | None = None
        self.asked: list[str] = []
        self.data = random.Random(1).randbytes(300_000)
        self.layer = registry.content.add_blob(REPOSITORY, self.data)

    def keychain(self, host: str) -> Credentials | None:
        self.asked.append(host)
        return self.credentials

    def add_image(self, tag: str = "latest", layers: int = 1) -> None:
        contents = [ImageLayer(random.Random(number).randbytes(1000), diff_id="x") for number in range(layers)]
        self.registry.content.add_image(REPOSITORY, tag, contents)

    def image(self, name: str = "latest") -> ResolvedImage:
        reference = parse_reference(self.registry.reference(REPOSITORY, name))
        image = self.plugin.lazylayer_resolve_image(reference, PLATFORM, self.keychain)
        assert image is not None
        return image

    def source(self, descriptor: Descriptor | None = None) -> BlobSource:
        reference = parse_reference(self.registry.reference(REPOSITORY))
        source = self.plugin.lazylayer_resolve_blob(reference, descriptor or self.layer, self.keychain)
        assert source is not None
        return source

    def read(self, source: BlobSource, *ranges: tuple[int, int]) -> bool:
        """Return True if the ranges were read correctly, in order and without gaps."""
        return fetched(source, [ByteRange(*each) for each in ranges]) == [self.data[a:b] for a, b in ranges]


def fetched(source: BlobSource, ranges: Sequence[ByteRange]) -> list[bytes]:
    collected = [bytearray() for _ in ranges]
    number = 0
    for offset, piece in source.fetch(ranges):
        while offset >= ranges[number].end:
            number += 1
        assert offset == ranges[number].start + len(collected[number])
        collected[number] += piece
    return [bytes(each) for each in collected]
