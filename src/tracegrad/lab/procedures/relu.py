"""The twin without spikes: the same network with rectified linear units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tracegrad.lab.data import Dataset
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import Model
from tracegrad.lab.runs.checkpoints import load_weights
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Fitted, Watch, fit
from tracegrad.methods.objectives import OBJECTIVES, mean_over_time


@dataclass(frozen=True)
class Relu(Procedure):
    """A network without spikes of the same topology and norms: the source of conversions, and what they can reach."""

    def check(self, run: Run, task: Task, source: Run | None) -> None:
        """Builds the twin."""
        check_mean_readout(run.setting)
        twin(run.setting.model, task)

    def fit(self, run: Run, dataset: Dataset, watch: Watch | None = None) -> Fitted:
        """Trains the twin as the spiking network is trained."""
        return fit(run, twin(run.setting.model, Task.of(dataset)), dataset, watch)

    def network(self, run: Run, weights: Mapping[str, Tensor], task: Task, time_steps: int | None = None) -> nn.Module:
        """The trained twin: it has one time step."""
        check_one_step(time_steps)
        return self.without_spikes(run, weights, task)

    def time_steps(self, run: Run) -> int:
        """One: nothing changes over time."""
        return 1

    def without_spikes(self, run: Run, weights: Mapping[str, Tensor], task: Task) -> nn.Module:
        """The trained twin itself: what a conversion starts from."""
        return trained_twin(run, weights, task)


def twin(options: Model, task: Task, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """The network of a recipe with activations instead of neurons, and one time step."""
    return build_model(replace(options, time_steps=1), task.classes, task.channels, activation)


def trained_twin(
    run: Run, weights: Mapping[str, Tensor], task: Task, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """The twin of a run's network with the weights of its the run, in evaluation mode.

    Raises:
        ValueError: the weights are those of another network.
    """
    network = twin(run.setting.model, task, activation)
    load_weights(network, weights, run.weights)
    return network.eval()


def check_one_step(time_steps: int | None) -> None:
    """Checks the T that a network without spikes is asked for.

    Raises:
        ValueError: it is something else than 1, or none.
    """
    if time_steps not in (None, 1):
        raise ValueError(f"a network of rectified linear units has one time step, not {time_steps}")


def check_mean_readout(setting: Recipe) -> None:
    """Checks that the scores are the outputs' mean over time: the only ones that a network without time has, too.

    Raises:
        ValueError: they are something else.
    """
    if OBJECTIVES[setting.objective].readout is not mean_over_time:
        raise ValueError(
            f"objective {setting.objective} reads more than the mean over time; networks without spikes, conversions "
            "and tandem learning need one that does not, such as mean_cross_entropy"
        )


SHARED = ("data.name", "data.train_size", "model.name", "model.options")


def check_source(run: Run, source: Run | None) -> Run:
    """Checks that the source of a run is the twin of its network.

    Returns:
        The source.

    Raises:
        ValueError: it is of another kind, or has another network or other data.
    """
    if source is None or source.method.kind != "relu":
        kind = "none" if source is None else f"{source.method.kind!r}"
        raise ValueError(f"the source of method {run.name!r} must be of kind 'relu', not {kind}")
    for field in SHARED:
        section, name = field.split(".")
        here, there = (getattr(getattr(each.setting, section), name) for each in (run, source))
        if here != there:
            raise ValueError(
                f"method {run.name!r} and its source {source.name!r} must have the same {field}, not {here} and {there}"
            )
    return source
