"""Read the run directory from the configuration, and nothing else: clients of a daemon need no more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lazylayer.configuration.files import find_files, read_files

__all__ = ["read_run_directory"]

_RUN_OF_ROOT = "/run/lazylayer"
"""As in `lazylayer.api.settings`, which takes longer to import than a daemon to ask."""


def read_run_directory(config: Path | None = None, overrides: Sequence[str] = ()) -> Path:
    """Return the directory that `run` names. All of the configuration is read only if its value needs that.

    Parameters and errors as in `lazylayer.configuration.loading.load_configuration`.
    """
    *_, run = _values(config, overrides)
    if isinstance(run, str) and run.startswith("/"):
        return Path(run)
    from lazylayer.configuration.loading import load_configuration

    return Path(load_configuration(config, overrides).settings.run)


def _values(config: Path | None, overrides: Sequence[str]) -> Iterator[object]:
    """Yield the values of `run`, weakest first."""
    yield _RUN_OF_ROOT if os.geteuid() == 0 else _run_of_others()
    yield from (setting.value for setting in read_files(find_files(config)) if setting.path == ("run",))
    for name, value in sorted(os.environ.items()):
        if name.startswith("LAZYLAYER_") and name.removeprefix("LAZYLAYER_").lower() == "run":
            yield _text(value)
    for key, _, value in (override.partition("=") for override in overrides):
        if key.strip() == "run":
            yield _text(value.strip())


def _text(value: str) -> str:
    """Return a text without its quotes, if it has any. Leaves what is not TOML to the full reading."""
    if value[:1] not in ("'", '"'):
        return value
    import tomllib

    try:
        return str(tomllib.loads(f"value = {value}")["value"])
    except tomllib.TOMLDecodeError:
        return value


def _run_of_others() -> str:
    from lazylayer.api.settings import default_run

    return default_run()
