import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegrad.lab.data.splits import first_images, stratified_order, stratified_pieces

label_lists = st.lists(st.integers(0, 5), min_size=20, max_size=200).map(torch.tensor)


@settings(deadline=None)
@given(label_lists, st.integers(1, 9), st.integers(1, 9))
def test_pieces_are_disjoint_complete_and_stratified(labels, first, second):
    pieces = stratified_pieces(labels, first, second)
    assert [len(piece) for piece in pieces] == [first, second, len(labels) - first - second]
    assert torch.cat(pieces).sort().values.tolist() == list(range(len(labels)))
    for piece in pieces:
        share = labels.bincount() * len(piece) / len(labels)
        bound = 1 + len(share) * labels.bincount() / len(labels)
        assert ((labels[piece].bincount(minlength=len(share)) - share).abs() <= bound).all()


@settings(deadline=None)
@given(label_lists, st.integers(1, 200))
def test_a_prefix_of_the_order_keeps_the_shares(labels, size):
    size = min(size, len(labels))
    counts = labels[stratified_order(labels)[:size]].bincount(minlength=6)
    assert (counts - labels.bincount(minlength=6) * size / len(labels)).abs().max() < 2


def test_equal_classes_are_split_equally():
    labels = torch.arange(1000) % 10
    validation, train = stratified_pieces(labels, 100)
    assert labels[validation].bincount().tolist() == [10] * 10
    assert labels[train[:70]].bincount().tolist() == [7] * 10


def test_the_split_ignores_and_keeps_global_random_state():
    labels = torch.arange(100) % 3
    torch.manual_seed(1)
    first = stratified_order(labels)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, stratified_order(labels))
    assert torch.equal(state, torch.get_rng_state())
    assert first.tolist() != list(range(100))


def test_smaller_subsets_lie_within_larger_ones():
    train = torch.randperm(50)
    assert first_images(train, 10, classes=5).tolist() == first_images(train, 20, classes=5)[:10].tolist()
    assert first_images(train, None, classes=5) is train


@pytest.mark.parametrize("size", [4, 51, 0, -1])
def test_a_subset_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match=rf"^train_size is {size}; it must be from 5 .* to 50 "):
        first_images(torch.arange(50), size, classes=5)


def test_too_few_images_to_split_are_refused():
    with pytest.raises(ValueError, match=r"^5 images are too few"):
        stratified_pieces(torch.arange(5), 0)
