"""Other memory layouts of the same values: what users' arrays look like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from opcase import Array


def fortran(a: Array) -> Array:
    return np.array(a, order="F")


def every_other(a: Array) -> Array:
    wide = np.repeat(a[..., None], 2, axis=-1)
    return wide[..., 0]


def last_axis_strided(a: Array) -> Array:
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a


def reversed_axes(a: Array) -> Array:
    back = tuple(slice(None, None, -1) for _ in a.shape)
    return np.array(a[(..., *back)], order="C")[(..., *back)]


def sliced(a: Array) -> Array:
    """The middle of a bigger array."""
    bigger = np.zeros([s + 4 for s in a.shape], a.dtype)
    middle = bigger[(..., *(slice(2, 2 + s) for s in a.shape))]
    middle[...] = a
    return middle


def misaligned(a: Array) -> Array:
    """One byte off, as fields of packed records and mapped files are."""
    raw = np.empty(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: Array) -> Array:
    view = a.copy()
    view.flags.writeable = False
    return view


def byte_swapped(a: Array) -> Array:
    return a.astype(a.dtype.newbyteorder())


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    f.__name__: f
    for f in (fortran, every_other, last_axis_strided, reversed_axes, sliced, misaligned, read_only)
}
