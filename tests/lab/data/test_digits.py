from itertools import chain

import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from tracegrad.lab.data import DataOptions, load


def rows(split):
    return sorted(map(tuple, torch.cat([split.images.flatten(1).long(), split.labels[:, None]], dim=1).tolist()))


def test_the_parts_are_disjoint_and_complete():
    digits = load(DataOptions(name="digits"))
    parts = [digits.train, digits.validation, digits.test]
    assert [len(part) for part in parts] == [1257, 180, 360]
    pixels, labels = sklearn_digits(return_X_y=True)
    everything = sorted((*map(int, row), int(label)) for row, label in zip(pixels, labels, strict=True))
    assert sorted(chain.from_iterable(map(rows, parts))) == everything


def test_every_part_holds_each_digit_in_its_share():
    digits = load(DataOptions())
    for part in (digits.train, digits.validation, digits.test):
        counts = part.labels.bincount() / len(part)
        assert counts.min() > 0.085
        assert counts.max() < 0.115


def test_the_training_part_has_mean_0_and_variance_1_once_normalised():
    digits = load(DataOptions())
    pixels = (digits.train.images.double() - digits.mean[0]) / digits.std[0]
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-9)
    assert float(pixels.var(correction=0)) == pytest.approx(1)
    assert (digits.channels, digits.image_size, len(digits.classes)) == (1, (8, 8), 10)


def test_a_subset_leaves_the_other_parts_as_they_are():
    whole, part = load(DataOptions()), load(DataOptions(train_size=100))
    assert len(part.train) == 100
    assert torch.equal(part.train.images, whole.train.images[:100])
    assert torch.equal(part.validation.images, whole.validation.images)
    assert torch.equal(part.test.images, whole.test.images)


@pytest.mark.parametrize("size", [9, 1258])
def test_a_subset_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match=f"^train_size is {size}; it must be from 10 .* to 1257 "):
        load(DataOptions(train_size=size))
