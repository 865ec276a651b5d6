"""Read the statements of plugins about their quality: which rules of docs/plugin-quality.md they meet.

A plugin states it in the file `quality.toml` of its top-level package, with a table for each tier. The value of a
rule is the evidence that it is met, a test or a file, or several; `{todo = "…"}` if it is not met; or
`{exempt = "…"}`, with the reason, if it has no meaning for the plugin:

    [bronze]
    loads-alone = "tests/test_plugin.py"
    options = {exempt = "it has none"}

The file is found without importing the plugin.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

__all__ = ["RULES", "TIERS", "Answer", "Statement", "Tier", "find_statement", "read_statement", "tier_of"]

Tier = Literal["", "bronze", "silver", "gold"]

RULES: Mapping[Tier, tuple[str, ...]] = {
    "bronze": ("loads-alone", "options", "stable-imports", "kit", "readme"),
    "silver": ("failures-isolated", "time-outs", "redaction", "threads", "releases", "observable"),
    "gold": ("faults", "fuzz", "tested-examples", "bench"),
}
"""The rules of each tier, the lowest tier first."""

TIERS = tuple(RULES)


class Answer(msgspec.Struct, frozen=True):
    """The statement about one rule: evidence, or a reason why there is none."""

    evidence: tuple[str, ...] = ()
    exempt: str = ""
    todo: str = ""

    @property
    def is_met(self) -> bool:
        """True if the rule is met, or has no meaning for the plugin."""
        return not self.todo and bool(self.evidence or self.exempt)


class Statement(msgspec.Struct, frozen=True):
    """The statement of one plugin, by rule."""

    answers: Mapping[str, Answer]

    @property
    def tier(self) -> Tier:
        """Highest tier whose rules, and those of the tiers below it, are all met; empty if there is none."""
        reached: Tier = ""
        for tier, rules in RULES.items():
            if not all(self._is_met(rule) for rule in rules):
                break
            reached = tier
        return reached

    @property
    def open_rules(self) -> tuple[str, ...]:
        """Rules that are not met, the lowest tier first."""
        return tuple(rule for rules in RULES.values() for rule in rules if not self._is_met(rule))

    def _is_met(self, rule: str) -> bool:
        return rule in self.answers and self.answers[rule].is_met


def find_statement(package: str) -> Path | None:
    """Return the `quality.toml` of a top-level package, without importing it; None if it has none."""
    for finder in sys.meta_path:
        spec = finder.find_spec(package, None)
        if spec is not None:
            places = (Path(place) / "quality.toml" for place in spec.submodule_search_locations or ())
            return next((place for place in places if place.is_file()), None)
    return None


def tier_of(package: str) -> Tier:
    """Return the tier that a top-level package states; empty if it states none, or nothing valid."""
    path = find_statement(package)
    if path is None:
        return ""
    try:
        return read_statement(path).tier
    except (OSError, ValueError):
        return ""


def read_statement(path: Path) -> Statement:
    """Read a statement. Raises ValueError for one that is not valid, with unknown rules or tiers, say."""
    answers: dict[str, Answer] = {}
    for tier, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        rules = next((rules for each, rules in RULES.items() if each == tier), None)
        if rules is None or not isinstance(table, dict):
            raise ValueError(f"{path}: [{tier}] is not a tier; the tiers are {', '.join(TIERS)}")
        for rule, value in table.items():
            if rule not in rules:
                raise ValueError(f"{path}: {rule} is not a rule of {tier}; see docs/plugin-quality.md")
            answers[rule] = _read_answer(f"{path}: {rule}", value)
    return Statement(answers)


def _read_answer(where: str, value: object) -> Answer:
    if isinstance(value, dict) and len(value) == 1:
        answer = Answer(exempt=str(value.get("exempt", "")), todo=str(value.get("todo", "")))
    else:
        paths = value if isinstance(value, list) else [value]
        answer = Answer(evidence=tuple(each for each in paths if isinstance(each, str) and each))
    if answer == Answer():
        raise ValueError(f'{where}: expected the path of a test, or {{exempt = "…"}} or {{todo = "…"}}')
    return answer
