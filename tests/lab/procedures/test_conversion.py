"""`tracegrad convert`: a table and a picture of the spiking network at every T."""

import csv
import json
import shutil

import pytest

from tracegrad.cli import main
from tracegrad.lab.report.conversion import convert_run
from tracegrad.lab.runs.checkpoints import read_checkpoint, write_checkpoint


@pytest.fixture
def copy(study, tmp_path):
    """A run of the study to write to, by its method."""
    return lambda method: shutil.copytree(study / method / "seed-0", tmp_path / method / "seed-0")


def test_calibration_at_every_t(copy, capsys):
    run = copy("relu")
    assert main(["convert", str(run), "--by", "calibration", "--time-steps", "6"]) == 0
    shown = capsys.readouterr().out
    assert "calibration-light, 360 test images" in shown
    assert f"table and picture are in {run}/conversion-calibration-light" in shown
    folder = run / "conversion-calibration-light"
    rows = list(csv.reader((folder / "table.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["T", "1", "2", "4", "6", "source"]
    source = json.loads((run / "result.json").read_text())["test_accuracy"]
    assert float(rows[-1][1]) == pytest.approx(100 * source, abs=0.0051)
    for row in rows[1:-1]:
        assert float(row[2]) == pytest.approx(float(row[1]) - 100 * source, abs=0.011)
    spikes = [float(row[3]) for row in rows[1:-1]]
    assert spikes == sorted(spikes)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "figure.png" in (folder / "conversion.md").read_text()


def test_the_network_of_a_study_is_found_again(copy):
    for source, method, steps, name in (("qcfs", "qcfs", 4, "qcfs"), ("relu", "calibration", 16, "light")):
        folder = copy(source)
        conversion, _ = convert_run(folder, method, steps)
        result = json.loads((copy(name) if name != source else folder).joinpath("result.json").read_text())
        last = conversion.converted[-1]
        assert (last.time_steps, last.accuracy) == (steps, result["test_accuracy"])
        assert last.spikes_per_image == result["spikes_per_image"]
        assert conversion.source.accuracy == result["source_accuracy"]


@pytest.mark.parametrize(
    ("method", "by", "message"),
    [
        ("baseline", "qcfs", "is a run of kind 'direct', and conversion by qcfs needs one of kind 'qcfs'"),
        (
            "baseline",
            "calibration",
            "is a run of kind 'direct', and conversion by calibration needs one of kind 'relu'",
        ),
        ("qcfs", "calibration", "is a run of kind 'qcfs', and conversion by calibration needs one of kind 'relu'"),
        ("relu", "qcfs", "is a run of kind 'relu', and conversion by qcfs needs one of kind 'qcfs'"),
    ],
)
def test_a_run_without_the_right_source_is_refused(method, by, message, copy):
    with pytest.raises(ValueError, match=message) as error:
        convert_run(copy(method), by, 4)
    assert "\n" not in str(error.value)


def test_the_number_of_images_to_calibrate_on_is_a_choice(copy, capsys):
    run = copy("relu")
    assert main(["convert", str(run), "--by", "calibration", "--time-steps", "1", "--images", "10"]) == 0
    assert main(["convert", str(run), "--by", "calibration", "--time-steps", "1", "--images", "301"]) == 2
    assert "images must be from 1 to the 300 for training, not 301" in capsys.readouterr().err


def test_a_lambda_that_is_not_positive_is_refused(copy):
    run = copy("qcfs")
    path = run / "checkpoints/weights.ckpt"
    checkpoint = read_checkpoint(path)
    checkpoint["model"]["neuron.lam"].fill_(-1)
    write_checkpoint(path, checkpoint)
    with pytest.raises(ValueError, match="lam of QCFS must stay positive, but it is -1"):
        convert_run(run, "qcfs", 4)
