import csv
import shutil

import pytest

from tracegrad.cli import main


def test_a_run_is_diagnosed(finished, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert main(["diagnose", str(finished), "--batches", "2", "--batch-size", "16"]) == 0
    assert "positive, max, per_step" in capsys.readouterr().out
    folder = finished / "diagnosis"
    assert {path.name for path in folder.iterdir()} == {
        "diagnosis.md",
        "diagnosis.csv",
        "agreement.csv",
        "summary.csv",
        "diagnosis.png",
    }
    text = (folder / "diagnosis.md").read_text(encoding="utf-8")
    assert "| positive, max, per_step |" in text
    with (folder / "diagnosis.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["apply"] for row in rows} == {"outside", "event"}
    assert (folder / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_same_run_has_the_same_diagnosis(finished, capsys):
    found = []
    for _ in range(2):
        assert main(["diagnose", str(finished), "--batches", "1", "--batch-size", "8"]) == 0
        found.append((finished / "diagnosis/diagnosis.csv").read_bytes())
    assert found[0] == found[1]


def test_batches_of_one_image_are_refused(finished, capsys):
    assert main(["diagnose", str(finished), "--batches", "1", "--batch-size", "1"]) == 2
    assert "needs two at least" in capsys.readouterr().err


def test_several_runs_are_summarized_over_synapses_and_runs(trained, tmp_path, capsys):
    runs = [trained / "baseline" / f"seed-{seed}" for seed in (0, 1)]
    options = ["--batches", "1", "--batch-size", "8", "--output", str(tmp_path / "both")]
    assert main(["diagnose", *map(str, runs), *options]) == 0
    with (tmp_path / "both/diagnosis.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["synapse"] != "all"]
    assert {row["run"] for row in rows} == {"tiny, baseline, seed 0", "tiny, baseline, seed 1"}
    keys = ("apply", "relation", "normalize", "time", "alpha")
    with (tmp_path / "both/summary.csv").open() as file:
        for summary in csv.DictReader(file):
            same = [row for row in rows if all(row[key] == summary[key] for key in keys)]
            for number in ("angle", "reliability", "relation_counts", "change_rank_one"):
                values = [float(row[number]) for row in same if row[number]]
                expected = [sum(values) / len(values), min(values), max(values)] if values else []
                found = [float(summary[name]) for name in (number, f"{number}_min", f"{number}_max") if summary[name]]
                assert found == pytest.approx(expected, rel=1e-5)
    assert "positive, max, per_step" in capsys.readouterr().out


def test_the_summary_of_several_runs_is_in_the_folder_that_holds_them(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "baseline", tmp_path / "baseline")
    runs = [str(folder / f"seed-{seed}") for seed in (0, 1)]
    assert main(["diagnose", *runs, "--batches", "1", "--batch-size", "8"]) == 0
    assert (folder / "diagnosis/diagnosis.md").is_file()
