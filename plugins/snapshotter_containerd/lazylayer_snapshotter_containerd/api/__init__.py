"""The parts of containerd's gRPC API that we serve and use: messages, names of methods, and a channel.

Field numbers are those of the `.proto` files below `api/` in github.com/containerd/containerd; fields
that we neither read nor write are left out, and skipped when they arrive.
"""

from __future__ import annotations
