"""Evaluation of networks: accuracy and spikes, and pictures of what a trained run does."""

from tracegrad.lab.evaluation.measure import Evaluation, evaluate, evaluate_split, predict

__all__ = ["Evaluation", "evaluate", "evaluate_split", "predict"]
