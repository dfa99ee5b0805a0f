"""Freed blocks stay with the process."""

import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, torch
from rlhf_lab.training.memory import keep_freed_blocks
assert not sys.argv[1:] or keep_freed_blocks()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
# Above 32 MiB glibc maps every block by itself; below, it adapts to what was freed and may keep blocks unasked.
def step(): return [torch.ones(12_000_000) for _ in range(4)]
for _ in range(4): step()
before = faults()
for _ in range(10): step()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_what_is_freed_is_not_asked_of_the_kernel_again() -> None:
    without, kept = (
        int(subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True).stdout)
        for words in ([], ["keep"])
    )
    assert without > 10 * 4 * 12_000_000 * 4 / 2**21, "at least one fault for every large page"
    assert kept < without / 4, "what is kept is laid out anew once or twice, then reused"
