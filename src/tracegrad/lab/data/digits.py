"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels with values 0 to 16; needs no download."""

import torch
from sklearn.datasets import load_digits as sklearn_digits

from tracegrad.lab.data.dataset import Dataset, Split, pixel_statistics
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import first_images, stratified_pieces

TEST, VALIDATION = 360, 180  # of 1,797; the other 1,257 are the training part


def load_digits(options: DataOptions) -> Dataset:
    """The digits, split once and for all into 1,257 training, 180 validation and 360 test images.

    Pixels are kept as they are, integers from 0 to 16, and normalised by the training part's statistics.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    pixels, labels = sklearn_digits(return_X_y=True)
    digits = Split(
        torch.as_tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 8, 8), torch.as_tensor(labels, dtype=torch.int64)
    )
    test, validation, train = stratified_pieces(digits.labels, TEST, VALIDATION)
    training = digits.take(first_images(train, options.train_size, classes=10))
    mean, std = pixel_statistics(training)
    return Dataset(
        name=options.name,
        train=training,
        validation=digits.take(validation),
        read_test=lambda: digits.take(test),
        classes=tuple(str(digit) for digit in range(10)),
        mean=mean,
        std=std,
    )
