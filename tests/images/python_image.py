"""An image that a container can run: this machine's own Python, out of Debian's files, in two layers.

The lower layer is the least of a Debian that starts `/usr/bin/python3`: the program, the libraries that
it and its extension modules load, and what `/etc` says of users and of the system. The upper layer
is the standard library. Everything is root's; the times are made up, the same each time.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from images.tree_writer import TreeWriter, write_tar

PYTHON = "/usr/bin/python3"
"""The program that the image can run."""

NUMPY = Path("/usr/lib/python3/dist-packages/numpy")
"""The directory in which Debian installs numpy."""

_ROOT = Path("/")
_DIRECTORIES = {"dev": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
_LEFT_OUT = {"__pycache__", "dist-packages", "site-packages", "test"}
_FILES = ("etc/group", "etc/nsswitch.conf", "etc/os-release", "etc/passwd")


def build_python_layers(directory: Path) -> list[Path]:
    """Write the two tar archives, lowest first, into a new directory. Needs root."""
    modules = sorted(_walk(_standard_library()))
    programs = [Path(PYTHON), *(module for module in modules if module.suffix == ".so")]
    files = [_ROOT / name for name in _FILES if (_ROOT / name).exists()]
    base = _build(directory / "debian", _DIRECTORIES, [*files, Path(PYTHON), *_shared_libraries(programs)])
    return [base, _build(directory / "library", {}, modules)]


def build_numpy_layer(directory: Path) -> Path:
    """Write the tar archive of a layer for on top of those: Debian's numpy, and the libraries that it loads.

    They are found through links that lead from directory to directory, by /etc/alternatives. Needs root and the
    package python3-numpy.
    """
    modules = [NUMPY, *sorted(_walk(NUMPY))]
    libraries = _shared_libraries(module for module in modules if module.suffix == ".so")
    return _build(directory / "numpy", {}, [*modules, *libraries])


def _standard_library() -> Path:
    script = "import os; print(os.path.dirname(os.__file__))"
    return Path(subprocess.run([PYTHON, "-Ic", script], check=True, capture_output=True, text=True).stdout.strip())


def _walk(directory: Path) -> Iterator[Path]:
    """Return the library's own entries, without those of other packages and those for tests and builds."""
    for path in directory.iterdir():
        if path.is_symlink() or not path.is_dir():
            yield path
        elif path.name not in _LEFT_OUT and not path.name.startswith("config-"):
            yield path
            yield from _walk(path)


def _shared_libraries(programs: Iterable[Path]) -> set[Path]:
    """Return the libraries that the dynamic linker would load for these, itself included, as it names them."""
    found = set()
    for program in programs:
        listing = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout
        words = listing.split()
        found |= {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}
    return found


def _build(root: Path, directories: dict[str, int], paths: Iterable[Path]) -> Path:
    """Pack these directories, and copies of these files with all that is needed to reach them."""
    names = {step for path in paths for step in _steps_to(path)}
    tree = TreeWriter(root)
    for name, mode in directories.items():
        tree.directory(name.encode(), mode=mode)
    for path in sorted(names):
        _copy(path, tree)
    tree.close()
    archive = root.with_suffix(".tar")
    write_tar(archive, tree.root, tree.names, "pax")
    return archive


def _copy(path: Path, tree: TreeWriter) -> None:
    name = bytes(path.relative_to(_ROOT))
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        tree.symlink(name, bytes(path.readlink()))
    elif stat.S_ISDIR(mode):
        tree.directory(name)
    else:
        tree.file(name, path.read_bytes(), mode=stat.S_IMODE(mode))


def _steps_to(path: Path) -> Iterator[Path]:
    """Return the path itself, its parent directories, the symbolic links on the way, and where those lead."""
    at = _ROOT
    for part in path.relative_to(_ROOT).parts:
        step = at / part
        yield step
        if step.is_symlink():
            yield from _steps_to(Path(os.path.normpath(at / step.readlink())))
        at = step.resolve()
