import hypothesis
import torch

from tracegrad.events.library import library, machine_instruction_set

# The tensors of these tests are too small to be worth a second thread.
torch.set_num_threads(1)
# What an example computes is tested, not how long a busy machine takes for it.
hypothesis.settings.register_profile("tracegrad", deadline=None)
hypothesis.settings.load_profile("tracegrad")
# Compiled once, before any test looks at what a process writes to stderr.
library(machine_instruction_set())
