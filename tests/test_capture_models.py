"""Captured functions of several models, losses and optimizers: replay = eager, bit for bit."""

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, optim

TAU = 0.05


def batch(seed, rows=32):
    rng = np.random.default_rng(seed)
    obs, following = rng.normal(size=(2, rows, 4)).astype(np.float32)
    done = (rng.random(rows) < 0.1).astype(np.float32)
    return obs, rng.integers(0, 3, rows), rng.normal(size=rows).astype(np.float32), following, done


def actor_critic():
    actor, critic, target = nn.MLP(4, 32, 3), nn.MLP(4, 32, 1), nn.MLP(4, 32, 1)
    target.load_state_dict(critic.state_dict())
    opts = [optim.Adam(actor.parameters(), lr=1e-3), optim.SGD(critic.parameters(), lr=1e-2)]

    def update(obs, action, reward, following, done):
        with fastdl.no_grad():
            goal = reward + target(following)[:, 0] * (1 - done) * 0.9
        value = critic(obs)[:, 0]
        critic_loss = ops.smooth_l1_loss(value, goal)
        opts[1].zero_grad()
        critic_loss.backward()
        opts[1].step()
        with fastdl.no_grad():
            advantage = goal - critic(obs)[:, 0]
        chosen = ops.gather(ops.log_softmax(actor(obs), 1), 1, action)
        actor_loss = -(chosen * advantage).mean()
        opts[0].zero_grad()
        actor_loss.backward()
        opts[0].step()
        with fastdl.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                ops.add(slow * (1 - TAU), fast * TAU, out=slow)
        return {"actor": actor_loss, "critic": critic_loss}

    return update, [actor, critic, target]


def accumulating():
    """Gradients of two parts of a batch, added up, then one step; the network is nested."""
    model = nn.Sequential(
        nn.MLP(4, 16, 8, norm="batch"), nn.LayerNorm(8), nn.Tanh(), nn.Affine(8, 3)
    )
    opt = optim.AdamW(model.parameters(), lr=1e-2)
    loss_fn = nn.CrossEntropyLoss()

    def update(obs, action, reward, following, done):
        model.train()
        opt.zero_grad()
        first = loss_fn(model(obs), action)
        first.backward()
        second = loss_fn(model(following), action) * 0.5
        second.backward()
        opt.step()
        model.eval()
        with fastdl.no_grad():
            return first, second, model(obs)

    return update, [model]


def alternating():
    """Two optimizers over parts of one model, one of which is not always due."""
    body, heads = nn.MLP(4, 16, 8, activation="tanh"), nn.ModuleList([nn.Affine(8, 3)] * 1)
    opts = [optim.SGD(body.parameters(), lr=0.1, momentum=0.9), optim.Adam(heads.parameters())]

    def update(obs, action, reward, following, done, both=True):
        loss = ops.cross_entropy(heads[0](body(obs)), action)
        for opt in opts[: 1 + both]:
            opt.zero_grad()
        loss.backward()
        for opt in opts[: 1 + both]:
            opt.step()
        return loss

    return update, [body, heads]


def values(x):
    if isinstance(x, dict):
        return [t.numpy() for t in x.values()]
    return [t.numpy() for t in x] if isinstance(x, tuple) else [x.numpy()]


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("make", [actor_critic, accumulating, alternating])
def test_replay_is_eager(make, threads):
    def train(wrap):
        fastdl.manual_seed(3)
        update, models = make()
        update = wrap(update)
        seen = []
        for i in range(60):
            options = {"both": i % 3 > 0} if make is alternating else {}
            seen += values(update(*batch(i), **options))
        return seen + [a for m in models for a in m.state_dict().values()]

    def eager(fn):
        return lambda *args, **kwargs: fn(*map(fastdl.Tensor, args), **kwargs)

    wanted = train(eager)
    fastdl.set_num_threads(threads)
    fastdl._core.set_work_per_thread(1024)
    for a, b in zip(train(fastdl.capture), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(train(lambda f: fastdl.capture(f, check=True)), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_program_serves_a_training_run():
    update, _ = actor_critic()
    step = fastdl.capture(update)
    for i in range(5):
        step(*batch(i))
    assert len(step.programs()) == 1
    losses = step.run(*batch(9, rows=320), batch_size=32, epochs=2)
    assert losses["actor"].shape == losses["critic"].shape == (20,)
    assert len(step.programs()) == 1
