import time

import pytest
from lightning.pytorch.callbacks import Callback

from lab.same import rows
from tracegrad.lab.callbacks import COLUMNS
from tracegrad.lab.runs import Run
from tracegrad.lab.training import train_run


def test_tensorboard_shows_the_rows_of_the_log_once_each(tiny, digits, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Interrupt(Callback):
        def on_train_epoch_end(self, trainer, pl_module):  # the second epoch is logged but not saved
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    run = Run(tmp_path, tiny.only("baseline", 0))
    with pytest.raises(KeyboardInterrupt, match="1 of 2 epochs are saved"):
        train_run(run, digits, [Interrupt()])
    time.sleep(1 - time.time() % 1)  # TensorBoard orders files by the second
    train_run(run, digits)
    log = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert set(log.Tags()["scalars"]) == set(COLUMNS[1:])
    for name in ("train_loss", "validation_accuracy", "learning_rate"):
        shown = [(event.step, event.value) for event in log.Scalars(name)]
        assert shown == [(int(row["epoch"]), pytest.approx(float(row[name]))) for row in rows(tmp_path)]
