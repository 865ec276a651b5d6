"""The short form of each campaign; `make torture` runs the complete ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from torture.__main__ import CAMPAIGNS
from torture.campaign import MIXED, Campaign, run_cases

SHORT = {"fuzz": 1700, "faults": 96, "kills": 6, "syscalls": 30}


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_short_form(campaign: type[Campaign]) -> None:
    if campaign.name != "fuzz" and (os.geteuid() != 0 or not Path("/dev/fuse").exists()):
        pytest.skip("needs root and /dev/fuse")
    if campaign.name == "syscalls" and shutil.which("strace") is None:
        pytest.skip("needs strace")
    result = run_cases(campaign, MIXED, 1, SHORT[campaign.name])
    assert [(each.command, each.problem) for each in result.failures] == []
    assert result.cases == SHORT[campaign.name]
