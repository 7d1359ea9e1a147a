"""Generated bad input: one line and exit code 2, or it is taken; no traceback, no hang, no flood, no foreign process.

Each case runs in a fork of this process, in which everything is imported.
"""

import io
import os
import pickle
import resource
import signal
import struct
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.data.archives import write_fashion_mnist
from lab.data.test_folder import write_images
from tracegrad.cli import main
from tracegrad.core import compiled
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.reading import find_recipe
from tracegrad.lab.studies import study

SECONDS, MEMORY = 30, 1e9
QUICK, LONG = 25, 250  # cases of each of eight kinds
AMOUNTS = [pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
ACCEPTED = 130  # the input was taken, and training begins


def forked(action):
    """What an action returns, its error output and what else it did, from a fork that is stopped after ten seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        out, err = io.StringIO(), io.StringIO()
        found = {"code": None, "raised": "nothing came back"}
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with redirect_stdout(out), redirect_stderr(err):
                found = {"code": action(), "raised": None}
            memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            found |= {"memory": memory, "others": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}
        except BaseException as error:
            found = {"code": None, "raised": f"{type(error).__name__}: {error}"}
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump({**found, "err": err.getvalue()}, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), f"ended by signal {os.WTERMSIG(status)}"
    return pickle.loads(content)


def begins(*_):
    raise KeyboardInterrupt


def check(arguments, folder):
    """Checks how a command line ends."""

    def command():
        os.chdir(folder)
        study.train_run = begins  # what can be trained is none of the bad input
        compiled.WORTH_COMPILING = sys.maxsize  # a C++ compiler is no foreign process
        return main(arguments)

    found = forked(command)
    assert found["raised"] is None, found
    assert found["code"] in (0, 2, ACCEPTED), found
    assert found["code"] != 2 or (found["err"].count("\n") == 1 and len(found["err"]) < 2000), found
    assert found["memory"] < MEMORY, found
    assert found["others"] == 0, "it started another process"
    assert not list(folder.rglob(".*.tracegrad-*")), "a file is left half written"


def leaves(kind, where=""):
    for field in fields(kind):
        inner = get_type_hints(kind)[field.name]
        if is_dataclass(inner):
            yield from leaves(inner, f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}"


FIELDS = [*leaves(Recipe), *leaves(Method, "methods.gradient-scale."), "model.options.width", "model.options.blocks"]
WORDS = [
    *("train", "study", "evaluate", "convert", "report", "export", "recipes", "digits", "x", "--", "--=", "--output"),
    *(
        "--seed",
        "--show",
        "--part",
        "--time-steps",
        "--by",
        "--plan",
        "--help",
        "--no-wait",
        "--to",
        "--method",
        "--seeds",
    ),
]
SMALL = "--model.options={blocks: [1], width: 2}"
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 10**9, 2**31, 2**63]), st.floats(allow_nan=True)
)
VALUES = st.one_of(
    NUMBERS.map(str),
    st.sampled_from(
        ["", "null", "[]", "{}", ".nan", ".inf", "-.inf", "1e30", "yes", "[[1]]", "{a: 1}", "&a [*a]", "a:b"]
    ),
    st.lists(NUMBERS, max_size=4).map(str),
    st.text(max_size=30).filter(lambda text: "\x00" not in text),
)


@st.composite
def damaged(draw, content):
    """Bytes with a few of them changed, cut off, repeated or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["flip", "cut", "insert", "number", "remove"]))
        if what == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del data[place:]
        elif what == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif what == "number":
            number = draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1]))
            data[place : place + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        else:
            del data[place : place + draw(st.integers(1, 16))]
    return bytes(data)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def try_all(amount, strategy, attempt):
    """Tries cases of a strategy."""

    @settings(max_examples=amount, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(case):
        attempt(case)

    each()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_fields_of_recipes(amount, tmp_path):
    case = st.tuples(st.sampled_from(FIELDS), VALUES)
    try_all(amount, case, lambda case: check(["train", "digits", SMALL, f"--{case[0]}={case[1]}"], tmp_path))


@pytest.mark.parametrize("amount", AMOUNTS)
def test_command_lines(amount, tmp_path):
    words = st.sampled_from(WORDS)
    try_all(amount, st.lists(st.one_of(words, VALUES), max_size=6), lambda case: check(case, tmp_path))


@pytest.mark.parametrize("amount", AMOUNTS)
def test_yaml(amount, tmp_path):
    recipe = find_recipe("digits").read_text(encoding="utf-8").encode()

    def attempt(content):
        (tmp_path / "mine.yaml").write_bytes(content)
        check(["train", "mine.yaml", SMALL], tmp_path)

    try_all(amount, st.one_of(damaged(recipe), st.text(max_size=200).map(str.encode)), attempt)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_idx_files(amount, tmp_path):
    write_fashion_mnist(tmp_path / "data", suffix="")
    file = tmp_path / "data" / "train-images-idx3-ubyte"
    whole = file.read_bytes()

    def attempt(content):
        file.write_bytes(content)
        check(["train", "digits", "--data.name=fashion-mnist", f"--data.root={tmp_path / 'data'}", SMALL], tmp_path)

    try_all(amount, damaged(whole[:400]).map(lambda head: head + whole[400:]), attempt)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_images(amount, tmp_path):
    write_images(tmp_path / "data", {"a": 12, "b": 12})
    file = sorted((tmp_path / "data" / "a").iterdir())[0]
    whole = file.read_bytes()

    def attempt(content):
        file.write_bytes(content)
        check(["train", "digits", "--data.name=folder", f"--data.root={tmp_path / 'data'}", SMALL], tmp_path)

    try_all(amount, damaged(whole), attempt)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_checkpoints(amount, finished):
    file = finished / "checkpoints" / "weights.ckpt"
    whole = file.read_bytes()

    def attempt(content):
        file.write_bytes(content)
        check(["export", str(finished)], finished.parent)

    try_all(amount, damaged(whole), attempt)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_results(amount, finished):
    names = ("result.json", "metrics.csv", "relations.csv", "probe.npz", "test.npz", "config.yaml")
    whole = {name: (finished / name).read_bytes() for name in names}
    case = st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), damaged(whole[name])))

    def attempt(case):
        (finished / case[0]).write_bytes(case[1])
        try:
            check(["report", str(finished)], finished.parent)
        finally:
            (finished / case[0]).write_bytes(whole[case[0]])

    try_all(amount, case, attempt)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_nir_graphs(amount, tmp_path):
    pytest.importorskip("nir", reason="NIR graphs")
    from tracegrad.adapters.nir import from_nir, to_bytes, to_nir
    from tracegrad.snn.models import resnet
    from tracegrad.snn.neurons import LIF

    network = resnet(blocks=(1,), width=2, in_channels=1, neuron=lambda: LIF(reset="hard")).eval()
    whole = to_bytes(to_nir(network, torch.zeros(1, 1, 8, 8)))
    file = tmp_path / "network.nir"

    def read():
        with suppress(ValueError, OSError):
            from_nir(file)
        return 0

    def attempt(content):
        file.write_bytes(content)
        found = forked(read)
        assert found["raised"] is None, found
        assert found["memory"] < MEMORY, found

    try_all(amount, damaged(whole), attempt)
