"""What a process that trains does with its memory."""

import platform
import subprocess
import sys

import pytest

KEPT = """
import re, sys, torch
from pathlib import Path
from tracegrad.lab.runs.memory import keep_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
tensor = torch.ones(50_000_000)
del tensor
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_kept_when_asked_for():
    kept, given_back = (
        float(subprocess.run([sys.executable, "-c", KEPT, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "give back")
    )
    assert given_back < 50, f"{given_back} MB stay after a tensor of 200 MB is freed"
    assert kept > 150, f"only {kept} of 200 MB are kept"
