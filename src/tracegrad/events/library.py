"""The kernels: `kernels.cpp`, compiled on first use by the machine's C++ compiler, and kept in the user's cache."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

SOURCE = Path(__file__).with_name("kernels.cpp")
CPU_INFO = Path("/proc/cpuinfo")
SECONDS = 120
"""How long another process's compilation is waited for; after that each compiles for itself."""

_AVX2 = ("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16")
_HAS_AVX2 = ("avx2", "fma", "bmi1", "bmi2")
_HAS_AVX512 = (*_HAS_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
INSTRUCTION_SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "amx_bf16": ((*_AVX2, *_AVX512), (*_HAS_AVX512, "amx_tile", "amx_bf16")),  # the dense way's: kernels don't use it
    "avx512_bf16": ((*_AVX2, *_AVX512), _HAS_AVX512),
    "avx2": (_AVX2, _HAS_AVX2),
    "plain": ((), ()),
}
"""Name -> what the compiler is told, and what Linux says of a processor that has it; the best first."""


@cache
def machine_instruction_set() -> str:
    """The best instruction set that this machine has; `TRACEGRAD_INSTRUCTION_SET` asks for another one.

    Matrix tiles (AMX) count only if `ONEDNN_MAX_CPU_ISA`, which PyTorch's convolutions obey, doesn't forbid them.

    Raises:
        ValueError: the environment names an unknown set, or one that this machine lacks.
    """
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    if not re.fullmatch("|ALL|DEFAULT|.*AMX.*", os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()):
        flags.discard("amx_bf16")
    available = [name for name, (_, needed) in INSTRUCTION_SETS.items() if flags.issuperset(needed)]
    asked = os.environ.get("TRACEGRAD_INSTRUCTION_SET", available[0])
    if asked not in available:
        raise ValueError(f"TRACEGRAD_INSTRUCTION_SET is {asked!r}, but this machine has {', '.join(available)}")
    return asked


def digest() -> str:
    """Of the kernels' source."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


@cache
def library(instruction_set: str) -> ctypes.CDLL | None:
    """The kernels for an instruction set; None, after one warning, where they can't be compiled."""
    torch.get_num_threads()  # PyTorch is loaded first, so that both have one OpenMP
    try:
        loaded = ctypes.CDLL(str(_compiled(instruction_set)))
    except (OSError, RuntimeError) as error:
        warnings.warn(f"convolutions of spikes run the dense way, several times slower: {error}", stacklevel=2)
        return None
    pointer, number, size, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
    loaded.tracegrad_pack.argtypes = [pointer, number, number, size, size, size, pointer, number]
    loaded.tracegrad_pack.restype = size
    loaded.tracegrad_unpack.argtypes = [pointer, number, size, size, pointer, number]
    loaded.tracegrad_unpack.restype = None
    loaded.tracegrad_convolve.argtypes = [pointer] * 4 + [number, number, pointer, pointer, number, number]
    loaded.tracegrad_correlate.argtypes = [pointer] * 3 + [number, pointer, pointer, real, pointer, real, number]
    return loaded


def _compiled(instruction_set: str) -> Path:
    compiler = _compiler()
    asked = [compiler, "--version"]
    version = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=SECONDS).stdout  # noqa: S603
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-fopenmp", *INSTRUCTION_SETS[instruction_set][0]]
    key = hashlib.sha256("\n".join([SOURCE.read_text(), version, *flags]).encode()).hexdigest()[:16]
    folder = _cache()
    path = folder / f"kernels-{instruction_set}-{key}.so"
    if path.exists():
        return path
    lock = FileLock(path.with_suffix(".lock"), timeout=SECONDS)
    try:
        with lock:
            if not path.exists():
                _compile([compiler, *flags, str(SOURCE)], path)
    except Timeout:
        _compile([compiler, *flags, str(SOURCE)], path)
    return path


def _compile(command: list[str], path: Path) -> None:
    print(f"tracegrad: compiling its kernels for {path.stem.split('-')[1]}, once, to {path}", file=sys.stderr)
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        run = subprocess.run([*command, "-o", made], capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
        if run.returncode:
            raise RuntimeError(f"{command[0]} failed: {run.stderr.strip()[-2000:]}")
        os.replace(made, path)  # noqa: PTH105 - in one step, over what another process may have made
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} took longer than {SECONDS} seconds") from error
    finally:
        Path(made).unlink(missing_ok=True)


def _compiler() -> str:
    named = os.environ.get("CXX")
    candidates = [named] if named else ["c++", "g++", "clang++"]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    raise RuntimeError(f"no C++ compiler was found, of {', '.join(candidates)}; CXX may name one")


@cache
def _cache() -> Path:
    """The user's cache, or a folder of this process's where that can't be written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - raises where there is none
    folder = Path(home) / "tracegrad"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        own = tempfile.TemporaryDirectory(prefix="tracegrad-")
        _TEMPORARY.append(own)
        return Path(own.name)


_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""
