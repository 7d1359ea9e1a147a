import csv
import io
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from tracegrad.lab.report.writing import write_study
from tracegrad.lab.runs.run import plan
from tracegrad.lab.studies.study import run_all


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    """A finished study: (its folder, what it showed)."""
    folder, console = tmp_path_factory.mktemp("runs") / "digits", Console(file=io.StringIO(), width=200)
    run_all(plan(tiny, folder), console)
    write_study(tiny, folder)
    return folder, console.file.getvalue()


def _read(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_a_line_per_run_where_there_is_no_terminal(study):
    lines = study[1].splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("baseline, seed 0: test ")
    assert lines[3].startswith("gradient-scale, seed 1: test ")
    assert "K spikes per image" in lines[0]


def test_the_table_has_the_papers_form_and_the_runs_numbers(study, tiny):
    folder, _ = study
    header, *rows = _read(folder / "table.csv")
    assert header[:5] == ["Methods", "Reset", "Accuracy (%) mean", "Accuracy (%) max", "Accuracy (%) std"]
    assert header[5:] == ["# spikes (K) mean", "# spikes (K) max", "# spikes (K) std"]
    assert [row[:2] for row in rows] == [["baseline", "soft"], ["gradient-scale", "soft"]]
    for row in rows:
        results = [run.read_result() for run in plan(tiny, folder) if run.name == row[0]]
        accuracy = [100 * result["test_accuracy"] for result in results]
        spikes = [result["spikes_per_image"] / 1000 for result in results]
        expected = [f(values) for values in (accuracy, spikes) for f in (statistics.mean, max, statistics.stdev)]
        assert [float(cell) for cell in row[2:]] == pytest.approx(expected, abs=0.0051)


def test_differences_are_paired_with_the_baseline(study, tiny):
    folder, _ = study
    header, row = _read(folder / "differences.csv")
    assert header[:4] == ["Difference", "Accuracy (points) mean", "Accuracy (points) low", "Accuracy (points) high"]
    results = [100 * run.read_result()["test_accuracy"] for run in plan(tiny, folder)]
    differences = [results[1] - results[0], results[3] - results[2]]
    margin = 12.7062 * statistics.stdev(differences) / 2**0.5  # t(0.975, 1 degree of freedom), from a printed table
    mean = statistics.mean(differences)
    assert row[0] == "gradient-scale - baseline"
    assert [float(cell) for cell in row[1:4]] == pytest.approx([mean, mean - margin, mean + margin], abs=0.0051)


def test_markdown_holds_both_tables_and_the_figures_are_there(study):
    folder, _ = study
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert "| Methods | Reset | Accuracy (%) mean |" in text
    assert "| gradient-scale - baseline |" in text
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "Test accuracy (%)" in (folder / "figure.svg").read_text(encoding="utf-8")


def test_run_again_a_study_does_what_is_missing_and_nothing_else(study, tiny):
    folder, _ = study
    tables = (folder / "table.md").read_text(encoding="utf-8")
    runs = plan(tiny, folder)
    stamps = [(run.folder / "result.json").stat().st_mtime_ns for run in runs]
    (runs[2].folder / "result.json").unlink()
    console = Console(file=io.StringIO(), width=200)
    run_all(plan(tiny, folder), console)
    write_study(tiny, folder)
    again = [(run.folder / "result.json").stat().st_mtime_ns for run in runs]
    assert [old == new for old, new in zip(stamps, again, strict=True)] == [True, True, False, True]
    assert console.file.getvalue().count("complete already") == 3
    assert (folder / "table.md").read_text(encoding="utf-8") == tables  # the same numbers when run again


def test_another_configuration_in_the_folder_stops_before_anything_is_trained(study, tiny):
    folder, _ = study
    other = replace(tiny, seeds=[5, 1], training=replace(tiny.training, epochs=1))
    with pytest.raises(ValueError, match=r"seed-1 holds a run with another training.epochs \(2 there, 1 here\)"):
        run_all(plan(other, folder), Console(file=io.StringIO()))
    assert not (folder / "baseline" / "seed-5").exists()


def test_a_method_that_does_not_fit_stops_before_anything_is_trained(tiny, tmp_path):
    bad = replace(tiny, model=replace(tiny.model, options={"blocks": [1], "depth": 3}))
    with pytest.raises(ValueError, match="unknown field model.options.depth"):
        run_all(plan(bad, tmp_path), Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_one_seed_or_no_baseline_have_no_interval_to_show(study, tiny):
    one = write_study(replace(tiny, seeds=[0]), study[0])
    assert one["results"].rows[0][4] == "–"
    assert one["differences"].rows[0][2:4] == ("–", "–")
    assert "differences" not in write_study(tiny.only("baseline", 0), study[0])
    write_study(tiny, study[0])
