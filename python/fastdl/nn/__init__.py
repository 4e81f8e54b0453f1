"""Modules: layers, losses, containers, and initial values (`fastdl.nn.init`)."""

from fastdl.nn import init
from fastdl.nn.containers import ModuleList, Sequential
from fastdl.nn.ensemble import Ensemble
from fastdl.nn.layers import (
    Affine,
    BatchNorm1d,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    ReLU,
    Tanh,
    set_precision,
)
from fastdl.nn.losses import CrossEntropyLoss, MSELoss, SmoothL1Loss
from fastdl.nn.mlp import MLP
from fastdl.nn.module import Module
from fastdl.nn.parameter import Parameter

__all__ = [
    "MLP",
    "Affine",
    "BatchNorm1d",
    "CrossEntropyLoss",
    "Dropout",
    "Ensemble",
    "Flatten",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "SmoothL1Loss",
    "Tanh",
    "init",
    "set_precision",
]
