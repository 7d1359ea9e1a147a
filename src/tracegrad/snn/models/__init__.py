"""Spiking networks, in one registry."""

from tracegrad.snn.models.recurrent import Recurrent, recurrent
from tracegrad.snn.models.registry import MODELS, register_model
from tracegrad.snn.models.resnet import ResNet, ms_resnet20, resnet, resnet19, resnet20, resnet32, sew_resnet20
from tracegrad.snn.models.vgg import VGG, vgg11

__all__ = [
    "MODELS",
    "VGG",
    "Recurrent",
    "ResNet",
    "ms_resnet20",
    "recurrent",
    "register_model",
    "resnet",
    "resnet19",
    "resnet20",
    "resnet32",
    "sew_resnet20",
    "vgg11",
]
