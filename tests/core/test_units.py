"""Durations and sizes with units, in the settings and in the options of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec
import pytest

from lazylayer.api.units import Duration, PositiveSize, explain_value, parse_duration, parse_size, with_units
from lazylayer.cli import DURATION, SIZE
from lazylayer.configuration.loading import load_configuration
from lazylayer.errors import ConfigurationError
from lazylayer.plugin.options import read_options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("1m 30s", 90), ("1.5h", 5400), ("500ms", 0.5), ("2d", 172_800), ("250us", 0.00025)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1.5G", 1_500_000_000), ("512B", 512),
     ("10k", 10_000), ("2TiB", 2 << 40)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "30", "s", "1m30", "-5s", "1x", "30 seconds", "1e3s"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1 giga", "1iB", "20"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    timeout: Duration | None = None


class Options(msgspec.Struct, forbid_unknown_fields=True):
    max_bytes: PositiveSize = 1
    steps: list[Duration] = []
    inner: list[Inner] = []
    named: dict[str, Inner] = {}
    text: str = ""
    kind: Literal["a", "b"] = "a"
    level: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1


def test_units_count_wherever_a_type_has_some() -> None:
    table = {
        "max_bytes": "20GB",
        "steps": ["1s", 2],
        "inner": [{"timeout": "1m"}],
        "named": {"one": {"timeout": "1h"}},
        "text": "20GB",
    }
    assert msgspec.convert(with_units(table, Options), Options) == Options(
        20_000_000_000, [1.0, 2.0], [Inner(60.0)], {"one": Inner(3600.0)}, "20GB"
    )


def test_settings_and_options_take_the_same_words(tmp_path: Path) -> None:
    file = tmp_path / "lazylayer.toml"
    file.write_text('[fetch]\nstall_timeout = "1m30s"\nwindow_max = "16MiB"\n[plugin.mine]\nmax_bytes = "20GB"\n')
    configuration = load_configuration(file, ["prefetch.timeout=500ms"], {"LAZYLAYER_PREFETCH__SIZE": "1MB"})
    assert configuration.settings.fetch.stall_timeout == 90
    assert configuration.settings.fetch.window_max == 16 << 20
    assert configuration.settings.prefetch.timeout == 0.5
    assert configuration.settings.prefetch.size == 1_000_000
    assert read_options(configuration.plugin_tables, "mine", Options).max_bytes == 20_000_000_000


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"max_bytes": "lots"}, 'expected a size like "20GB" or "64MiB", or a number of bytes, at least 1'),
        ({"steps": 3}, "expected an array, […]"),
        ({"steps": ["soon"]}, 'expected a duration like "30s" or "1m30s", or a number of seconds, at least 0 (in it)'),
        (
            {"named": {"one": {"timeout": True}}},
            'expected a duration like "30s" or "1m30s", or a number of seconds, at least 0 (in it)',
        ),
        ({"kind": "c"}, 'expected one of "a", "b"'),
        ({"level": 10}, "expected a whole number, at least 1, at most 9"),
        ({"text": 1}, 'expected text in quotes, as in "text"'),
        ({"named": 1}, "expected a table"),
    ],
)
def test_messages_are_in_the_words_of_toml(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_options({"plugin": {"mine": table}}, "mine", Options)
    assert str(caught.value) == f"plugin.mine.{next(iter(table))}: {said}"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(SIZE, "64MiB", 64 << 20), (SIZE, "4096", 4096), (DURATION, "1m30s", 90.0), (DURATION, "2.5", 2.5)],
)
def test_options_of_commands_take_the_same_words(kind: click.ParamType, text: str, value: float) -> None:  # type: ignore[type-arg]
    assert kind.convert(text, None, None) == value
    with pytest.raises(click.BadParameter, match="is not a"):
        kind.convert("lots", None, None)


def test_an_unknown_type_keeps_the_reason() -> None:
    assert explain_value(None, "Expected `str | null`, got `array`") == "expected text, got an array, […]"
