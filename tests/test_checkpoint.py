"""Checkpoints of a run: a resumed run is the uninterrupted one, a bad file changes nothing."""

from __future__ import annotations

import fastdl
import numpy as np
import pytest
from training import Press, X, Y, classifier, fit, weights

EARLY = {"validation": 0.25, "patience": 4, "min_delta": 1e9}  # the first epoch stays the best


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"validation": 0.25, "patience": 3}, {"validation": (X, Y)}, EARLY]
)
def test_resumed_run_is_the_uninterrupted_one(tmp_path, stop, options):
    options = {"batch_size": 50, "epochs": 6, **options}
    whole = classifier()
    history = fit(whole, checkpoint=tmp_path / "whole", **options)
    fit(classifier(), checkpoint=tmp_path / "part", **{**options, "epochs": stop})
    resumed = classifier(seed=9)
    resumed.resume(tmp_path / "part")
    assert resumed.epoch == stop
    again = fit(resumed, checkpoint=tmp_path / "part", **options)
    assert again.to_dict() == history.to_dict() and again.best_epoch == history.best_epoch
    assert weights(resumed) == weights(whole)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_resume_after_ctrl_c(tmp_path):
    whole = classifier()
    fit(whole, epochs=5)
    with pytest.warns(UserWarning, match="interrupted"):
        fit(classifier(), epochs=5, checkpoint=tmp_path / "c", callbacks=[Press(3)])
    resumed = classifier(seed=9).resume(tmp_path / "c")
    fit(resumed, epochs=5)
    assert weights(resumed) == weights(whole)


def test_resume_is_all_or_nothing(tmp_path):
    fit(classifier(), checkpoint=tmp_path / "c", epochs=1)
    state = fastdl.load(tmp_path / "c")
    broken = [
        {},
        {**state, "kind": "other"},
        {name: value for name, value in state.items() if name != "history"},
        {**state, "history": {"loss": [1.0, 2.0]}},
        {**state, "model": {"0.W": np.zeros((2, 32), np.float32)}},
        {**state, "optimizer": {"state": {}, "param_groups": []}},
        {**state, "optimizer": 3},
        {**state, "generators": []},
        {**state, "generators": [np.array([-1, 0])]},
        {**state, "generators": [np.array([1.5, 0])]},
    ]
    trainer = classifier(seed=4)
    fit(trainer, epochs=2)
    before = trainer.state_dict()
    fastdl.save(before, tmp_path / "before")
    for mapping in broken:
        fastdl.save(mapping, tmp_path / "c")
        with pytest.raises((ValueError, TypeError)):
            trainer.resume(tmp_path / "c")
        fastdl.save(trainer.state_dict(), tmp_path / "after")
        assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
    (tmp_path / "c").write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        trainer.resume(tmp_path / "c")


def test_resume_must_record_the_same(tmp_path):
    fit(classifier(), checkpoint=tmp_path / "c", epochs=1)
    trainer = classifier().resume(tmp_path / "c")
    with pytest.raises(ValueError, match="resumed run must record"):
        fit(trainer, validation=0.2)
