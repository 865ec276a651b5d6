"""The façade to format plugins: descriptions are collected once, and building is asked of one plugin by name."""

from __future__ import annotations

import io
from typing import Any

import pytest
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import FormatInfo
from lazylayer.errors import BuildError, FormatError, PluginError
from lazylayer.plugin.hooks import Hooks
from lazylayer_building import BuildOptions
from lazylayer_tool_images.building import build_layer
from synthetic.hooks import any_of, hooks_of

ONE = FormatInfo(("one", "one-old"), ("org.one.toc", "org.one.size"), "org.one.toc")
TWO = FormatInfo(("two",), ("org.two.size",), "org.two.toc", ("org.two.checksum",))
LAYER = any_of("build_layer")


class Format:
    """A format plugin that builds nothing but tells what it was asked."""

    def __init__(self, info: FormatInfo | Exception, result: Any = LAYER) -> None:
        self.info = info
        self.result = result
        self.described = 0
        self.built: list[str] = []

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        self.described += 1
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    @hookimpl
    def lazylayer_build_layer(self, format: str, build_options: BuildOptions) -> Any:
        self.built.append(format)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class OnlyRead:
    """A format that cannot be built."""

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        return ONE


def build(hooks: Hooks, name: str) -> object:
    return build_layer(hooks, name, io.BytesIO(), io.BytesIO(), BuildOptions())


def test_layer_is_built_by_the_plugin_whose_format_has_the_name() -> None:
    one, two = Format(ONE), Format(TWO)
    hooks = hooks_of(one=one, two=two)
    assert build(hooks, "two") is LAYER
    assert build(hooks, "one-old") is LAYER
    assert (one.built, two.built) == (["one-old"], ["two"])


def test_unknown_format_names_those_that_are_there() -> None:
    with pytest.raises(BuildError, match=r"unknown format 'three'.*formats here: one, one-old, two"):
        build(hooks_of(one=Format(ONE), two=Format(TWO)), "three")
    with pytest.raises(BuildError, match="formats here: none"):
        build(hooks_of(), "one")


def test_format_that_is_only_read() -> None:
    with pytest.raises(BuildError, match="the plugin reader reads it and does not build it"):
        build(hooks_of(reader=OnlyRead()), "one")


@pytest.mark.parametrize(
    ("failure", "expected", "text"),
    [
        (OSError("disk is gone"), PluginError, "plugin one, lazylayer_build_layer: OSError: disk is gone"),
        (FormatError("the archive is cut"), FormatError, "the archive is cut"),
    ],
)
def test_failure_to_build_names_the_plugin(failure: Exception, expected: type[Exception], text: str) -> None:
    with pytest.raises(expected) as caught:
        build(hooks_of(one=Format(ONE, failure)), "one")
    assert str(caught.value) == text


def test_formats_are_asked_once() -> None:
    one = Format(ONE)
    hooks = hooks_of(one=one)
    for _ in range(3):
        assert list(hooks.formats()) == [ONE]
    assert one.described == 1


def test_broken_description_disturbs_no_other() -> None:
    lines: list[str] = []
    logger.enable("lazylayer")
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    try:
        assert list(hooks_of(bad=Format(ValueError("oops")), two=Format(TWO)).formats()) == [TWO]
    finally:
        logger.remove(sink)
        logger.disable("lazylayer")
    assert lines == ["plugin bad, lazylayer_describe_format: ValueError: oops\n"]


@pytest.mark.parametrize(
    ("annotations", "promised"),
    [
        ({}, False),
        ({"org.one.size": "5", "org.example": "x"}, False),
        ({"org.one.toc": ""}, False),
        ({"org.one.toc": "sha256:0"}, True),
        ({"org.two.checksum": "sha256:0"}, True),
    ],
)
def test_layers_are_known_by_what_they_promise(annotations: dict[str, str], promised: bool) -> None:
    formats = hooks_of(one=Format(ONE), two=Format(TWO)).formats()
    assert any(info.promises(annotations) for info in formats) is promised


def test_labels_and_annotations_are_those_of_the_formats() -> None:
    formats = hooks_of(one=Format(ONE), two=Format(TWO)).formats()
    labels = [formats.info(name).toc_digest_label for name in ("one-old", "two", "three")]
    assert labels == ["org.one.toc", "org.two.toc", TOC_DIGEST]
    assert formats.annotations == {"org.one.toc", "org.one.size", "org.two.toc", "org.two.size", "org.two.checksum"}


def test_first_of_two_formats_of_one_name_wins() -> None:
    first, second = Format(ONE), Format(ONE)
    assert build(hooks_of(first=first, second=second), "one") is LAYER
    assert (first.built, second.built) == (["one"], [])
