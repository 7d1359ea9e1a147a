"""The methods that the paper compares with or builds on."""

from tracegrad.methods import calibration, objectives, qcfs

__all__ = ["calibration", "objectives", "qcfs"]
