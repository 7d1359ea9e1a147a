import hypothesis
import torch

# The tensors of these tests are too small to be worth a second thread.
torch.set_num_threads(1)
# What an example computes is tested, not how long a busy machine takes for it.
hypothesis.settings.register_profile("tracegrad", deadline=None)
hypothesis.settings.load_profile("tracegrad")
