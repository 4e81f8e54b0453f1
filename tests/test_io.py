"""`save` and `load`: what comes back is what went in, or a clear error; never half a file."""

from __future__ import annotations

import math
import os
import signal
import stat
import subprocess
import sys
import textwrap

import fastdl
import numpy as np
import pytest
import safetensors.numpy
from fastdl import _files, nn
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from subprocesses import python

DTYPES = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]

texts = st.text('a.é$#"\\\n\0\ud800', max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
)
keys = st.text("a.é$#", max_size=4) | st.integers() | st.just("$array")
trees = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    """Equal in type, structure and bits."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and (a.tobytes() == b.tobytes())
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (a != a and b != b) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


@given(st.dictionaries(keys, trees, max_size=4))
def test_what_comes_back_is_what_went_in(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    fastdl.save(tree, path)
    assert same(fastdl.load(path), tree)


def test_flat_state_dict_is_a_plain_safetensors_file(tmp_path):
    state = nn.MLP([3, 4, 2]).state_dict()
    fastdl.save(state, tmp_path / "m.safetensors")
    assert list(fastdl.load(tmp_path / "m.safetensors")) == list(state)
    other = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert other.keys() == state.keys()
    assert all(same(other[name], value) for name, value in state.items())


def test_file_of_another_program_loads_as_a_flat_mapping(tmp_path):
    weights = {"b": np.arange(3.0), "a": np.ones((2, 2), np.int8)}
    safetensors.numpy.save_file(weights, tmp_path / "f", {"format": "pt"})
    loaded = fastdl.load(tmp_path / "f")
    assert loaded.keys() == weights.keys() and all(same(loaded[k], weights[k]) for k in weights)


def test_tensors_parameters_and_awkward_arrays(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    tree = {
        "tensor": fastdl.Tensor(x),
        "parameter": nn.Parameter(x),
        "transposed": x.T,
        "strided": x[::2, ::-1],
        "big-endian": x.astype(">f4"),
        "scalar": np.float32(0.1),
        "0-d": np.array(3, np.int64),
    }
    fastdl.save(tree, tmp_path / "f")
    got = fastdl.load(tmp_path / "f")
    assert (
        same(got["tensor"], x) and same(got["parameter"], x) and same(got["transposed"], x.T.copy())
    )
    assert same(got["strided"], x[::2, ::-1].copy()) and same(got["big-endian"], x)
    assert same(got["scalar"], float(np.float32(0.1))) and same(got["0-d"], tree["0-d"])
    assert got["tensor"].flags.writeable


def test_optimizer_state_goes_through(tmp_path):
    model = nn.MLP([3, 4, 2])
    optimizer = fastdl.optim.Adam(model.parameters(), lr=0.1)
    nn.CrossEntropyLoss()(
        model(fastdl.Tensor(np.ones((2, 3), np.float32))), np.array([0, 1])
    ).backward()
    optimizer.step()
    fastdl.save({"optimizer": optimizer.state_dict()}, tmp_path / "f")
    twin = fastdl.optim.Adam(nn.MLP([3, 4, 2]).parameters())
    twin.load_state_dict(fastdl.load(tmp_path / "f")["optimizer"])
    fastdl.save(twin.state_dict(), tmp_path / "g")
    fastdl.save(optimizer.state_dict(), tmp_path / "h")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "h").read_bytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": [1, object()]}}, r"mapping\['a'\]\['b'\]\[1\] must be an array"),
        ({"a": {1, 2}}, r"mapping\['a'\] .*got set"),
        ({"a": 1j}, r"mapping\['a'\] .*got complex"),
        ({"a": np.ones(2, np.complex128)}, r"mapping\['a'\] .*got dtype complex128"),
        ({"a": np.array(["x"])}, r"mapping\['a'\] .*got dtype <U1"),
        ({"a": np.array([None])}, r"mapping\['a'\] .*got dtype object"),
        ({"a": {(1, 2): 3}}, r"keys of mapping\['a'\] must be strings or numbers, got \(1, 2\)"),
        ([1], "save: mapping must be a mapping, got list"),
    ],
)
def test_values_that_cannot_be_stored(tmp_path, value, text):
    path = tmp_path / "f"
    fastdl.save({"old": 1}, path)
    with pytest.raises(TypeError, match=text):
        fastdl.save(value, path)
    assert fastdl.load(path) == {"old": 1} and os.listdir(tmp_path) == ["f"]


def test_a_mapping_inside_itself(tmp_path):
    loop: dict[str, object] = {}
    loop["me"] = loop
    with pytest.raises(ValueError, match="nested at most 100 levels"):
        fastdl.save(loop, tmp_path / "f")


def test_every_damaged_byte_and_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "f"
    fastdl.save({"w": np.arange(5, dtype=np.float32), "list": [1, "two"]}, path)
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), 5)] + [whole[:-1], whole + b"\0"]
    damaged += [
        whole[:i] + bytes([whole[i] ^ 1 << i % 7]) + whole[i + 1 :] for i in range(len(whole))
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a whole safetensors file, got a damaged"):
            fastdl.load(path)


@pytest.mark.parametrize(
    "header",
    [
        "not json",
        "[" * 100_000,
        '{"format": 2, "sha256": "", "tree": {}}',
        '{"format": 1, "sha256": "", "tree": {"w": {"$array": "w"}}}',
        '{"format": 1}',
        "[]",
        "9" * 5000,
    ],
)
def test_hostile_structure(tmp_path, header):
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "f", {"fastdl": header})
    with pytest.raises(ValueError, match="damaged"):
        fastdl.load(tmp_path / "f")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, b"PK\x03\x04" + b"x" * 60, b"\x80\x04pickle!"]
)
def test_files_that_are_something_else(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or foreign"):
        fastdl.load(tmp_path / "f")


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        fastdl.load(tmp_path / "none")
    with pytest.raises(OSError, match="must be a regular file"):
        fastdl.load(tmp_path)
    with pytest.raises(OSError, match="must be a file, got the folder"):
        fastdl.save({}, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of .* must exist"):
        fastdl.save({}, tmp_path / "none" / "f")
    with pytest.raises(OSError, match="must be a regular file"):
        fastdl.load("/dev/null")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "f"
    fastdl.save({"version": 1}, path)

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(_files.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        fastdl.save({"version": 2}, path)
    monkeypatch.undo()
    assert fastdl.load(path) == {"version": 1} and os.listdir(tmp_path) == ["f"]


def test_a_killed_save_leaves_the_old_file(tmp_path):
    """SIGKILL arrives when the new content is half on its way to the disk."""
    path = tmp_path / "f"
    fastdl.save({"w": np.zeros(1000)}, path)
    code = f"""
        import os, time, numpy as np, fastdl
        def wait(descriptor):
            print("writing", flush=True)
            time.sleep(60)
        os.fsync = wait
        fastdl.save({{"w": np.ones(1000)}}, {str(path)!r})
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert not fastdl.load(path)["w"].any()
    fastdl.save({"w": np.ones(1000)}, path)
    assert fastdl.load(path)["w"].all()


def test_links_are_followed_and_modes_kept(tmp_path):
    fastdl.save({"version": 1}, tmp_path / "f")
    (tmp_path / "f").chmod(0o640)
    (tmp_path / "link").symlink_to("f")
    fastdl.save({"version": 2}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and fastdl.load(tmp_path / "f") == {"version": 2}
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_without_safetensors(tmp_path):
    done = python(
        f"""
        import sys
        sys.modules["safetensors"] = sys.modules["safetensors.numpy"] = None
        import fastdl
        for call in (lambda: fastdl.save({{}}, {str(tmp_path / "f")!r}), lambda: fastdl.load("x")):
            try:
                call()
            except ImportError as error:
                print(error)
        """
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and not os.listdir(tmp_path)
    assert all("needs safetensors" in x and 'pip install "fastdl[train]"' in x for x in lines)
