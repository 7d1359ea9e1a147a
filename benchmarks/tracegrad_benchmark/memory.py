"""Peak memory of a training step, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tracegrad_benchmark.competitors import competitors
from tracegrad_benchmark.workload import Competitor, Workload

STATUS = Path("/proc/self/status")
STEPS = 3


def can_measure(device: str) -> bool:
    """Whether the peak of a process can be read here: on GPUs and on Linux."""
    return device == "cuda" or STATUS.exists()


def peak_memory(competitor: Competitor, workload: Workload) -> int:
    """Bytes that training takes at its peak above a process that only built the competitor.

    The lower of two fresh processes: the first may have had to compile what the second finds compiled.

    Raises:
        RuntimeError: a process failed.
    """
    return min(_in_a_process(competitor, workload) for _ in range(2))


def _in_a_process(competitor: Competitor, workload: Workload) -> int:
    command = [sys.executable, "-m", __name__, competitor.name, json.dumps(asdict(workload))]
    found_here = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": found_here}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"the memory of {competitor.name} could not be measured: {reason}")
    return int(done.stdout)


def measure(competitor: Competitor, workload: Workload) -> int:
    """As `peak_memory`, in this process, which must be fresh."""
    work = competitor.build(workload)
    built = _resident("VmRSS") if workload.device == "cpu" else torch.cuda.memory_allocated()
    for _ in range(STEPS):
        work.step()
    peak = _resident("VmHWM") if workload.device == "cpu" else torch.cuda.max_memory_allocated()
    return peak - built


def _resident(field: str) -> int:
    """Bytes of memory of this process: "VmRSS" now, "VmHWM" at its peak."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {field}")


if __name__ == "__main__":
    name, options = sys.argv[1], json.loads(sys.argv[2])
    options["blocks"] = tuple(options["blocks"])
    found = next(competitor for competitor in competitors() if competitor.name == name)
    sys.stdout.write(f"{measure(found, Workload(**options))}\n")
