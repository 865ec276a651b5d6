"""Look after a node: commands of `lazylayer` that neither a read nor a mount needs.

Begin reading in `commands/`, one module for each command. The package may import `lazylayer.api` and the faces of the
core's rooms.
"""

from __future__ import annotations
