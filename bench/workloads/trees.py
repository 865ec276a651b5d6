"""Measure reading a tree: walks, stat, extended attributes, whole files, random pages, applications."""

from __future__ import annotations

import shutil
import sys

from suite.bench import EXTRACTED, FUSE, Bench, Workload
from suite.treebench import Case, measure_tree, shell
from suite.trees import NODE_PACKAGES, debian_tree, node_modules_tree

__all__ = ["WORKLOADS"]

_RANDOM_READS = """
import os, random, sys, time
files = [os.path.join(directory, name) for directory, _, names in os.walk(".") for name in names]
largest = max((path for path in files if os.path.isfile(path) and not os.path.islink(path)), key=os.path.getsize)
pages = max(1, os.path.getsize(largest) // 4096)
descriptor = os.open(largest, os.O_RDONLY)
while os.read(descriptor, 1 << 20):
    pass
choose = random.Random(1)
offsets = [choose.randrange(pages) * 4096 for _ in range(int(sys.argv[1]))]
start = time.perf_counter()
for offset in offsets:
    os.pread(descriptor, 4096, offset)
print(time.perf_counter() - start)
"""

_WALK = ("find", ".", "-printf", r"%y %m %U %G %s %T@ %l %p\n")
_STAT = shell("find . -print0 | xargs -0 stat -c '%s %a %i' > /dev/null")
_ATTRIBUTES = ("getfattr", "--recursive", "--physical", "--no-dereference", "--dump", "--match=-", ".")
_READ = shell("find . -type f -print0 | xargs -0 cat > /dev/null")
_READ_FOUR = shell("find . -type f -print0 | xargs -0 -P4 -n100 cat > /dev/null")

_WALKS = (
    Case("walk, mounted afresh", _WALK, "mounted afresh"),
    Case("walk, entries dropped", _WALK, "entries dropped"),
    Case("walk, warm", _WALK),
)
_READS = (
    Case("read all, all dropped", _READ, "all dropped"),
    Case("read all, warm", _READ),
)

_IMPORT = ("chroot", ".", "/usr/bin/python3", "-B", "-c", "import numpy; assert numpy.ones(3).sum() == 3")
_REQUIRED = [name for name in NODE_PACKAGES if name != "lodash-es"]
_REQUIRE = ("node", "-e", f"for (const name of {_REQUIRED!r}) require(name)")


def _measure_reads(bench: Bench) -> None:
    tree = bench.options.tree
    if tree is None:
        tree = debian_tree(bench.options.work)
    random_reads = (sys.executable, "-S", "-c", _RANDOM_READS, "20000" if bench.options.quick else "200000")
    cases = [*_WALKS, Case("stat, warm", _STAT)]
    if shutil.which("getfattr"):
        cases.append(Case("extended attributes, warm", _ATTRIBUTES))
    else:
        bench.skip("extended attributes", "not installed: getfattr")
    cases += [*_READS, Case("read all, warm, 4 at once", _READ_FOUR)]
    cases.append(Case("random 4 KiB, warm", random_reads, own_clock=True))
    measure_tree(bench, tree, cases)


def _measure_python(bench: Bench) -> None:
    cases = [
        Case("import numpy, mounted afresh", _IMPORT, "mounted afresh"),
        Case("import numpy, all dropped", _IMPORT, "all dropped"),
        Case("import numpy, warm", _IMPORT),
    ]
    measure_tree(bench, debian_tree(bench.options.work), cases)


def _measure_node(bench: Bench) -> None:
    require = [Case("require, all dropped", _REQUIRE, "all dropped"), Case("require, warm", _REQUIRE)]
    measure_tree(bench, node_modules_tree(bench.options.work), [*_WALKS, *require, *_READS])


WORKLOADS = (
    Workload(
        name="tree",
        summary="walks, stat, attributes, whole and random reads of a Debian with Python, or of --tree",
        measure=_measure_reads,
        references=(EXTRACTED, FUSE),
    ),
    Workload(
        name="python",
        summary="`import numpy` inside that Debian",
        measure=_measure_python,
        needs=("root",),
        references=(EXTRACTED, FUSE),
    ),
    Workload(
        name="node-modules",
        summary="walk, require and read 24,000 files of npm packages",
        measure=_measure_node,
        needs=("npm",),
        references=(EXTRACTED, FUSE),
    ),
)
