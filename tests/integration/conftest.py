"""Leave the third parties' distributions to test_third_party_plugins.py, which installs them first."""

from __future__ import annotations

collect_ignore_glob = ["third_party_*/*"]
