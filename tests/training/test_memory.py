"""Freed blocks stay with the process."""

import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, torch
from rlhf_lab.training.memory import keep_freed_blocks
assert not sys.argv[1:] or keep_freed_blocks()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): return [torch.ones(4_000_000) for _ in range(8)]  # 128 MB in blocks that glibc would map one by one
step(); step()
before = faults()
for _ in range(5): step()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_what_is_freed_is_not_asked_of_the_kernel_again() -> None:
    without, kept = (
        int(subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True).stdout)
        for words in ([], ["keep"])
    )
    assert without > 5 * 8 * 4_000_000 * 4 / 2**21, "at least one fault for every large page"
    assert kept < without / 4
