"""Which frontend shows the mounts of this program."""

from __future__ import annotations

from loguru import logger

from lazylayer.errors import LazylayerError, MountError
from lazylayer.hooks import Hooks
from lazylayer.settings import MountSettings

__all__ = ["choose_frontend"]


def choose_frontend(hooks: Hooks, settings: MountSettings) -> str:
    """The name of the frontend to mount with.

    A frontend named in the configuration is taken as it is; `auto` takes the first of
    `mount.prefer` that says it works here, and logs which and why. Raises MountError when none does,
    with the reason of each.
    """
    if settings.frontend != "auto":
        return settings.frontend
    reasons: list[str] = []
    for name in settings.prefer:
        try:
            reason = hooks.probe_frontend(name)
        except LazylayerError as error:
            reason = str(error)
        if not reason:
            passed_over = f" ({'; '.join(reasons)})" if reasons else ""
            logger.info("mounting with {name}{passed_over}", name=name, passed_over=passed_over)
            return name
        reasons.append(f"{name}: {reason}")
    raise MountError("no frontend works on this machine: " + "; ".join(reasons))
