"""Checks that the description of a format is true of the layers that it builds."""

from __future__ import annotations

import re

from lazylayer.api.layers import FormatInfo
from lazylayer_testing.format.archive import small_archive
from lazylayer_testing.format.layers import FormatFixtures, MakeLayer, OpenLayer

__all__ = ["DescriptionChecks"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class DescriptionChecks(FormatFixtures):
    """The checks of `lazylayer_describe_format`."""

    def test_description_is_the_same_each_time(self, plugin: object, info: FormatInfo) -> None:
        """Describing has no side effect."""
        assert plugin.lazylayer_describe_format() == info  # type: ignore[attr-defined]

    def test_names_are_words(self, info: FormatInfo) -> None:
        """A format has names that a command line can take, each once."""
        assert info.names
        assert len(set(info.names)) == len(info.names)
        assert [name for name in info.names if not _NAME.fullmatch(name)] == []

    def test_annotations_have_the_label(self, info: FormatInfo) -> None:
        """The label of the TOC digest is an annotation of the format, and so is every other promise."""
        assert {info.toc_digest_label, *info.other_promises} <= set(info.annotations)

    def test_hidden_files_lie_in_the_root(self, info: FormatInfo) -> None:
        """Hidden files are names, not paths."""
        assert [name for name in info.hidden_files if not name or b"/" in name] == []

    def test_layers_without_annotations_promise_nothing(self, info: FormatInfo) -> None:
        """A layer is not in the format only because it has annotations."""
        assert not info.promises({})
        assert not info.promises({"org.opencontainers.image.title": "layer.tar"})

    def test_built_layers_promise_what_they_hold(
        self, info: FormatInfo, make_layer: MakeLayer, open_layer: OpenLayer
    ) -> None:
        """A built layer has annotations of the format and no others, and its label has the TOC's digest."""
        layer = make_layer(small_archive())
        annotations = layer.descriptor.annotations
        assert set(annotations) <= set(info.annotations)
        assert info.promises(annotations)
        contents = open_layer(layer.blob, layer.descriptor)
        assert contents.format in info.names
        assert annotations[info.toc_digest_label] == contents.toc_digest
