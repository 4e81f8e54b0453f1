"""Operations: ndarrays in, ndarray out; with any Tensor, a Tensor on the tape out.

The array call and the Tensor call give the same bits.  ``<op>_backward`` is the bare gradient of an
operation, for arrays.
"""

from fastdl.ops.affine import affine, affine_backward
from fastdl.ops.amax import amax
from fastdl.ops.arithmetic import add, mul, sub
from fastdl.ops.batch_norm import batch_norm, batch_norm_backward
from fastdl.ops.cross_entropy import cross_entropy, cross_entropy_backward
from fastdl.ops.dropout import dropout, dropout_backward
from fastdl.ops.gather import gather
from fastdl.ops.getitem import getitem
from fastdl.ops.layer_norm import layer_norm, layer_norm_backward
from fastdl.ops.log_softmax import log_softmax, log_softmax_backward
from fastdl.ops.mse_loss import mse_loss, mse_loss_backward
from fastdl.ops.relu import relu, relu_backward
from fastdl.ops.reshape import reshape
from fastdl.ops.returns import discounted_returns, gae
from fastdl.ops.smooth_l1_loss import smooth_l1_loss, smooth_l1_loss_backward
from fastdl.ops.sum import mean, sum  # noqa: A004
from fastdl.ops.tanh import tanh, tanh_backward

__all__ = [
    "add",
    "affine",
    "affine_backward",
    "amax",
    "batch_norm",
    "batch_norm_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "discounted_returns",
    "dropout",
    "dropout_backward",
    "gae",
    "gather",
    "getitem",
    "layer_norm",
    "layer_norm_backward",
    "log_softmax",
    "log_softmax_backward",
    "mean",
    "mse_loss",
    "mse_loss_backward",
    "mul",
    "relu",
    "relu_backward",
    "reshape",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "sub",
    "sum",
    "tanh",
    "tanh_backward",
]
