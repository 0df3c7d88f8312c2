"""The allocator's thresholds, in processes of their own."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from scorepath.run.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

taken = keep_freed_memory() if sys.argv[1] == "keep" else None
before = resident()
for _ in range(3):
    block = torch.ones(2**26)  # 256 MiB
    del block
print(taken, resident() - before)
"""


def grown(option):
    """What the process holds after it has freed 256 MiB, in bytes, and what the function returned."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, option], capture_output=True, text=True, check=True)
    taken, size = done.stdout.split()
    return taken, int(size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_kept_where_the_c_library_is_glibc():
    taken, size = grown("keep")
    if taken == "False":
        pytest.skip("the C library is not glibc")
    assert size > 2**27
    _, size = grown("leave")
    assert size < 2**27
