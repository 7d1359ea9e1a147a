"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels with values 0 to 16; needs no download."""

import torch
from sklearn.datasets import load_digits as sklearn_digits

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import split_dataset


def load_digits(options: DataOptions) -> Dataset:
    """The digits, split once and for all into 1,257 training, 180 validation and 360 test images.

    Pixels are kept as they are, integers from 0 to 16, and normalised by the training part's statistics.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    pixels, labels = sklearn_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 8, 8)
    digits = Split(images, torch.as_tensor(labels, dtype=torch.int64))
    return split_dataset(options, digits.labels, digits.take, "0123456789", test=360, validation=180)
