"""Losses, with torch's names."""

from __future__ import annotations

from fastdl import ops
from fastdl._array import Array
from fastdl.nn.module import Module
from fastdl.tensor import ArrayLike

_REDUCTIONS = ("none", "sum", "mean")


class CrossEntropyLoss(Module):
    """Cross entropy of the softmax of logits; see `fastdl.ops.cross_entropy`.

    Parameters
    ----------
    weight : ndarray (C,), optional
        Weight of each class, of the logits' dtype.
    ignore_index : int
    reduction : "mean", "sum" or "none"
    label_smoothing : float, 0 <= label_smoothing <= 1
    """

    weight: Array | None

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        _check_reduction("CrossEntropyLoss", reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                "CrossEntropyLoss: label_smoothing must be 0 <= label_smoothing <= 1, "
                f"got {label_smoothing}"
            )
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, X: ArrayLike, target: ArrayLike) -> ArrayLike:
        """Logits (B, C, ...) and labels (B, ...) or probabilities (B, C, ...) -> loss."""
        return ops.cross_entropy(
            X,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MSELoss(Module):
    """Squared error; see `fastdl.ops.mse_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    """

    def __init__(self, reduction: str = "mean") -> None:
        _check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, X: ArrayLike, target: ArrayLike) -> ArrayLike:
        """Two arrays of one shape -> loss."""
        return ops.mse_loss(X, target, reduction=self.reduction)


class SmoothL1Loss(Module):
    """Error squared where it is small, absolute where it is large; see `fastdl.ops.smooth_l1_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    beta : float, beta >= 0
        Where the two branches meet.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        _check_reduction("SmoothL1Loss", reduction)
        if not beta >= 0:
            raise ValueError(f"SmoothL1Loss: beta must be >= 0, got {beta}")
        self.reduction = reduction
        self.beta = beta

    def forward(self, X: ArrayLike, target: ArrayLike) -> ArrayLike:
        """Two arrays of one shape -> loss."""
        return ops.smooth_l1_loss(X, target, reduction=self.reduction, beta=self.beta)


def _check_reduction(loss: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{loss}: reduction must be one of {_REDUCTIONS}, got {reduction!r}")
