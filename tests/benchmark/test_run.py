import csv
import io
import json

import pytest
import tracegrad_benchmark.competitors
from rich.console import Console
from tracegrad_benchmark.competitors import chosen, competitors
from tracegrad_benchmark.run import run_benchmark
from tracegrad_benchmark.sections import SECTIONS

ROUNDS = 6  # the fewest with an interval
TIMED = ["training", "large-batch", "inference", "growth"]


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A folder with every section that needs no process of its own, the tables, and what was printed."""
    folder = tmp_path_factory.mktemp("benchmark")
    shown = io.StringIO()
    return folder, run_benchmark(tiny, TIMED, None, ROUNDS, folder, Console(file=shown)), shown.getvalue()


def test_every_section_is_kept_with_all_its_times(measured):
    content = json.loads((measured[0] / "results.json").read_text())
    assert list(content["sections"]) == TIMED
    training = content["sections"]["training"]
    assert set(training["seconds"]) == {each.name for each in competitors()}
    assert all(len(seconds) == ROUNDS for seconds in training["seconds"].values())
    assert content["sections"]["large-batch"]["batch"] == 4 * training["batch"]
    growth = content["sections"]["growth"]["seconds"]
    assert {axis: list(one["tracegrad, per_step, bf16"]) for axis, one in growth.items()} == {
        "time_steps": ["1", "2", "4", "8"],
        "batch": ["1", "2", "4", "8"],
        "blocks": ["1", "2", "3", "4"],
        "width": ["2", "4", "8"],
    }


def test_the_machine_is_described_and_not_named(measured):
    text = (measured[0] / "results.json").read_text()
    machine = json.loads(text)["facts"]["machine"]
    assert machine["threads"] == 1
    assert {"python", "torch", "tracegrad", "spikingjelly", "snntorch", "norse"} == set(machine["versions"])
    assert str(measured[0]) not in text


def test_tables_show_times_ratios_and_exponents(measured):
    training, _, inference, growth = measured[1]
    assert training.title == "Training step, batch 2"
    assert inference.title == "Inference, batch 2"
    cells = {row[0]: row for row in training.rows}
    assert cells["tracegrad, bf16"][4] == "1.00 [1.00, 1.00]"
    assert cells["SpikingJelly, bf16"][5] == "1.00 [1.00, 1.00]"
    assert cells["convolutions alone, float32"][6] == "1.00 [1.00, 1.00]"
    assert "tracegrad, per_step, bf16" not in {row[0] for row in inference.rows}
    assert "tracegrad, dense, bf16" in {row[0] for row in inference.rows}
    assert 5 < float(cells["tracegrad, bf16"][1]) < 60, "the firing rate in percent"
    assert "tracegrad, bf16: T = 1, 2, 4, 8" in {row[0] for row in growth.rows}
    assert training.markdown() in (measured[0] / "table.md").read_text()


def test_csv_holds_the_numbers_of_the_table(measured):
    rows = list(csv.DictReader((measured[0] / "table.csv").read_text().splitlines()))
    row = next(row for row in rows if (row["section"], row["competitor"]) == ("training", "SpikingJelly, bf16"))
    assert float(row["seconds low"]) <= float(row["seconds"]) <= float(row["seconds high"])
    assert float(row["images per second"]) == pytest.approx(2 / float(row["seconds"]), rel=1e-4)
    assert float(row["time / SpikingJelly"]) == 1
    assert row["peak memory in bytes"] == ""


def test_figures_name_every_competitor(measured):
    svg = (measured[0] / "speed.svg").read_text()
    assert all(each.name in svg for each in competitors())
    assert "blocks per stage" in (measured[0] / "growth.svg").read_text()
    assert (measured[0] / "speed.png").stat().st_size > 10_000


def test_what_was_measured_before_an_interruption_is_kept(tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(SECTIONS, "training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(tiny, ["large-batch", "training"], None, 1, tmp_path, Console(file=io.StringIO()))
    assert list(json.loads((tmp_path / "results.json").read_text())["sections"]) == ["large-batch"]
    assert "Training step, batch 8" in (tmp_path / "table.md").read_text()
    shown = io.StringIO()
    run_benchmark(tiny, ["large-batch"], None, 1, tmp_path, Console(file=shown))
    assert "large-batch: measured already" in shown.getvalue()


def test_a_missing_library_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tracegrad_benchmark.competitors, "PEERS", ("nosuchlibrary",))
    shown = io.StringIO()
    run_benchmark(tiny, ["inference"], None, 1, tmp_path, Console(file=shown))
    assert shown.getvalue().startswith("nosuchlibrary is not installed and left out\n")
    assert "Not installed, so not measured: nosuchlibrary." in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("damage", ["", "[]", '{"facts": {}}', "{"])
def test_a_damaged_file_is_refused(damage, tiny, tmp_path):
    (tmp_path / "results.json").write_text(damage)
    with pytest.raises(ValueError, match="results.json is damaged .*; remove it, or give another --output"):
        run_benchmark(tiny, ["inference"], None, 1, tmp_path, Console(file=io.StringIO()))


def test_results_of_other_rounds_are_not_mixed(measured, tiny):
    with pytest.raises(ValueError, match="was measured with another rounds; remove it, or give another --output"):
        run_benchmark(tiny, ["inference"], None, ROUNDS + 1, measured[0], Console(file=io.StringIO()))


def test_competitors_are_chosen_by_patterns_of_their_names() -> None:
    names = [each.name for each in chosen(["tracegrad, bf16", "convolutions*"])]
    assert names == ["tracegrad, bf16", "convolutions alone, float32", "convolutions alone, bf16"]
    with pytest.raises(ValueError, match="no competitor is named 'Brian\\*'; known are: tracegrad, bf16; "):
        chosen(["Brian*"])
