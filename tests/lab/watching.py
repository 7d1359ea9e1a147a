"""Watchers of trainings."""


class Interrupt:
    """Ctrl-C at the first step after a number of epochs and further steps."""

    def __init__(self, epochs, steps=1):
        self.epochs, self.steps = epochs, steps

    def __call__(self, moment):
        if moment.batch is not None and (moment.state.epoch, moment.state.step) == (self.epochs, self.steps):
            raise KeyboardInterrupt


class Note:
    """Notes the weights at the start and the batches of the training."""

    def __init__(self):
        self.batches = []

    def __call__(self, moment):
        if moment.batch is None:
            self.weights = {name: value.clone() for name, value in moment.model.state_dict().items()}
        else:
            self.batches.append(moment.batch)
