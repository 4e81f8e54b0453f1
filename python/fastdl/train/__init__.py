"""Training: data in, trained model, history and checkpoints out."""

from fastdl.train.callbacks import Callback, CosineLR
from fastdl.train.data import Dataset, Scaler, Split, load_data
from fastdl.train.history import History
from fastdl.train.trainer import Trainer

__all__ = [
    "Callback",
    "CosineLR",
    "Dataset",
    "History",
    "Scaler",
    "Split",
    "Trainer",
    "load_data",
]
