"""Share what frontends need: mount(2) and its relatives, and the common half of every mount that is served."""

from __future__ import annotations
