"""Small tar archives, and eStargz layers of them, built by the plugin."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from lazylayer.plugin.hooks import Hooks
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import ImageLayer
from lazylayer_tool_images.building import build_layer

__all__ = ["build_estargz", "tar_of"]


def tar_of(files: Mapping[str, bytes], mtime: float = 0) -> bytes:
    """Return an archive of these files, in this order."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            members.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def build_estargz(hooks: Hooks, files: Mapping[str, bytes], options: BuildOptions) -> ImageLayer:
    """Return an eStargz layer of these files, with the annotations of its builder."""
    built = io.BytesIO()
    made = build_layer(hooks, "estargz", io.BytesIO(tar_of(files)), built, options)
    return ImageLayer(built.getvalue(), made.descriptor.media_type, made.descriptor.annotations, made.diff_id)
