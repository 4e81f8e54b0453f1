"""Tensors on a device.  The device is the emulator: what holds there holds for the Python side of a
GPU, and for the kernels as far as docs/cuda.md says.
"""

from __future__ import annotations

import copy
import gc
import pickle
import signal

import fastdl as fd
import numpy as np
import pytest
from fastdl import _core, ops
from fastdl._array import to_device
from harness import EMULATOR, emulated
from subprocesses import python

pytestmark = pytest.mark.skipif(EMULATOR not in _core.backends(), reason="needs FASTDL_CUEMU")
X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
LABELS = np.arange(8) % 5


def there(x: np.ndarray, **options) -> fd.Tensor:
    return fd.Tensor(x, device=EMULATOR, **options)


# ---- tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
def test_values_survive_the_way_there_and_back(dtype, shape):
    x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    t = there(x)
    assert (t.shape, t.dtype, t.device, t.ndim, t.size) == (
        shape,
        x.dtype,
        EMULATOR,
        x.ndim,
        x.size,
    )
    back = t.cpu()
    assert back.device == "cpu" and back.dtype == x.dtype and np.array_equal(back.numpy(), x)


def test_where_tensors_are_made():
    for t in (there(X), fd.tensor(X, device=EMULATOR), fd.Tensor(X).to(EMULATOR)):
        assert t.device == EMULATOR and np.array_equal(t.cpu().numpy(), X)
    t = there(X)
    assert t.to(EMULATOR) is t and t.detach().device == EMULATOR
    assert fd.Tensor(X).to("cpu").device == "cpu"
    again = fd.tensor(t)  # a copy, where it is
    assert again.device == EMULATOR and again._array.pointer != t._array.pointer
    assert fd.tensor(t, dtype=np.float64).dtype == np.float64
    assert fd.tensor([1.0, 2.0], device=EMULATOR).cpu().tolist() == [1, 2]


def test_a_layout_that_is_not_contiguous_is_copied_on_the_way():
    assert np.array_equal(there(X.T).cpu().numpy(), X.T)
    assert np.array_equal(there(X[::-2, 1:4]).cpu().numpy(), X[::-2, 1:4])


def test_what_copies_anyway_reads_from_the_device():
    t = there(X)
    assert t[1, 2].item() == X[1, 2] and float(t[0, 0]) == X[0, 0]
    assert t.tolist() == X.tolist() and len(t) == 8
    assert bool(there(np.ones(1, np.int64))) and int(there(np.array(7))) == 7
    assert repr(there(np.array([1.5], np.float32))) == (
        "Tensor([1.5], dtype=float32, device='cuemu')"
    )


@pytest.mark.parametrize(
    "use",
    [lambda t: t.numpy(), np.asarray, lambda t: t == 0, lambda t: t < t],
    ids=["numpy", "asarray", "equal", "less"],
)
def test_what_shares_memory_is_refused(use):
    with pytest.raises(RuntimeError, match=r"must be on cpu .* got one on cuemu; use \.cpu\(\)"):
        use(there(X))


def test_copies_and_pickles_stay_on_the_device():
    t = there(X, requires_grad=True)
    for same in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert same.device == EMULATOR and same.requires_grad
        assert same._array.pointer != t._array.pointer
        assert np.array_equal(same.detach().cpu().numpy(), X)


def test_views_share_memory():
    t = there(X)
    assert t[2:4]._array.pointer == t._array.pointer + 2 * 5 * 4
    assert ops.reshape(t, (5, 8))._array.pointer == t._array.pointer
    assert np.array_equal(t[:, 1:3].cpu().numpy(), X[:, 1:3])


# ---- operations ---------------------------------------------------------------------------------


def both(function):
    """What a function of (Tensor, labels) gives here and there: its result and the gradient."""
    found = []
    for device in ("cpu", EMULATOR):
        x = fd.Tensor(X, requires_grad=True, device=device)
        y = function(x, fd.Tensor(LABELS, device=device))
        y.backward(fd.Tensor(np.ones(y.shape, np.float32), device=device))
        assert y.device == x.grad.device == device
        found.append((y.detach().cpu().numpy(), x.grad.cpu().numpy()))
    return found


def _images(x):
    return fd.Tensor(np.arange(10).reshape(2, 5) % 4, device=x.device)


FUNCTIONS = {
    "relu": lambda x, t: ops.relu(x),
    "tanh": lambda x, t: ops.tanh(x * 2 - 1),
    "broadcast": lambda x, t: x * x[0] + x[:, 1:2] - 0.5,
    "sum": lambda x, t: x.sum(dim=0),
    "mean": lambda x, t: (x * x).mean(),
    "twice": lambda x, t: ops.relu(x) * ops.tanh(x),
    "cross_entropy": ops.cross_entropy,
    "cross_entropy rows": lambda x, t: ops.cross_entropy(x, t, reduction="none"),
    "cross_entropy images": lambda x, t: ops.cross_entropy(ops.reshape(x, (2, 4, 5)), _images(x)),
    "mse_loss": lambda x, t: ops.mse_loss(x, x.detach() * 2),
    "smooth_l1_loss": lambda x, t: ops.smooth_l1_loss(x, x.detach() * 3, reduction="none"),
    "batch_norm": lambda x, t: ops.batch_norm(x, None, None, training=True),
    "amax": lambda x, t: x.amax(dim=1),
    "log_softmax": lambda x, t: x.log_softmax(0),
    "gather": lambda x, t: x.gather(1, t),
    "slice": lambda x, t: x[1:7:2, ::-1],
    "there and back": lambda x, t: ops.relu(x.cpu()).to(x.device),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_and_gradients_are_those_of_the_cpu(name):
    (y, dx), (y2, dx2) = both(FUNCTIONS[name])
    scale = max(1, np.abs(y).max(), np.abs(dx).max())
    eps = np.finfo(np.float32).eps
    assert np.abs(y - y2).max() <= 8 * eps * scale and np.abs(dx - dx2).max() <= 8 * eps * scale


def test_dropout_draws_the_same_mask_on_every_device():
    found = []
    for device in ("cpu", EMULATOR):
        generator = fd.Generator(5)
        x = fd.Tensor(X, requires_grad=True, device=device)
        for _ in range(2):  # the second draw follows the first
            y = ops.dropout(x, 0.5, generator=generator)
        y.sum().backward()
        found.append((y.detach().cpu().numpy(), x.grad.cpu().numpy(), generator.get_state()))
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a, b)


def test_gradients_add_up_over_passes():
    x = there(X, requires_grad=True)
    for _ in range(2):
        (x * 3).sum().backward()
    assert np.array_equal(x.grad.cpu().numpy(), np.full_like(X, 6))
    x.grad = there(X)
    assert x.grad._array.pointer != x._array.pointer
    assert np.array_equal(x.grad.cpu().numpy(), X)


def test_mixed_devices_name_the_argument():
    text = (
        r"other must be on cuemu, where X is, got float32\(8, 5\) on cpu; move it by \.to\(\.\.\.\)"
    )
    with pytest.raises(RuntimeError, match=text):
        there(X) + X
    with pytest.raises(RuntimeError, match=r"W must be on cpu, where X is, got .* on cuemu"):
        ops.affine(X, there(np.ones((5, 2), np.float32)))


def test_out_is_written_on_the_device():
    x, y = there(X), there(np.zeros_like(X))
    assert ops.relu(x, out=y) is y
    assert np.array_equal(y.cpu().numpy(), np.maximum(X, 0))
    with pytest.raises(RuntimeError, match="Y must be on cuemu"):
        ops.relu(x, out=np.zeros_like(X))


@pytest.mark.skipif("affine_forward" in emulated(), reason="it has a kernel")
def test_a_kernel_that_is_missing_is_named():
    with pytest.raises(RuntimeError, match=r"affine_forward: .* no CUDA kernel yet; .*\.cpu\(\)"):
        ops.affine(there(X), there(np.ones((5, 2), np.float32)))


def test_a_step_on_a_device_is_not_captured():
    x = there(X)
    with pytest.raises(RuntimeError, match="arguments must be on cpu while a step is recorded"):
        fd.capture(lambda a: ops.relu(x) if a is not None else None)(X)
    assert not _core.recording()


# ---- values that a kernel cannot use ------------------------------------------------------------

LABEL_TEXT = r"t must be in \[0, 5\) or ignore_index, got 9 at row 3; found on the device"


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("read", ["item", "cpu", "synchronize"])
def test_a_bad_label_is_reported_when_somebody_waits(dtype, read):
    labels = LABELS.astype(dtype)
    labels[3] = 9
    loss = ops.cross_entropy(there(X), there(labels))
    with pytest.raises(ValueError, match=LABEL_TEXT):
        fd.cuda.synchronize(EMULATOR) if read == "synchronize" else getattr(loss, read)()
    fd.cuda.synchronize(EMULATOR)  # once
    labels[3] = -100
    rest = ops.cross_entropy(there(X), there(labels)).item()
    assert loss.item() == rest  # it was left out


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_a_bad_index_is_reported_and_nothing_beyond_is_touched(bad):
    index = np.full((8, 2), 1)
    index[2, 1] = bad
    x = there(X, requires_grad=True)
    y = x.gather(1, there(index))
    with pytest.raises(
        ValueError, match=rf"gather_forward: index must be in \[0, 5\), .* got {bad} "
    ):
        y.cpu()
    y.sum().backward()
    with pytest.raises(ValueError, match=rf"gather_backward: .* got {bad} at element 5"):
        x.grad.cpu()


def test_a_bad_interval_is_reported():
    state, high = to_device(np.array([1, 0]), EMULATOR), to_device(np.array(0), EMULATOR)
    _core.random_index(state, high, _core.empty_on(EMULATOR, (4,), np.dtype(np.int64)))
    with pytest.raises(ValueError, match="high must be at least 1, got 0"):
        fd.cuda.synchronize(EMULATOR)


# ---- training -----------------------------------------------------------------------------------


def trained(optimizer, device, steps=5, **options):
    params = [fd.nn.Parameter(fd.Tensor(x.copy(), device=device)) for x in (X, X[0], X[:0])]
    o = optimizer(params, lr=0.1, **options)
    for i in range(steps):
        o.zero_grad()
        (params[0] * params[1]).sum().backward()
        if i > 1:
            (params[2] * 2).sum().backward()
        o.step()
        o.param_groups[0]["lr"] *= 0.7
    return params, o


@pytest.mark.parametrize(
    "optimizer, options",
    [
        (fd.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (fd.optim.SGD, {"clip_norm": 1.0}),
        (fd.optim.AdamW, {"ema_decay": 0.9, "clip_norm": 0.5}),
        (fd.optim.Adam, {"amsgrad": True}),
    ],
    ids=str,
)
def test_optimizers_follow_those_of_the_cpu(optimizer, options):
    here, one = trained(optimizer, "cpu", **options)
    gone, other = trained(optimizer, EMULATOR, **options)
    for p, q in zip(here, gone, strict=True):
        assert q.device == EMULATOR
        np.testing.assert_allclose(q.detach().cpu().numpy(), p.detach().numpy(), rtol=2e-6)
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    for number, state in mine["state"].items():
        for name, value in state.items():
            np.testing.assert_allclose(theirs["state"][number][name], value, rtol=2e-6, atol=1e-7)


def test_state_dicts_go_from_device_to_device():
    _, here = trained(fd.optim.AdamW, "cpu")
    _, other = trained(fd.optim.AdamW, EMULATOR, steps=1)
    other.load_state_dict(here.state_dict())
    for number, state in here.state_dict()["state"].items():
        for name, value in state.items():
            assert np.array_equal(other.state_dict()["state"][number][name], value)


def test_params_of_a_group_are_on_one_device():
    with pytest.raises(ValueError, match="must be on one device, got cpu and cuemu"):
        fd.optim.SGD([fd.nn.Parameter(X.copy()), fd.nn.Parameter(there(X))], lr=0.1)


def test_a_module_moves_with_its_buffers():
    bn = fd.nn.BatchNorm1d(5)
    state = bn.state_dict()
    assert bn.to(EMULATOR) is bn
    assert {p.device for p in bn.parameters()} == {b.device for b in bn.buffers()} == {EMULATOR}
    bn(there(X))
    assert bn.num_batches_tracked.item() == 1
    after = bn.state_dict()
    assert all(type(a) is np.ndarray for a in after.values())
    np.testing.assert_allclose(after["running_mean"], 0.1 * X.mean(0), rtol=1e-5)
    bn.load_state_dict(state)
    assert np.array_equal(bn.running_mean.cpu().numpy(), np.zeros(5))
    with pytest.raises(RuntimeError, match=r"gamma must be on cpu, where X is"):
        bn(fd.Tensor(X))
    assert np.array_equal(bn.predict(X), fd.nn.BatchNorm1d(5).predict(X))
    bn.to(np.float64)
    assert bn.weight.device == EMULATOR and bn.weight.dtype == np.float64
    bn.to("cpu")
    assert type(bn.running_mean) is np.ndarray and bn.weight.device == "cpu"


def test_the_average_of_a_model_on_the_device():
    model = fd.nn.BatchNorm1d(5).to(EMULATOR)
    optimizer = fd.optim.SGD(model.parameters(), lr=0.5, ema_decay=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        (model(there(X)) * there(X)).sum().backward()
        optimizer.step()
    averaged = fd.optim.ema_model(model, optimizer)
    assert averaged.weight.device == EMULATOR
    assert not np.array_equal(averaged.weight.tolist(), model.weight.tolist())


# ---- memory -------------------------------------------------------------------------------------


def test_memory_of_the_device_is_let_go():
    code = """
        import fastdl as fd, numpy as np, resource
        x = np.ones((1 << 20,), np.float32)
        for i in range(400):
            t = fd.Tensor(x, device="cuemu")
            u = fd.ops.relu(t)[5:]
            del t, u
            if i == 20: start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
    """
    assert int(python(code).stdout) < 20_000  # KiB; a leak of one in two makes 800 000


def test_a_view_keeps_the_memory():
    view = there(X)[2:4]
    gc.collect()
    assert np.array_equal(view.cpu().numpy(), X[2:4])


def test_fresh_memory_is_nan_on_the_emulator():
    assert np.isnan(_core.empty_on(EMULATOR, (7,), np.dtype(np.float32)).numpy()).all()


def test_the_host_cannot_touch_the_memory_of_the_device():
    code = """
        import ctypes, numpy as np
        from fastdl import _core
        x = _core.empty_on("cuemu", (7,), np.dtype(np.float32))
        print("begin", flush=True)
        ctypes.c_float.from_address(x.pointer).value
    """
    done = python(code, check=False)
    assert done.stdout == "begin\n" and done.returncode == -signal.SIGSEGV


def test_a_kernel_cannot_leave_its_allocation():
    """Beyond the padding follows a page that stops the process."""
    x = _core.empty_on(EMULATOR, (3,), np.dtype(np.float32))
    longer = x.strided((4,), (4,))
    _core.copy(to_device(np.zeros(4, np.float32), EMULATOR), longer)
    del x, longer
    with pytest.raises(RuntimeError, match="wrote at byte 12 of an allocation of 12 bytes"):
        fd.cuda.synchronize(EMULATOR)


def test_arrays_of_the_device_refuse_what_numpy_would_copy():
    x = there(X)._array
    with pytest.raises(RuntimeError, match="C-contiguous"):
        x.transpose((1, 0)).reshape(40)
    with pytest.raises(ValueError, match="one size"):
        x.write(X[:3], False)
    with pytest.raises(ValueError, match="must not be negative"):
        _core.empty_on(EMULATOR, (-1,), np.dtype(np.float32))


def test_pinned_memory_is_an_array():
    batch = fd.cuda.pinned_empty((3, 5), device=EMULATOR)
    batch[:] = X[:3]
    assert batch.flags.owndata is False and batch.dtype == np.float32
    t = fd.Tensor(batch, device=EMULATOR)
    assert np.array_equal(t.cpu().numpy(), X[:3])
    assert np.array_equal(fd.Tensor(batch).to(EMULATOR, non_blocking=True).cpu().numpy(), X[:3])
    assert fd.cuda.pinned_empty(4, np.int64, device=EMULATOR).shape == (4,)
