"""The vocabulary of the files in tests/ops: a reference, cases as data, and nothing from fastdl.

An op file defines one reference function per kernel, in straight formulas, and lists them:

    def relu_forward(X):
        return {"Y": np.maximum(X, 0)}

    KERNELS = [Kernel(relu_forward, cases=[Case(shape=(3, 5))])]

The reference takes the kernel's inputs and attributes by name and returns its outputs by name.  It
keeps the dtype it is given: called with float64 it is the truth for float32 kernels, called with
float32 it is the baseline whose error bounds the kernel's.  An output that the reference also takes
as a parameter is handed its contents before the call.  Everything else (roles, shapes, dtypes,
order) comes from the kernel's own description, so a new op needs only formulas and cases.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
#: Makes one argument: (rng, shape, case) -> array.  Floats are cast to the dtype of the call.
Maker = Callable[[Rng, tuple[int, ...], "Case"], Array]


class Case:
    """One call: sizes of the dims letters, attributes, and arrays with special contents.

    ``Case(B=3, n=5, m=7, activation="relu")``   sizes (one letter, an int), then attributes
    ``Case(shape=(3, 5))``                       the shape of "*"
    ``Case(B=3, n=5, m=7, without="b dX")``      optional arguments that are not given
    ``Case(B=3, C=4, t=np.array([0, 3, 1]))``    an argument's contents (or a Maker)
    """

    def __init__(self, *, without: str = "", shape: tuple[int, ...] | None = None, **items: Any):
        self.without = frozenset(without.split())
        self.shape = shape
        self.sizes: dict[str, int] = {}
        self.values: dict[str, Array | Maker] = {}
        self.attributes: dict[str, Any] = {}
        for key, value in items.items():
            self._home(key, value)[key] = value

    def _home(self, key: str, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray) or callable(value):
            return self.values
        is_size = len(key) == 1 and isinstance(value, int) and not isinstance(value, bool)
        return self.sizes if is_size else self.attributes

    def __repr__(self) -> str:
        parts = [f"{k}{v}" for k, v in self.sizes.items()]
        if self.shape is not None:
            parts.append("x".join(map(str, self.shape)) or "0d")
        parts += [v if isinstance(v, str) else f"{k}={v}" for k, v in self.attributes.items()]
        parts += [f"{k}:{_name(v)}" for k, v in self.values.items()]
        parts += [f"no_{name}" for name in sorted(self.without)]
        return "-".join(parts)[:90]

    @property
    def elements(self) -> int:
        """Of the largest array, as a rule: what a call costs."""
        return math.prod([*self.sizes.values(), *(self.shape or ())])

    @property
    def seed(self) -> int:
        """Depends on what the case says, not on where it stands in a list."""
        return zlib.crc32(repr(self).encode())


def _name(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return ",".join(f"{x:g}" for x in value.flat)
    return value.__name__ if callable(value) else str(value).replace(" ", "")


@dataclass(frozen=True)
class Error:
    """A call that must raise: `case` with some arguments replaced.

    A tuple in `change` is an array of that shape in the dtype of the argument; `text` is the whole
    message for float32, or a regular expression when it starts with "^".
    """

    case: Case
    change: Mapping[str, Any]
    text: str
    raises: type[Exception] = ValueError

    def __repr__(self) -> str:
        return " ".join(f"{name}={_name(value)}" for name, value in self.change.items())


@dataclass(frozen=True)
class Gradient:
    """How central differences check a reference: d sum(`output` * upstream) / d `wrt`.

    `backward` None: the forward reference returns the gradients itself (losses).  Arguments of the
    backward reference are found by name among the forward's inputs, outputs and attributes; its
    upstream gradient is called "d" + output.
    """

    cases: Sequence[Case]
    wrt: Mapping[str, str]
    output: str
    backward: Callable[..., dict[str, Array]] | None = None


@dataclass(frozen=True)
class Public:
    """A function of fastdl.ops that must give the same bits for every memory layout of its arrays.

    `call` takes (fastdl, arrays by name, **options) and passes the options, such as out=, on.
    """

    name: str
    case: Case
    call: Callable[..., Array]


@dataclass(frozen=True)
class Kernel:
    """A kernel of `_core`, named as its reference."""

    reference: Callable[..., dict[str, Array]]
    cases: Sequence[Case]
    errors: Sequence[Error] = ()
    #: How to make an argument; standard normal numbers otherwise.
    values: Mapping[str, Maker] = field(default_factory=dict)
    #: Property tests draw each attribute from these, and each size from these (default 0..70;
    #: a string is "the same as that letter").
    attributes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    #: Which drawn combinations are calls at all.
    valid: Callable[[Case], bool] = lambda case: True
    #: Whether a case is a call in this dtype; where not, it is tested in the others alone.
    admits: Callable[[Case, Any], bool] = lambda case, dtype: True
    #: Size of the terms that each output is a sum of, by name; default max |output|.
    scale: Callable[..., dict[str, Array]] | None = None
    #: The result is defined to the last bit by the reference at the kernel's dtype.
    exact: bool = False
    #: Dims letter of independent rows: one row alone has the bits it has in the batch, for the
    #: cases that `row_cases` admits.
    rows: str = ""
    row_cases: Callable[[Case], bool] = lambda case: True
    #: Which outputs may be written over which inputs, as in ("Y=X",).
    inplace: Sequence[str] = ()
    #: Arguments that also get NaN, Inf and -Inf, and the cases in which they do.
    specials: str = ""
    special_cases: Sequence[Case] = ()
    #: Optional arguments that go with bf16 arrays and with no others.
    only_bf16: str = ""
    gradient: Gradient | None = None
    public: Public | None = None

    @property
    def name(self) -> str:
        return self.reference.__name__


def uniform(low: float, high: float) -> Maker:
    """Numbers in [low, high)."""

    def make(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
        return rng.uniform(low, high, shape)

    return make


def integers(low: int, high: int, dtype: Any = np.int64) -> Maker:
    """Integers in [low, high)."""

    def make(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
        return rng.integers(low, high, shape, dtype=dtype)

    make.__name__ = np.dtype(dtype).name
    return make


#: Around the vector widths 4, 8, 16 and 32, primes, and the small ones.
EDGE_SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65)
EDGE_SHAPES: list[tuple[int, ...]] = [
    (), (0,), (1,), (3, 0, 2), (2, 3, 4), (2, 1, 3, 1, 2, 2),
    *[(n,) for n in EDGE_SIZES[1:]], (127,), (1, 1001), (300, 701),
]  # fmt: skip
