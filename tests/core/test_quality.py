"""The statements of plugins about their quality, and the tiers that follow from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from lazylayer.cli.quality import RULES, find_statement, read_statement, tier_of
from synthetic.distributions import install


def text_of(*, without: str = "", answer: str = '{todo = "later"}') -> str:
    lines = []
    for tier, rules in RULES.items():
        lines.append(f"[{tier}]")
        lines += [f"{rule} = {answer}" if rule == without else f'{rule} = "tests/test_it.py"' for rule in rules]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("without", "answer", "tier"),
    [
        ("", "", "gold"),
        ("fuzz", '{todo = "later"}', "silver"),
        ("fuzz", '{exempt = "it reads nothing"}', "gold"),
        ("threads", '{todo = "later"}', "bronze"),
        ("kit", '{todo = "later"}', ""),
        ("kit", '["a.py", "b.py"]', "gold"),
    ],
)
def test_tier(tmp_path: Path, without: str, answer: str, tier: str) -> None:
    file = tmp_path / "quality.toml"
    file.write_text(text_of(without=without, answer=answer))
    found = read_statement(file)
    assert found.tier == tier
    assert found.open_rules == ((without,) if "todo" in answer else ())


def test_missing_rule_is_not_met(tmp_path: Path) -> None:
    file = tmp_path / "quality.toml"
    file.write_text("\n".join(line for line in text_of().splitlines() if not line.startswith("redaction")))
    assert read_statement(file).tier == "bronze"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[platinum]\n", r"\[platinum\] is not a tier; the tiers are bronze, silver, gold"),
        ('[bronze]\nfuzz = "x"\n', "fuzz is not a rule of bronze"),
        ("[bronze]\nkit = 3\n", "kit: expected the path of a test"),
        ("[bronze]\nkit = {}\n", "kit: expected the path of a test"),
        ('[bronze]\nkit = ""\n', "kit: expected the path of a test"),
        ("not TOML", "Expected"),
    ],
)
def test_invalid_statement(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "quality.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_statement(file)


def test_is_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tst_quality"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_statement("tst_quality") is None
    (package / "quality.toml").write_text(text_of())
    assert find_statement("tst_quality") == package / "quality.toml"
    assert tier_of("tst_quality") == "gold"
    (package / "quality.toml").write_text("[bronze]\nkit = 3\n")
    assert tier_of("tst_quality") == ""
    assert tier_of("tst_no_such_package") == ""
    assert "tst_quality" not in sys.modules


def test_list_shows_the_tier(tmp_path: Path) -> None:
    site, commands = tmp_path / "site", {"lazylayer.commands": {"hello": "tst_gold.command:hello"}}
    install(site, "tst-gold", {"tst_gold": "tst_gold"}, groups=commands)
    (site / "tst_gold").mkdir()
    (site / "tst_gold" / "__init__.py").write_text(
        "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_close(): ...\n"
    )
    (site / "tst_gold" / "quality.toml").write_text(text_of())
    command_line = CommandLine(tmp_path)
    command_line.environment["PYTHONPATH"] = str(site)
    listed = json.loads(command_line.run("plugins", "list", "--json").stdout)
    assert [each["tier"] for each in listed["plugins"] if each["name"] == "tst_gold"] == ["gold"]
    (command,) = (each for each in listed["commands"] if each["name"] == "hello")
    assert (command["tier"], command["distribution"], command["target"]) == (
        "gold",
        "tst-gold",
        "tst_gold.command:hello",
    )
    lines = [line.split() for line in command_line.run("plugins", "list").stdout.decode().splitlines()]
    assert ["tst_gold", "ok", "gold", "tst-gold", "1.0", "close"] in lines
    assert ["hello", "gold", "tst-gold", "1.0"] in lines
