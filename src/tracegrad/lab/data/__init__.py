"""Data sets in memory: their splits, normalisation, augmentation and replayable batches."""

from tracegrad.lab.data.batches import Batches, batch_dim
from tracegrad.lab.data.catalog import DATASETS, load, register_dataset
from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions

__all__ = ["DATASETS", "Batches", "DataOptions", "Dataset", "Split", "batch_dim", "load", "register_dataset"]
