import pytest
from tracegrad_benchmark.workload import Workload


@pytest.fixture(scope="session")
def tiny():
    """A network of three blocks on images of 8 x 8 pixels."""
    return Workload(batch=2, width=8, image_size=8, time_steps=3, blocks=(1, 1, 1))
