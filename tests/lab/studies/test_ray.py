"""Studies on Ray."""

import os
import sys
import time

import pytest

from lab.processes import start
from lab.same import assert_same_run
from tracegrad.cli import main

SMALL = ["--training.threads=1", "--data.train_size=100", "--model.options={blocks: [1], width: 2}"]


def start_study(folder, *options):
    words = "study", *options[:1], *SMALL, "--output", folder, *options[1:]
    return start(*words, PYTHONWARNINGS="ignore", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")


def assert_equal_to_serial(folder, *options):
    alone = folder.with_name("alone")
    assert main(["study", *options[:1], *SMALL, "--output", str(alone), *options[1:]]) == 0
    assert (alone / "differences.csv").read_text() == (folder / "differences.csv").read_text()
    for run in (file.parent for file in alone.glob("*/seed-*/metrics.csv")):  # a conversion has none
        assert_same_run(folder / run.relative_to(alone), run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_local_instance_equals_the_serial_study(tmp_path):
    pytest.importorskip("ray", reason="studies on Ray")
    options = ["comparison/digits", "--training.epochs=1", "--seeds=[0]"]
    (tmp_path / "mine.yaml").write_text(
        "extends: digits\nmethods: {baseline: , relu: {kind: relu}, light: {kind: calibration, source: relu,"
        " options: {images: 50}, changes: {model: {time_steps: 8}}}}\n"
    )
    options[0] = str(tmp_path / "mine.yaml")
    process = start_study(tmp_path / "shared", *options, "--ray")
    out, err = process.communicate(timeout=700)
    assert process.returncode == 0, out + err
    assert [line.partition(":")[0] for line in out.splitlines() if ": test " in line].count("light, seed 0") == 1
    assert_equal_to_serial(tmp_path / "shared", *options)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_a_machine_that_goes_is_replaced(tmp_path):
    pytest.importorskip("ray", reason="studies on Ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options = ["digits", "--training.epochs=6", "--seeds=[0,1,2,3,4,5]"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        process = start_study(tmp_path / "shared", *options, "--ray", cluster.address)
        while process.poll() is None and len(list((tmp_path / "shared").glob("*/seed-*/metrics.csv"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        out, err = process.communicate(timeout=700)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, out + err
    assert_equal_to_serial(tmp_path / "shared", *options)


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "digits", *SMALL, "--output", str(tmp_path), "--ray"]) == 2
    assert "--ray needs the package ray: pip install 'tracegrad[cluster]'" in capsys.readouterr().err
