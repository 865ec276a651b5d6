"""Read and write zTOCs: the indexes by which ordinary gzip and tar layers are read lazily.

Begin reading in `model`.
"""

from __future__ import annotations
