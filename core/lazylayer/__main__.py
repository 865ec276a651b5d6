"""`python -m lazylayer` is `lazylayer`."""

from __future__ import annotations

from lazylayer.cli import main

if __name__ == "__main__":
    main()
