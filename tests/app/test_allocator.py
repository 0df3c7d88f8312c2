"""The allocator's thresholds, in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from scorepath.run.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def grown():
    before = resident()
    for _ in range(3):
        block = torch.ones(2**26)  # 256 MiB
        del block
    return resident() - before

print(grown(), keep_freed_memory(), grown())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_kept_where_the_c_library_is_glibc():
    """What a process holds more after it has freed 256 MiB, in bytes, before it keeps them and from then on."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, taken, after = done.stdout.split()
    if taken == "False":
        pytest.skip("the C library is not glibc")
    assert int(before) < 2**27 < int(after)
