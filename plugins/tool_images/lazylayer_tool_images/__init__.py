"""Convert, verify and compare images, and record what a workload reads: commands of `lazylayer`.

Begin reading in `conversion`, at `Conversion`, or in `verification`. The package may import `lazylayer.api`, the
faces of the core's rooms, and `lazylayer_tarlayers`.
"""

from __future__ import annotations
