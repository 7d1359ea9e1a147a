"""Spiking networks, in one registry."""

from tracegrad.snn.models.registry import MODELS, register_model
from tracegrad.snn.models.resnet import ResNet, resnet, resnet19, resnet20, resnet32

__all__ = ["MODELS", "ResNet", "register_model", "resnet", "resnet19", "resnet20", "resnet32"]
