"""What a benchmark was run on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tracegrad.events.library import machine_instruction_set
from tracegrad_benchmark.competitors import PEERS

PROCESSORS = Path("/proc/cpuinfo")


def machine(device: str) -> dict[str, Any]:
    """Processor, its instruction set for event kernels, threads and versions; nothing that names the machine."""
    return {
        "processor": _processor(),
        "instruction set": machine_instruction_set(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            **{package: found for package in ("tracegrad", "torch", *PEERS) if (found := _version(package))},
        },
    }


def _processor() -> str:
    """The processor's model: platform.processor() names no more than its architecture on Linux."""
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
