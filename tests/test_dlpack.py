"""Arrays of other libraries in and out: DLPack and __cuda_array_interface__, ownership included."""

from __future__ import annotations

import ctypes
import gc
import sys

import fastdl as fd
import numpy as np
import pytest
from fastdl import _core, _dlpack
from harness import BF16, EMULATOR

emulator = pytest.mark.skipif(EMULATOR not in _core.backends(), reason="needs FASTDL_CUEMU")
X = np.arange(12, dtype=np.float32).reshape(3, 4)
EXTENSION = 12  # kDLExtDev: what the emulator says it is

name_of = ctypes.pythonapi.PyCapsule_GetName
name_of.argtypes, name_of.restype = [ctypes.py_object], ctypes.c_char_p


class Foreign:
    """Another library's array: hands out capsules of a tensor and remembers how it was asked."""

    def __init__(self, t: fd.Tensor, legacy: bool = False):
        self.t, self.legacy, self.asked = t, legacy, []

    def __dlpack_device__(self):
        return self.t.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **options):
        if self.legacy and options:
            raise TypeError("unexpected keyword argument")
        self.asked.append({"stream": stream, **options})
        self.capsule = self.t.__dlpack__(stream=stream, **options)
        return self.capsule


# ---- the CPU ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
def test_numpy_takes_and_gives_memory_without_a_copy(dtype):
    x = X.astype(dtype)
    t = fd.from_dlpack(x)
    assert t.device == "cpu" and t.numpy().ctypes.data == x.ctypes.data
    back = np.from_dlpack(t)
    assert back.ctypes.data == x.ctypes.data and back.dtype == x.dtype
    del x, t
    gc.collect()
    assert np.array_equal(back, X)


def test_torch_takes_and_gives_memory_without_a_copy():
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    t = fd.from_dlpack(theirs)
    t.numpy()[0, 0] = 7
    assert theirs[0, 0] == 7 and fd.ops.relu(t).shape == (2, 3)
    ours = fd.Tensor(X.copy())
    seen = torch.from_dlpack(ours)
    seen[0, 0] = 5
    assert ours[0, 0].item() == 5


def test_what_cannot_be_taken_says_why():
    with pytest.raises(
        TypeError, match="must have __dlpack__ or __cuda_array_interface__, got list"
    ):
        fd.from_dlpack([1.0])
    with pytest.raises(TypeError, match=r"array must be float32, float64, .* got int16"):
        fd.from_dlpack(np.zeros(3, np.int16))
    with pytest.raises(BufferError, match=r"must not require a gradient; use \.detach\(\)"):
        np.from_dlpack(fd.Tensor(X, requires_grad=True))


def test_nothing_is_a_gpu_array_by_mistake():
    assert not hasattr(fd.Tensor(X), "__cuda_array_interface__")


# ---- a device -----------------------------------------------------------------------------------


@emulator
@pytest.mark.parametrize("legacy", [False, True], ids=["versioned", "legacy"])
@pytest.mark.parametrize("dtype", ["f4", "f8", BF16, "i4", "i8", "u1"], ids=str)
def test_memory_of_a_device_goes_round_without_a_copy(legacy, dtype):
    t = fd.Tensor(X.astype(dtype), device=EMULATOR)
    theirs = Foreign(t, legacy)
    back = fd.from_dlpack(theirs)
    assert back._array.pointer == t._array.pointer
    assert (back.device, back.shape, back.dtype) == (EMULATOR, X.shape, np.dtype(dtype))
    assert theirs.asked[-1]["stream"] == fd.cuda.stream(EMULATOR)
    assert name_of(theirs.capsule) == (b"used_dltensor" if legacy else b"used_dltensor_versioned")
    del t, theirs
    gc.collect()
    assert np.array_equal(back.cpu().numpy(), X)


@emulator
def test_bfloat16_has_the_code_of_the_protocol():
    capsule = fd.tensor(X, dtype="bfloat16", device=EMULATOR).__dlpack__(max_version=(1, 0))
    tensor = pointer_of(capsule, b"dltensor_versioned")
    code, bits = (ctypes.c_uint8.from_address(tensor + at).value for at in (BITS - 1, BITS))
    assert (code, bits) == (4, 16)  # kDLBfloat


@emulator
@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1)])
def test_odd_shapes_go_round(shape):
    t = fd.Tensor(np.ones(shape), device=EMULATOR)
    assert fd.from_dlpack(Foreign(t)).shape == shape


@emulator
def test_other_libraries_refuse_the_emulated_device():
    t = fd.Tensor(X, device=EMULATOR)
    assert t.__dlpack_device__() == (EXTENSION, 0)
    with pytest.raises((RuntimeError, BufferError), match="nsupported device"):
        np.from_dlpack(t)
    assert not hasattr(t, "__cuda_array_interface__")


pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.argtypes, pointer_of.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
#: Where things are in a versioned capsule.
MAJOR, FLAGS, BITS = 0, 24, 53


@emulator
@pytest.mark.parametrize(
    "at, value, error, text",
    [
        (MAJOR, 2, RuntimeError, "must be of version 1, got 2"),
        (BITS, 16, TypeError, "got DLPack type code 2 of 16 bits"),
    ],
)
def test_a_capsule_that_is_refused_stays_with_its_owner(at, value, error, text):
    x = _core.empty_on(EMULATOR, (2,), np.dtype(np.float32))
    capsule = _core.to_dlpack(x, None, True)
    ctypes.c_uint8.from_address(pointer_of(capsule, b"dltensor_versioned") + at).value = value
    with pytest.raises(error, match=text):
        _core.from_dlpack(capsule)
    assert name_of(capsule) == b"dltensor_versioned"


@emulator
def test_read_only_memory_stays_so():
    x = _core.empty_on(EMULATOR, (2,), np.dtype(np.float32))
    capsule = _core.to_dlpack(x, None, True)
    ctypes.c_uint64.from_address(pointer_of(capsule, b"dltensor_versioned") + FLAGS).value |= 1
    y = _core.from_dlpack(capsule)
    assert not y.flags.writeable
    with pytest.raises(ValueError, match="Y must be writeable"):
        _core.relu_forward(x, y)
    with pytest.raises(BufferError, match=r"DLPack 1\.0"):
        _core.to_dlpack(y, None, False)


@emulator
@pytest.mark.parametrize("versioned", [True, False])
def test_ownership_is_handed_over_once(versioned):
    x = _core.empty_on(EMULATOR, (2,), np.dtype(np.float32))
    pointer, before = x.pointer, sys.getrefcount(x)
    unused = _core.to_dlpack(x, None, versioned)
    assert sys.getrefcount(x) == before  # the capsule keeps the memory, not this object
    del unused
    capsule = _core.to_dlpack(x, -1, versioned)
    y = _core.from_dlpack(capsule)
    with pytest.raises(ValueError, match="incorrect name"):
        _core.from_dlpack(capsule)
    del x, capsule
    gc.collect()
    assert y.pointer == pointer and y.numpy().shape == (2,)  # accessible: the memory is there


@emulator
def test_round_trips_leak_nothing():
    import resource

    x = fd.Tensor(np.ones(1 << 18, np.float32), device=EMULATOR)
    for i in range(3000):
        if i == 100:
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if i % 10 == 0:  # memory of its own every now and then
            x = fd.Tensor(np.ones(1 << 18, np.float32), device=EMULATOR)
        fd.from_dlpack(Foreign(x, legacy=i % 2 == 0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start < 20_000


@emulator
@pytest.mark.parametrize("stream", [0, -2])
def test_ambiguous_streams_are_refused(stream):
    with pytest.raises(ValueError, match="stream must be -1, 1, 2 or a handle"):
        fd.Tensor(X, device=EMULATOR).__dlpack__(stream=stream)


@emulator
def test_copies_are_not_made_by_export():
    t = fd.Tensor(X, device=EMULATOR)
    with pytest.raises(BufferError, match="only the memory itself"):
        t.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="only the memory itself"):
        t.__dlpack__(dl_device=(1, 0))


def test_arrays_elsewhere_are_refused():
    class Elsewhere:
        def __init__(self, kind, number):
            self.where = kind, number

        def __dlpack_device__(self):
            return self.where

        def __dlpack__(self, **_):
            raise AssertionError("must not be asked")

    for where in ((2, 1), (10, 0)):
        with pytest.raises(RuntimeError, match="on the CPU or on the first GPU"):
            fd.from_dlpack(Elsewhere(*where))


# ---- __cuda_array_interface__ -------------------------------------------------------------------


class Numba:
    """An array that has nothing but the interface."""

    def __init__(self, x, **changes):
        self.x = x
        self.__cuda_array_interface__ = {**_dlpack.interface_of(x), **changes}


@emulator
def test_the_interface_says_what_the_array_is():
    x = fd.Tensor(X, device=EMULATOR)._array
    assert _dlpack.interface_of(x) == {
        "shape": (3, 4),
        "typestr": "<f4",
        "data": (x.pointer, False),
        "version": 3,
        "strides": None,
        "stream": fd.cuda.stream(EMULATOR),
    }
    assert _dlpack.interface_of(x[:, 1])["strides"] == (16,)
    assert _dlpack.interface_of(x[:0])["data"] == (0, False)


@emulator
def test_the_interface_is_taken_without_a_copy_and_keeps_its_owner():
    there = Numba(fd.Tensor(X, device=EMULATOR)._array, stream=None)
    before = sys.getrefcount(there)
    y = _dlpack.from_interface(there, EMULATOR)
    assert y.pointer == there.x.pointer and sys.getrefcount(there) == before + 1
    assert np.array_equal(y.numpy(), X)
    del y
    assert sys.getrefcount(there) == before
    strided = Numba(there.x[:, 1])
    assert np.array_equal(fd.Tensor(_dlpack.from_interface(strided, EMULATOR)).cpu(), X[:, 1])
    assert _dlpack.from_interface(Numba(there.x[:0]), EMULATOR).shape == (0, 4)


@emulator
def test_a_pointer_to_the_host_is_refused():
    fake = Numba(fd.Tensor(X, device=EMULATOR)._array, data=(X.ctypes.data, False))
    with pytest.raises(RuntimeError, match="another pointer"):
        _dlpack.from_interface(fake, EMULATOR)


@emulator
@pytest.mark.parametrize("dtype, item", [("f4", 4), (BF16, 2)], ids=str)
def test_memory_at_odd_addresses_is_copied(dtype, item):
    there = fd.tensor(np.arange(32, dtype=np.uint8), device=EMULATOR)
    for offset in (1, item):
        array = _core.from_interface(
            EMULATOR, there._array.pointer + offset, False, (6,), None, np.dtype(dtype), None, there
        )
        t = fd.Tensor(array)
        assert (t._array.pointer == array.pointer) == (offset == item)
        assert t.cpu().numpy().tobytes() == bytes(range(offset, offset + 6 * item))


def test_a_dtype_that_numpy_has_not_is_refused_with_its_name():
    class Foreign:
        dtype = "torch.bfloat16"

        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            raise self.error

    x = Foreign()
    x.error = RuntimeError("Unsupported dtype in DLTensor.")  # NumPy's words
    with pytest.raises(TypeError, match=r"^from_dlpack: .* got torch.bfloat16; convert it first"):
        fd.from_dlpack(x)
    x.error = BufferError("exported already")
    with pytest.raises(BufferError, match="exported already"):
        fd.from_dlpack(x)
