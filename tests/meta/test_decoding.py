"""JSON from outside goes through `lazylayer.api.decoding`, so that no document is an unexpected exception."""

from __future__ import annotations

import ast
from pathlib import Path

from meta.repository import ROOT, modules

OWN = {
    "core/lazylayer/api/decoding.py": "the door itself",
    "core/lazylayer/cli/asking.py": "answers of our own daemon; must import little",
    "libs/tarlayers/lazylayer_tarlayers/tocdecoding.py": "decodes in pieces, and guards them as the door does",
    "plugins/frontend_erofs/lazylayer_frontend_erofs/descriptors.py": "answers of our own keeper",
    "plugins/frontend_erofs/lazylayer_frontend_erofs/keeper.py": "requests of our own user; must import little",
    "plugins/frontend_erofs/lazylayer_frontend_erofs/notes.py": "notes of our own, in a directory for its owner only",
    "plugins/snapshotter_containerd/lazylayer_snapshotter_containerd/filters.py": "one quoted string",
    "plugins/snapshotter_containerd/lazylayer_snapshotter_containerd/store.py": "rows of our own database",
    "plugins/tool_images/lazylayer_tool_images/profiles.py": "names that are not UTF-8, which msgspec rejects; guarded",
}
"""The modules that decode JSON themselves, and why they may."""


def decodes_json(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name in ("json.loads", "json.load", "msgspec.json.decode", "msgspec.json.Decoder"):
                return True
    return False


def test_json_from_outside_goes_through_one_door() -> None:
    shipped = [path.relative_to(ROOT) for path in modules()]
    found = {
        str(path)
        for path in shipped
        if path.parts[0] in ("core", "libs", "plugins") and path.parts[1] != "testing" and "tests" not in path.parts
        if decodes_json(ROOT / path)
    }
    assert found == set(OWN)
