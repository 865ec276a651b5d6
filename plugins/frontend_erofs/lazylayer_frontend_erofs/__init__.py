"""Mounts with the kernel's own EROFS over one image file, which is served as it is read.

plugin      FrontendErofs: options, probe, mount
format      EROFS on disk: structures and constants
xattrs      extended attributes as EROFS has them
writer      a tree as the metadata of an image
metadata_cache  finished metadata on disk, for the next mount of a layer
image       the image as one file: metadata and the data of the tree's files
protocol    the FUSE kernel protocol for a file system of one file
server      answers the kernel's reads of that file
kernel      the two mounts: FUSE's, which stays hidden, and EROFS on it
serving     serve an image and mount it
mount       mount a tree: taken over, from a local image, or served
mounts      the mounts that were made, and those that a process left
keeping     mounts that outlive their process: notes and descriptors (notes, descriptors, keeper)
localimages whole images on disk, made by localizing
machine     what this machine lacks, without a trial
probe       what this machine lacks, by a trial mount
"""

from __future__ import annotations

from loguru import logger as _logger

from lazylayer_frontend_erofs.options import NAME, Options
from lazylayer_frontend_erofs.plugin import FrontendErofs

__all__ = ["NAME", "FrontendErofs", "Options"]

# A library is silent until a program asks to hear it.
_logger.disable(__name__)
