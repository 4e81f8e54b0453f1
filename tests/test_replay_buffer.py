"""ReplayBuffer: the ring, batches, random streams, state, refusals."""

import fastdl
import numpy as np
import pytest
from fastdl.data import ReplayBuffer

FIELDS = {"obs": ((2, 3), np.float32), "action": np.int64, "reward": (1, "f8"), "done": np.uint8}


def transitions(first, count):
    """Transition k has the number k in all its fields."""
    k = np.arange(first, first + count)
    obs = np.broadcast_to(k[:, None, None], (count, 2, 3)).astype(np.float32)
    return {"obs": obs, "action": k, "reward": k[:, None] + 0.0, "done": (k % 200).astype("u1")}


def single(k):
    return {name: a[0] for name, a in transitions(k, 1).items()}


def stored(buffer):
    """The numbers of the transitions, in the order of memory; all fields agree."""
    state = buffer.state_dict()
    k = state["action"]
    assert all(np.array_equal(state[n], a) for n, a in same_numbers(k).items())
    return k.tolist()


def same_numbers(k):
    obs = np.broadcast_to(k[:, None, None], (len(k), 2, 3)).astype(np.float32)
    return {"obs": obs, "reward": k[:, None] + 0.0, "done": (k % 200).astype("u1")}


def filled(count, capacity=10):
    buffer = ReplayBuffer(capacity, FIELDS)
    buffer.add_batch(**transitions(0, count))
    return buffer


def test_transitions_come_one_by_one_by_name_or_position():
    buffer = ReplayBuffer(4, FIELDS)
    assert len(buffer) == 0 and buffer.capacity == 4
    buffer.add(**single(0))
    buffer.add(*single(1).values())
    buffer.add(np.full((2, 3), 2.0), 2, [2.0], 2)  # float64 and Python numbers
    buffer.add(np.zeros((2, 3), np.float32), np.int32(0), np.zeros(1, np.float32), False)
    assert len(buffer) == 4 and stored(buffer) == [0, 1, 2, 0]


def test_the_oldest_are_overwritten():
    buffer = ReplayBuffer(3, FIELDS)
    for k in range(5):
        buffer.add(**single(k))
    assert len(buffer) == 3 and stored(buffer) == [3, 4, 2]


@pytest.mark.parametrize("sizes", [[10], [7, 3], [7, 7], [4, 4, 4], [0, 3], [10, 1], [25], [3, 27]])
def test_a_batch_is_its_transitions_one_after_another(sizes):
    one, many = ReplayBuffer(10, FIELDS), ReplayBuffer(10, FIELDS)
    first = 0
    for size in sizes:
        many.add_batch(**transitions(first, size))
        for k in range(first, first + size):
            one.add(**single(k))
        first += size
    assert stored(many) == stored(one) and len(many) == len(one)
    many.add(**single(first))
    one.add(**single(first))
    assert stored(many) == stored(one)


def test_a_batch_keeps_transitions_together_and_draws_all_of_them():
    buffer = filled(7)
    batch = buffer.sample(2000)
    assert list(batch) == list(FIELDS)
    assert batch["obs"].shape == (2000, 2, 3) and batch["obs"].dtype == np.float32
    for name, a in same_numbers(batch["action"]).items():
        assert np.array_equal(batch[name], a)
    counts = np.bincount(batch["action"], minlength=10)
    assert (counts[:7] > 200).all() and not counts[7:].any()


def test_the_same_seed_draws_the_same_batches():
    buffer = filled(10)

    def actions(rng=None):
        return [buffer.sample(8, rng)["action"].tolist() for _ in range(3)]

    first = actions(fastdl.Generator(5))
    assert first == actions(fastdl.Generator(5)) != actions(fastdl.Generator(6))
    assert first[0] != first[1]
    fastdl.manual_seed(5)
    assert actions() == first
    assert actions(np.random.default_rng(0)) == actions(np.random.default_rng(0))


def test_out_receives_the_batch_in_the_same_arrays():
    buffer = filled(10)
    out = buffer.sample(16)
    before = dict(out)
    again = buffer.sample(16, fastdl.Generator(1), out)
    assert again is out and all(out[n] is before[n] for n in FIELDS)
    fresh = buffer.sample(16, fastdl.Generator(1))
    assert all(np.array_equal(out[n], fresh[n]) for n in FIELDS)


def test_state_goes_on_as_if_there_had_been_no_break(tmp_path):
    for count in (0, 7, 10, 14):
        buffer, other = filled(count), ReplayBuffer(10, FIELDS)
        fastdl.save(buffer.state_dict(), tmp_path / "buffer.safetensors")
        other.load_state_dict(fastdl.load(tmp_path / "buffer.safetensors"))
        for b in (buffer, other):
            b.add(**single(99))
        assert stored(other) == stored(buffer) and len(other) == len(buffer)
        a, b = (x.sample(8, fastdl.Generator(0))["action"].tolist() for x in (buffer, other))
        assert a == b


def test_state_fits_a_larger_buffer_unless_it_was_full():
    larger = ReplayBuffer(20, FIELDS)
    larger.load_state_dict(filled(7).state_dict())
    assert stored(larger) == list(range(7))
    for count in (10, 14):
        with pytest.raises(ValueError, match="that was full must have capacity 10, got 20"):
            ReplayBuffer(20, FIELDS).load_state_dict(filled(count).state_dict())


def test_refused_state_changes_nothing():
    buffer, state = filled(7), filled(5).state_dict()
    missing = {n: a for n, a in state.items() if n != "done"}
    for wrong, raises, text in [
        (missing, TypeError, "state must have the fields"),
        ({**state, "obs": state["obs"][:, 0]}, ValueError, "obs must be"),
        ({**state, "done": state["done"].astype(int)}, ValueError, "done must be uint8"),
        ({**state, "reward": state["reward"][:4]}, ValueError, "reward must be"),
        ({**state, "_position": np.array(3)}, ValueError, "capacity"),
        (filled(12, 20).state_dict(), ValueError, "capacity"),
    ]:
        with pytest.raises(raises, match=text):
            buffer.load_state_dict(wrong)
        assert stored(buffer) == list(range(7))


@pytest.mark.parametrize(
    "change, raises, text",
    [
        ({"obs": np.zeros(3)}, ValueError, r"add: obs must have shape \(2, 3\), got float64\(3\)"),
        (
            {"action": 1.5},
            TypeError,
            "add: action must be of a dtype that int64 holds",
        ),
        ({"done": np.int64(1)}, TypeError, "add: done must be of a dtype that uint8 holds"),
        ({"obs": np.zeros((2, 3), int)}, TypeError, "add: obs must be of a dtype that float32"),
        ({"done": 256}, ValueError, "add: done must fit uint8, got 256"),
        ({"action": [1]}, ValueError, r"add: action must have shape \(\)"),
        ({"extra": 1}, TypeError, "add: fields must be .*'extra'"),
    ],
)
def test_refused_transitions_change_nothing(change, raises, text):
    buffer = filled(3)
    with pytest.raises(raises, match=text):
        buffer.add(**{**single(3), **change})
    assert stored(buffer) == [0, 1, 2]


def test_refused_calls():
    buffer = filled(3)
    with pytest.raises(TypeError, match=r"fields must be .*all by name or all by position, got 2"):
        buffer.add(1, 2)
    with pytest.raises(TypeError, match=r"fields must be .*1 values and \['action'\]"):
        buffer.add(1, action=2)
    with pytest.raises(ValueError, match=r"add_batch: action must have shape \(4,\), got int64\(3"):
        buffer.add_batch(**{**transitions(0, 4), "action": np.arange(3)})
    with pytest.raises(ValueError, match="sample: the buffer must hold a transition"):
        ReplayBuffer(3, FIELDS).sample(2)
    with pytest.raises(ValueError, match="sample: batch_size must be at least 1, got 0"):
        buffer.sample(0)
    with pytest.raises(TypeError, match=r"sample: rng must be a fastdl.Generator .*got int"):
        buffer.sample(2, 5)
    assert stored(buffer) == [0, 1, 2]


def test_refused_out():
    buffer = filled(3)
    good = buffer.sample(4)
    for wrong, raises, text in [
        ({"obs": good["obs"]}, TypeError, "out must have"),
        ({**good, "obs": good["obs"][:3]}, ValueError, r"out\['obs'\] must have shape \(4, 2, 3\)"),
        ({**good, "done": good["done"].astype(bool)}, TypeError, r"out\['done'\] must be of uint8"),
        ({**good, "done": [0] * 4}, TypeError, r"out\['done'\] must be of uint8, got list"),
        ({**good, "action": np.zeros(8, int)[::2]}, ValueError, "C-contiguous"),
    ]:
        state = fastdl.random.default_generator.get_state()
        with pytest.raises(raises, match=text):
            buffer.sample(4, out=wrong)
        assert np.array_equal(fastdl.random.default_generator.get_state(), state)


@pytest.mark.parametrize(
    "capacity, fields, raises",
    [
        (0, FIELDS, ValueError),
        (2.5, FIELDS, TypeError),
        (3, {}, TypeError),
        (3, [("a", "f4")], TypeError),
        (3, {"a": "nonsense"}, TypeError),
        (3, {"a": (-1, "f4")}, TypeError),
        (3, {"a": object}, TypeError),
    ],
    ids=str,
)
def test_refused_buffers(capacity, fields, raises):
    with pytest.raises(raises, match=r"ReplayBuffer|integer"):
        ReplayBuffer(capacity, fields)


def test_a_captured_step_takes_its_batch_as_arguments():
    buffer = filled(10)

    @fastdl.capture
    def wrong(x):
        return x * fastdl.Tensor(buffer.sample(4)["reward"])

    with pytest.raises(fastdl.CaptureError, match="samples a replay buffer"):
        wrong(np.ones((4, 1)))

    @fastdl.capture
    def total(reward, **_):
        return reward.sum()

    batch = buffer.sample(4)
    for _ in range(3):
        batch = buffer.sample(4, out=batch)
        assert total(**batch).item() == batch["reward"].sum()
    assert len(total.programs()) == 1


def test_repr_names_the_fields():
    assert repr(filled(3)) == (
        "<ReplayBuffer, 3 of 10, obs: float32(2, 3), action: int64(), reward: float64(1), "
        "done: uint8()>"
    )
