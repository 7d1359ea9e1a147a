"""Where the kernels come from: compiled once, into a cache, or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tracegrad.events import library

PROGRAM = """
import torch
from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.window import Window
x = (torch.arange(640).reshape(1, 10, 8, 8) % 7 == 0).float()
print(convolve_spikes(x, torch.ones(4, 10, 3, 3), None, Window(padding=(1, 1))).sum().item())
"""


def run(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"XDG_CACHE_HOME": str(cache), "TRACEGRAD_INSTRUCTION_SET": "plain"} | environment
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=variables, check=True)
    assert float(found.stdout) == pytest.approx(OUTPUT)
    return found


OUTPUT = sum(
    4 * (min(y + 1, 7) - max(y - 1, 0) + 1) * (min(x + 1, 7) - max(x - 1, 0) + 1)
    for place in range(0, 640, 7)
    for y, x in [divmod(place % 64, 8)]
)
"""Each spike adds a one to each output that its position reaches."""


def test_compiled_once_with_one_line_and_nothing_left_behind(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first.stderr.count("\n") == 1
    assert "tracegrad: compiling its kernels for plain, once, to" in first.stderr
    assert second.stderr == ""
    made = list((tmp_path / "tracegrad").iterdir())
    assert [path.suffix for path in made if path.suffix != ".lock"] == [".so"]


@pytest.mark.slow
def test_processes_at_the_same_time_compile_once(tmp_path: Path) -> None:
    variables = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "TRACEGRAD_INSTRUCTION_SET": "plain"}
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", PROGRAM]
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=variables) for _ in range(3)
    ]
    errors = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert "".join(errors).count("compiling its kernels") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "compiling its kernels" in run(tmp_path).stderr


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "tracegrad").write_text("in the way")
    assert "compiling its kernels" in run(tmp_path).stderr


def test_without_a_compiler_the_dense_way_and_one_warning(tmp_path: Path) -> None:
    found = run(tmp_path, CXX="no-such-compiler")
    assert found.stderr.count("convolutions of spikes run the dense way") == 1
    assert "no-such-compiler" in found.stderr


def test_where_compiling_fails_the_dense_way_and_the_compilers_words(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'it broke' >&2\nexit 1\n")
    compiler.chmod(0o755)
    found = run(tmp_path, CXX=str(compiler))
    assert "it broke" in found.stderr
    assert "run the dense way" in found.stderr


def test_an_instruction_set_that_the_machine_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_INSTRUCTION_SET", "sve")
    library.machine_instruction_set.cache_clear()
    try:
        with pytest.raises(ValueError, match="TRACEGRAD_INSTRUCTION_SET is 'sve', but this machine has"):
            library.machine_instruction_set()
    finally:
        library.machine_instruction_set.cache_clear()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, "amx_bf16"),
        ("ALL", "amx_bf16"),
        ("default", "amx_bf16"),
        ("AVX512_CORE_AMX", "amx_bf16"),
        ("AVX512_CORE_BF16", "avx512_bf16"),
        ("AVX2", "avx512_bf16"),
    ],
)
def test_matrix_tiles_count_where_pytorch_may_use_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, expected: str
) -> None:
    """The instruction set names what the dense way has: it decides which way is faster."""
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : fpu {' '.join(library.INSTRUCTION_SETS['amx_bf16'][1])}\n")
    monkeypatch.setattr(library, "CPU_INFO", info)
    monkeypatch.delenv("TRACEGRAD_INSTRUCTION_SET", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    library.machine_instruction_set.cache_clear()
    try:
        assert library.machine_instruction_set() == expected
    finally:
        library.machine_instruction_set.cache_clear()
