"""A complete run: its result, and its network with the best weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tracegrad.lab.build import build_model
from tracegrad.lab.checkpoints import BEST, load_weights, read_checkpoint, weights_of
from tracegrad.lab.runs import Run, read_run

NEEDED = ("test_accuracy", "spikes_per_image", "neurons_per_layer", "classes", "image_shape")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A complete run.

    Args:
        run: the run.
        result: content of its result.json.
        weights: of the best epoch by validation accuracy, as the network's `state_dict`.
    """

    run: Run
    result: dict[str, Any]
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Reads the folder of a run.

        Raises:
            ValueError: it holds no run, an interrupted one, or damaged files.
            OSError: the checkpoint is missing or cannot be read.
        """
        run = read_run(folder)
        if not run.complete:
            raise ValueError(f"{folder} holds an interrupted run; start it again to go on, then come back")
        result = run.read_result()
        for name in NEEDED:
            if name not in result:
                raise ValueError(f"{folder / 'result.json'} is damaged: it has no {name}; remove it and train again")
        return cls(run, result, weights_of(read_checkpoint(run.checkpoints / BEST)))

    def network(self, time_steps: int | None = None) -> nn.Module:
        """Builds the network with its trained weights, in evaluation mode.

        Args:
            time_steps: T for images; the trained one by default.

        Raises:
            ValueError: the weights are those of another network, or T is below 1.
        """
        options = self.run.recipe.model
        options = replace(options, time_steps=options.time_steps if time_steps is None else time_steps)
        network = build_model(options, len(self.result["classes"]), self.result["image_shape"][0])
        load_weights(network, self.weights, self.run.checkpoints / BEST)
        return network.eval()
