import csv

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
        "diagnosis.png",
    }
    text = (folder / "diagnosis.md").read_text(encoding="utf-8")
    assert "turns the gradient by" in text
    assert "timing" in text
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
