"""Optimizers with torch's names, arguments and state; a step is one kernel call on flat memory."""

from fastdl.optim.adam import Adam, AdamW
from fastdl.optim.average import ema_model
from fastdl.optim.optimizer import Optimizer
from fastdl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "ema_model"]
