"""Operations: ndarrays in, ndarray out; with any Tensor, a Tensor on the tape out.

The array call and the Tensor call give the same bits.  ``<op>_backward`` is the bare gradient of an
operation, for arrays.
"""

from fastdl.ops.affine import affine, affine_backward
from fastdl.ops.batch_norm import batch_norm, batch_norm_backward
from fastdl.ops.cross_entropy import cross_entropy, cross_entropy_backward
from fastdl.ops.dropout import dropout, dropout_backward
from fastdl.ops.mse_loss import mse_loss, mse_loss_backward
from fastdl.ops.relu import relu, relu_backward
from fastdl.ops.reshape import reshape

__all__ = [
    "affine",
    "affine_backward",
    "batch_norm",
    "batch_norm_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "mse_loss",
    "mse_loss_backward",
    "relu",
    "relu_backward",
    "reshape",
]
