import pytest
import torch
from torch import nn
from tracegrad_benchmark.competitors.convolutions import ConvolutionsWork
from tracegrad_benchmark.competitors.tracegrad import network
from tracegrad_benchmark.workload import Workload


def test_each_convolution_of_the_network_is_there_once_with_its_own_shapes():
    workload = Workload(batch=2, width=4, image_size=8)
    work = ConvolutionsWork(workload, "float32")
    weights = [layer.weight.shape for layer in network(workload).modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(each.weight.shape for each in work.convolutions) == sorted(weights)
    assert len(weights) == 1 + 18 + 3
    stem, *others = work.convolutions
    assert stem.input.shape == (2, 3, 8, 8)
    assert {each.input.shape[0] for each in others} == {4 * 2}
    assert [each.gradient.shape for each in work.convolutions] == [each.forward().shape for each in work.convolutions]
    assert {tuple(each.gradient.shape[1:]) for each in others} == {(4, 8, 8), (8, 4, 4), (16, 2, 2)}


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_tensors_are_spikes_in_the_precision_and_layout(precision, dtype, tiny):
    stem, *others = ConvolutionsWork(tiny, precision).convolutions
    for each in (stem, *others):
        for tensor in (each.input, each.weight, each.gradient):
            assert tensor.dtype == dtype
            assert tensor.is_contiguous(memory_format=torch.channels_last)
    for each in others:
        assert set(each.input.unique().tolist()) == {0, 1}


def test_gradients_are_those_of_autograd_and_the_stem_passes_none_on(tiny):
    stem, *others = ConvolutionsWork(tiny, "float32").convolutions
    assert stem.backward()[0] is None
    for each in others:
        before, weight = each.input.clone().requires_grad_(), each.weight.clone().requires_grad_()
        current = torch.conv2d(before, weight, None, each.stride, each.padding)
        expected = torch.autograd.grad(current, (before, weight), each.gradient)
        torch.testing.assert_close(each.backward()[:2], expected)
