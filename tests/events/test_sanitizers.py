"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in a program of their own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cases import AVAILABLE

from tracegrad.events.library import INSTRUCTION_SETS, SOURCE

DRIVER = Path(__file__).with_name("driver.cpp")
COMPILER = os.environ.get("CXX", "g++")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C++ compiler")
@pytest.mark.parametrize("instruction_set", AVAILABLE)
def test_sanitizers_find_nothing(instruction_set: str, tmp_path: Path) -> None:
    program = tmp_path / "driver"
    flags = ["-O1", "-g", "-std=c++17", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sets = INSTRUCTION_SETS[instruction_set][0]
    subprocess.run([COMPILER, *flags, *sets, f'-DKERNELS="{SOURCE}"', str(DRIVER), "-o", str(program)], check=True)
    # What the threads keep for their next calls is theirs until they end.
    run = subprocess.run(
        [str(program)], capture_output=True, text=True, env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    )
    assert (run.stdout, run.stderr, run.returncode) == ("clean\n", "", 0)
