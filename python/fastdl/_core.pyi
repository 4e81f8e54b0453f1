"""The compiled kernels.  Written by ``python -m fastdl._stubs``; do not edit.

Arguments go by position or by name.  "X (B n)" is an array of shape (B, n): equal letters are equal
sizes, "*" is any shape, "()" a 0-d array, "?" may be None.  What stands right of the arrow is
written; "+=" reads it first.  Lines below that list the values of an option.

Arrays are C-contiguous, and all `Real` ones of a call share one dtype, as do all `Stored` ones: the
same, or on a device bfloat16 beside float32.  A wrong shape or value raises ValueError, a wrong
dtype or an unknown name TypeError; nothing has been written then.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Real: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Stored: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Int64: TypeAlias = npt.NDArray[np.int64]
Float64: TypeAlias = npt.NDArray[np.float64]
UInt8: TypeAlias = npt.NDArray[np.uint8]
AnyArray: TypeAlias = npt.NDArray[Any]

def accumulate(X: Stored, Y: Stored) -> None:
    """X (*) -> Y (*) +="""

@overload
def adam_step(
    theta: Stored,
    g: Stored,
    master: Real | None,
    m1: Real,
    m2: Real,
    m2_max: Real | None,
    ema: Real | None,
    steps: Int64,
    ends: Int64,
    hyper: Float64,
    squares: Float64 | None = None,
    decoupled: bool = False,
) -> None:
    """g (P), ends (S), hyper (8), squares ()?
    -> theta (P) +=, master (P)? +=, m1 (P) +=, m2 (P) +=, m2_max (P)? +=, ema (P)? +=, steps
    (S) +=
    """

@overload
def adam_step(
    theta: Stored,
    g: Stored,
    *,
    master: Real | None = None,
    m1: Real,
    m2: Real,
    m2_max: Real | None = None,
    ema: Real | None = None,
    steps: Int64,
    ends: Int64,
    hyper: Float64,
    squares: Float64 | None = None,
    decoupled: bool = False,
) -> None: ...
def add_forward(X: Real, other: Real, Y: Real) -> None:
    """X (*), other (*) -> Y (*)"""

def affine_backward(
    dY: Real,
    X: Real,
    W: Real,
    Y: Real | None = None,
    dX: Real | None = None,
    dW: Real | None = None,
    db: Real | None = None,
    activation: str = "none",
    accumulate: bool = False,
    input_activation: str = "none",
    precision: str = "full",
) -> None:
    """dY (B m), X (B n), W (n m), Y (B m)? -> dX (B n)?, dW (n m)?, db (m)?
    activation: none relu tanh
    input_activation: none relu tanh
    precision: full bf16
    """

@overload
def affine_forward(
    X: Real,
    W: Real,
    b: Real | None,
    Y: Real,
    activation: str = "none",
    precision: str = "full",
) -> None:
    """X (B n), W (n m), b (m)? -> Y (B m)
    activation: none relu tanh
    precision: full bf16
    """

@overload
def affine_forward(
    X: Real,
    W: Real,
    *,
    b: Real | None = None,
    Y: Real,
    activation: str = "none",
    precision: str = "full",
) -> None: ...
def amax_backward(dY: Real, X: Real, Y: Real, dX: Real) -> None:
    """dY (N M), X (N R M), Y (N M) -> dX (N R M)"""

def amax_forward(X: Real, Y: Real) -> None:
    """X (N R M) -> Y (N M)"""

@overload
def batch_norm_backward(
    dY: Stored,
    X: Stored,
    gamma: Real | None,
    beta: Real | None,
    mean: Real,
    rstd: Real,
    dX: Stored | None = None,
    dgamma: Real | None = None,
    dbeta: Real | None = None,
    training: bool = True,
    activation: str = "none",
    accumulate: bool = False,
) -> None:
    """dY (N C S), X (N C S), gamma (C)?, beta (C)?, mean (C), rstd (C)
    -> dX (N C S)?, dgamma (C)?, dbeta (C)?
    activation: none relu tanh
    """

@overload
def batch_norm_backward(
    dY: Stored,
    X: Stored,
    *,
    gamma: Real | None = None,
    beta: Real | None = None,
    mean: Real,
    rstd: Real,
    dX: Stored | None = None,
    dgamma: Real | None = None,
    dbeta: Real | None = None,
    training: bool = True,
    activation: str = "none",
    accumulate: bool = False,
) -> None: ...
@overload
def batch_norm_forward(
    X: Stored,
    gamma: Real | None,
    beta: Real | None,
    running_mean: Real | None,
    running_var: Real | None,
    num_batches: Int64 | None,
    Y: Stored,
    mean: Real | None = None,
    rstd: Real | None = None,
    eps: float = 1e-05,
    momentum: float = 0.1,
    training: bool = True,
    activation: str = "none",
) -> None:
    """X (N C S), gamma (C)?, beta (C)?
    -> running_mean (C)? +=, running_var (C)? +=, num_batches ()? +=, Y (N C S), mean (C)?,
    rstd (C)?
    activation: none relu tanh
    """

@overload
def batch_norm_forward(
    X: Stored,
    *,
    gamma: Real | None = None,
    beta: Real | None = None,
    running_mean: Real | None = None,
    running_var: Real | None = None,
    num_batches: Int64 | None = None,
    Y: Stored,
    mean: Real | None = None,
    rstd: Real | None = None,
    eps: float = 1e-05,
    momentum: float = 0.1,
    training: bool = True,
    activation: str = "none",
) -> None: ...
def cast(X: AnyArray, Y: AnyArray) -> None:
    """X (*) -> Y (*)"""

def copy(X: AnyArray, Y: AnyArray) -> None:
    """X (*) -> Y (*)"""

def cross_entropy_forward(
    X: Stored,
    t: Index | None = None,
    P: Real | None = None,
    w: Real | None = None,
    loss: Real | None = None,
    total: Real | None = None,
    dX: Stored | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> None:
    """X (B C), t (B)?, P (B C)?, w (C)? -> loss (B)?, total ()?, dX (B C)?
    reduction: none sum mean
    """

@overload
def discounted_returns(
    rewards: Real,
    dones: UInt8,
    last_value: Real | None,
    returns: Real,
    gamma: float = 0.99,
) -> None:
    """rewards (T N), dones (T N), last_value (N)? -> returns (T N)"""

@overload
def discounted_returns(
    rewards: Real,
    dones: UInt8,
    *,
    last_value: Real | None = None,
    returns: Real,
    gamma: float = 0.99,
) -> None: ...
@overload
def dropout_backward(
    dY: Real,
    saved: Int64 | None,
    Y: Real | None,
    dX: Real,
    p: float = 0.5,
    activation: str = "none",
) -> None:
    """dY (*), saved (2)?, Y (*)? -> dX (*)
    activation: none relu tanh
    """

@overload
def dropout_backward(
    dY: Real,
    *,
    saved: Int64 | None = None,
    Y: Real | None = None,
    dX: Real,
    p: float = 0.5,
    activation: str = "none",
) -> None: ...
def dropout_forward(
    X: Real,
    state: Int64,
    Y: Real,
    saved: Int64,
    p: float = 0.5,
    activation: str = "none",
) -> None:
    """X (*) -> state (2) +=, Y (*), saved (2)
    activation: none relu tanh
    """

def gae(
    rewards: Real,
    values: Real,
    dones: UInt8,
    last_values: Real,
    advantages: Real,
    returns: Real,
    gamma: float = 0.99,
    lam: float = 0.95,
) -> None:
    """rewards (T N), values (T N), dones (T N), last_values (N)
    -> advantages (T N), returns (T N)
    """

def gather_backward(dY: Real, index: Index, dX: Real) -> None:
    """dY (N K M), index (N K M) -> dX (N R M)"""

def gather_forward(X: Real, index: Index, Y: Real) -> None:
    """X (N R M), index (N K M) -> Y (N K M)"""

@overload
def layer_norm_backward(
    dY: Stored,
    X: Stored,
    gamma: Real | None,
    mean: Real,
    rstd: Real,
    dX: Stored | None = None,
    dgamma: Real | None = None,
    dbeta: Real | None = None,
    accumulate: bool = False,
) -> None:
    """dY (B n), X (B n), gamma (n)?, mean (B), rstd (B) -> dX (B n)?, dgamma (n)?, dbeta (n)?"""

@overload
def layer_norm_backward(
    dY: Stored,
    X: Stored,
    *,
    gamma: Real | None = None,
    mean: Real,
    rstd: Real,
    dX: Stored | None = None,
    dgamma: Real | None = None,
    dbeta: Real | None = None,
    accumulate: bool = False,
) -> None: ...
@overload
def layer_norm_forward(
    X: Stored,
    gamma: Real | None,
    beta: Real | None,
    Y: Stored,
    mean: Real | None = None,
    rstd: Real | None = None,
    eps: float = 1e-05,
) -> None:
    """X (B n), gamma (n)?, beta (n)? -> Y (B n), mean (B)?, rstd (B)?"""

@overload
def layer_norm_forward(
    X: Stored,
    *,
    gamma: Real | None = None,
    beta: Real | None = None,
    Y: Stored,
    mean: Real | None = None,
    rstd: Real | None = None,
    eps: float = 1e-05,
) -> None: ...
def log_softmax_backward(dY: Real, Y: Real, dX: Real) -> None:
    """dY (B C), Y (B C) -> dX (B C)"""

def log_softmax_forward(X: Real, Y: Real) -> None:
    """X (B C) -> Y (B C)"""

def mse_loss_forward(
    X: Real,
    T: Real,
    loss: Real | None = None,
    total: Real | None = None,
    dX: Real | None = None,
    reduction: str = "mean",
) -> None:
    """X (*), T (*) -> loss (*)?, total ()?, dX (*)?
    reduction: none sum mean
    """

def mul_forward(X: Real, other: Real, Y: Real) -> None:
    """X (*), other (*) -> Y (*)"""

def random_index(state: Int64, high: Int64, index: Int64) -> None:
    """high () -> state (2) +=, index (B)"""

def relu_backward(dY: Real, Y: Real, dX: Real) -> None:
    """dY (*), Y (*) -> dX (*)"""

def relu_forward(X: Real, Y: Real) -> None:
    """X (*) -> Y (*)"""

def scale_rows(X: Stored, s: Real, Y: Stored) -> None:
    """X (B C), s (S) -> Y (B C)"""

@overload
def sgd_step(
    theta: Stored,
    g: Stored,
    master: Real | None,
    buf: Real | None,
    ema: Real | None,
    steps: Int64,
    ends: Int64,
    hyper: Float64,
    squares: Float64 | None = None,
) -> None:
    """g (P), ends (S), hyper (8), squares ()?
    -> theta (P) +=, master (P)? +=, buf (P)? +=, ema (P)? +=, steps (S) +=
    """

@overload
def sgd_step(
    theta: Stored,
    g: Stored,
    *,
    master: Real | None = None,
    buf: Real | None = None,
    ema: Real | None = None,
    steps: Int64,
    ends: Int64,
    hyper: Float64,
    squares: Float64 | None = None,
) -> None: ...
def slice_backward(dY: Stored, dX: Stored, start: int = 0, step: int = 1) -> None:
    """dY (N K M) -> dX (N R M)"""

def smooth_l1_loss_forward(
    X: Real,
    T: Real,
    loss: Real | None = None,
    total: Real | None = None,
    dX: Real | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> None:
    """X (*), T (*) -> loss (*)?, total ()?, dX (*)?
    reduction: none sum mean
    """

def sub_forward(X: Real, other: Real, Y: Real) -> None:
    """X (*), other (*) -> Y (*)"""

def sum_forward(X: Real, Y: Real, count: int = 1) -> None:
    """X (N R M) -> Y (N M)"""

def sum_squares(X: Stored, total: Float64, accumulate: bool = False) -> None:
    """X (*) -> total ()"""

def tanh_backward(dY: Real, Y: Real, dX: Real) -> None:
    """dY (*), Y (*) -> dX (*)"""

def tanh_forward(X: Real, Y: Real) -> None:
    """X (*) -> Y (*)"""

class Program:
    """A recorded sequence of kernel calls that replays natively.

    The inputs are private static buffers; `run` binds other arrays in their place, without a copy.
    Recording is per thread: kernel calls between `begin` and `end` or `finish` are run and
    recorded.  `finish` takes the arrays that every run hands out anew, and returns (array, line)
    for those that would be frozen.
    """

    def __init__(self, inputs: Sequence[AnyArray]) -> None: ...
    def begin(self, where: Callable[[], str] | None = None) -> None: ...
    def end(self) -> None: ...
    def abort(self) -> None: ...
    def finish(self, results: list[AnyArray]) -> list[tuple[AnyArray, str]]: ...
    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]: ...
    def run_steps(
        self,
        sources: Sequence[AnyArray],
        scales: Sequence[float],
        order: Int64 | None,
        first: int,
        count: int,
        schedules: list[tuple[Float64, Float64]],
        stop: npt.NDArray[np.uint8],
    ) -> tuple[int, list[AnyArray], BaseException | None]: ...
    def calls(self) -> list[dict[str, Any]]: ...
    def memory(self) -> dict[str, int]: ...
    def written(self) -> list[tuple[int, str]]: ...
    def snapshot(self) -> list[bytes]: ...
    def restore(self, snapshot: list[bytes]) -> None: ...
    def __len__(self) -> int: ...

class DeviceArray(np.ndarray[Any, np.dtype[Any]]):
    """Has the attributes and views of an ndarray, but its elements are on a device."""

    @property
    def pointer(self) -> int: ...
    def strided(self, shape: Sequence[int], strides: Sequence[int]) -> DeviceArray: ...
    def write(self, values: AnyArray, non_blocking: bool) -> None: ...
    def numpy(self) -> AnyArray: ...

def make_replay(
    program: Program, guards: list[tuple[Any, str, Any]], finals: list[tuple[Any, str, Any]]
) -> Callable[..., Any]: ...
def make_replay_all(members: list[tuple[Any, ...]]) -> Callable[..., Any]: ...
def run_all(
    programs: list[Program], steps: list[tuple[Any, ...]], count: int
) -> list[AnyArray]: ...
def empty(like: AnyArray, shape: int | tuple[int, ...], dtype: np.dtype[Any], /) -> AnyArray: ...
def empty_on(device: str, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray: ...
def pinned_empty(device: str, shape: Sequence[int], dtype: np.dtype[Any]) -> AnyArray: ...
def device_named(name: str) -> str: ...
def synchronize(device: str) -> None: ...
def stream(device: str) -> int: ...
def cuda_status() -> dict[str, Any]: ...
def dlpack_device(array: DeviceArray) -> tuple[int, int]: ...
def dlpack_name(kind: int, number: int) -> str: ...
def to_dlpack(array: DeviceArray, stream: int | None, versioned: bool) -> Any: ...
def from_dlpack(capsule: Any) -> DeviceArray: ...
def from_interface(
    device: str,
    pointer: int,
    readonly: bool,
    shape: Sequence[int],
    strides: Sequence[int] | None,
    dtype: np.dtype[Any],
    stream: int | None,
    owner: Any,
) -> DeviceArray: ...
def recording() -> bool: ...
def op_names() -> list[str]: ...
def signatures() -> dict[str, list[dict[str, Any]]]: ...
def backend() -> str: ...
def backends() -> list[str]: ...
def all_backends() -> list[str]: ...
def kernels(backend: str) -> list[str]: ...
def use_backend(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_work_per_thread(n: int) -> None: ...
def set_stream_bytes(n: int) -> None: ...
def set_pool_bytes(n_bytes: int) -> None: ...
def empty_pool() -> None: ...
def use_bf16_unit(most: str) -> None: ...
def config() -> dict[str, Any]: ...
def ceilings() -> dict[str, Any]: ...
