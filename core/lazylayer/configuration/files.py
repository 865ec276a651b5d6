"""Find and read the files of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lazylayer.configuration.layers import Setting, leaves
from lazylayer.errors import ConfigurationError

__all__ = ["DEFAULT_FILE", "MAX_FILE_SIZE", "find_files", "read_files"]

DEFAULT_FILE = Path("/etc/lazylayer/lazylayer.toml")

MAX_FILE_SIZE = 4 * 1024 * 1024
"""Bytes. A larger file is not a configuration of ours."""


def find_files(config: Path | None) -> list[Path]:
    """Return the files to read, weakest first.

    :param config: the file that the user named; None for the default one, if it exists.

    Raises ConfigurationError if the named file does not exist.
    """
    main = DEFAULT_FILE if config is None else config.absolute()
    try:
        if config is not None and not main.is_file():
            raise ConfigurationError(f"{config}: no such file; --config names it")
        files = [main] if main.is_file() else []
        return files + sorted((main.parent / "conf.d").glob("*.toml"))
    except OSError as error:
        raise ConfigurationError(f"{main}: cannot be read: {error.strerror}") from error


def read_files(files: Iterable[Path]) -> Iterator[Setting]:
    """Yield every value that the files set. Raises ConfigurationError for a file that is not TOML."""
    for file in files:
        import tomllib  # a tenth of the start-up, and often no file exists

        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_FILE_SIZE + 1)
            if len(content) > MAX_FILE_SIZE:
                raise ConfigurationError(f"{file}: larger than {MAX_FILE_SIZE} bytes")
            table = tomllib.loads(content.decode())
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # bad UTF-8, or TOMLDecodeError, which names line and column
            raise ConfigurationError(f"{file}: not TOML: {error}") from error
        for path, value in leaves(table):
            yield Setting(path, value, str(file))
