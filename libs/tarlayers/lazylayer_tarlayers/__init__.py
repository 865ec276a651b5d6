"""Read and write tar archives, tables of contents and members: the base of stargz-like layer formats.

Read tar with `tarreader` and write headers with `tarwriter`; pack an archive with `packing`; read a table of
contents with `tocreading`, and make its tree with `treebuilder`; inflate members with `inflate`; read whole layers
with `plainlayer`; compare a layer's archive and table with `archivetree`.
"""

from __future__ import annotations
