"""Where data waits for training: `ReplayBuffer`."""

from fastdl.data.replay_buffer import ReplayBuffer

__all__ = ["ReplayBuffer"]
