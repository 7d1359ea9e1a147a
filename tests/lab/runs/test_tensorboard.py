import pytest

from lab.same import rows
from lab.watching import Interrupt
from tracegrad.lab.runs.run import Run
from tracegrad.lab.runs.state import METRICS
from tracegrad.lab.studies.train_run import train_run


def test_tensorboard_shows_the_rows_of_the_log_once_each(tiny, digits, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run(tmp_path, tiny.only("baseline", 0))
    with pytest.raises(KeyboardInterrupt, match="1 of 2 epochs are saved"):
        train_run(run, digits, Interrupt(1, 3))
    train_run(run, digits)
    log = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert set(log.Tags()["scalars"]) == set(METRICS[1:])
    for name in ("train_loss", "validation_accuracy", "learning_rate"):
        shown = [(event.step, event.value) for event in log.Scalars(name)]
        assert shown == [(int(row["epoch"]), pytest.approx(float(row[name]))) for row in rows(tmp_path)]
