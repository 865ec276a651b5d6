"""Rare branches of lazylayer, and how often each ran in a run of `make torture`.

A soak that never came to such a branch shows nothing about it, and fails. The engine has no hooks for this: where
`counting/sitecustomize.py` is loaded, the modules below are compiled with one more statement at each branch. Needs
nothing but the standard library, since it runs before everything else.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import NamedTuple

__all__ = ["BRANCHES", "Branch", "count_branches", "is_counting", "mark_branches"]


class Branch(NamedTuple):
    """A branch that a complete run of a campaign must come to."""

    name: str
    campaign: str
    module: str
    line: str
    """The beginning of the statement, or of the handler of an exception: no other one of the module begins so."""


_SOURCE = "lazylayer_resolver_registry.source"
BRANCHES = (
    Branch("a chunk fails verification", "faults", "lazylayer.fetching.fetcher", "except VerificationError as error:"),
    Branch(
        "a source ends too early",
        "faults",
        "lazylayer.fetching.blob",
        'raise UnavailableError(f"blob {self.digest}: the source ended',
    ),
    Branch("a source asks for one range at a time", "faults", _SOURCE, 'logger.info("{url}: requesting one range'),
    Branch("a read takes too long", "stalls", "lazylayer.fetching.fetcher", "raise self._too_slow(deadline)"),
    Branch(
        "a mount is taken over",
        "kills",
        "lazylayer_frontend_erofs.mount",
        'logger.info("the mount at {target} was taken',
    ),
    Branch(
        "what a killed process was writing is removed",
        "crashes",
        "lazylayer_newfiles",
        "remove_unless_used(entry.path)",
    ),
    Branch(
        "a damaged cached file is dropped",
        "stateful",
        "lazylayer_cache_dir.directory",
        'logger.debug("cache {root}: the file of',
    ),
    Branch(
        "a dead mount of another tree is removed",
        "stateful",
        "lazylayer_frontend_erofs.mount",
        'logger.warning("{target}: the mount there shows',
    ),
    Branch("a full disk gives room back", "syscalls", "lazylayer_cache_dir.directory", "self._yield_room()"),
)


def ran(name: str) -> None:
    """Count a branch, in the scratch directory of the campaign. Never raises."""
    directory = os.environ.get("TORTURE_SCRATCH")
    if not directory:
        return
    try:
        descriptor = os.open(f"{directory}/branches", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{name}\n".encode())
        finally:
            os.close(descriptor)
    except OSError:
        return  # the disk may be full on purpose


def mark_branches(source: str, branches: Sequence[Branch]) -> tuple[ast.Module, list[str]]:
    """Return a module with a call of `ran` at each branch, and the names of the branches that it has."""
    lines = source.splitlines()
    tree = ast.parse(source)
    found: list[str] = []
    for node in list(ast.walk(tree)):
        for body in (value for _, value in ast.iter_fields(node) if isinstance(value, list)):
            for each in list(body):
                if not isinstance(each, ast.stmt | ast.ExceptHandler):
                    continue
                for branch in branches:
                    if lines[each.lineno - 1].strip().startswith(branch.line):
                        found.append(branch.name)
                        place, at = (each.body, 0) if isinstance(each, ast.ExceptHandler) else (body, body.index(each))
                        place.insert(at, _call(branch.name, place[at]))
    return tree, found


def _call(name: str, before: ast.stmt) -> ast.stmt:
    (statement,) = ast.parse(f"__import__('torture.branches', fromlist=['ran']).ran({name!r})").body
    for each in ast.walk(statement):
        ast.copy_location(each, before)
    return statement


class _Finder(MetaPathFinder):
    """Finds the modules with rare branches, as the others do, and has them compiled with counters."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(branch.module == fullname for branch in BRANCHES):
            return None
        for other in sys.meta_path:
            spec = None if other is self else other.find_spec(fullname, path, target)
            if spec is not None and spec.origin:
                spec.loader = _Loader(fullname, spec.origin)
                return spec
        return None


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        tree, _ = mark_branches(source, [branch for branch in BRANCHES if branch.module == fullname])
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code


def count_branches() -> None:
    """Count the branches of modules that are imported from now on."""
    if not is_counting():
        sys.meta_path.insert(0, _Finder())


def is_counting() -> bool:
    """Return True if branches are counted in this process."""
    return any(type(each).__name__ == _Finder.__name__ for each in sys.meta_path)
