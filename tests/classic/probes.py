"""Environments so small that the right answer is known, each able to fail for one reason only.

The first five are Andy Jones's probes ("Debugging RL, without the agonizing pain", 2021); the last three are ours, for
time limits and for the row on which Gymnasium resets a stream.
"""

from typing import Any

import gymnasium as gym
import numpy as np

MAGIC = 99.0  # an observation in which nobody ever acts


class Probe(gym.Env[np.ndarray, Any]):
    """Episodes of `length` steps that terminate; subclasses say what is seen and what is paid."""

    length = 1
    num_actions = 1
    observation_space = gym.spaces.Box(-100, 100, (1,))

    def __init__(self) -> None:
        self.action_space = gym.spaces.Discrete(self.num_actions)
        self.age = 0
        self.state = 0.0
        self.log: list[tuple[float, Any, float, float, bool, bool]] = []

    def observe(self) -> float:
        return 0.0

    def pay(self, action: Any) -> float:
        return 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.age = 0
        self.state = self.observe()
        return np.array([self.state], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        before, reward = self.state, self.pay(action)
        self.age += 1
        terminated, truncated = self.ends()
        self.state = self.last() if terminated or truncated else self.observe()
        self.log.append((before, action, reward, self.state, terminated, truncated))
        return np.array([self.state], dtype=np.float32), reward, terminated, truncated, {}

    def ends(self) -> tuple[bool, bool]:
        return self.age >= self.length, False

    def last(self) -> float:
        return self.observe()


class ConstantReward(Probe):
    """1: one action, reward 1. Value 1."""


class SeenReward(Probe):
    """2: the reward is the observation, -1 or 1. Value: the same."""

    def observe(self) -> float:
        return float(self.np_random.choice([-1.0, 1.0]))

    def pay(self, action: Any) -> float:
        return self.state


class LateReward(Probe):
    """3: two steps, reward 1 at the second. Values gamma and 1."""

    length = 2

    def observe(self) -> float:
        return float(self.age)

    def pay(self, action: Any) -> float:
        return float(self.age)


class TwoActions(Probe):
    """4: action 1 pays 1, action 0 costs 1."""

    num_actions = 2

    def pay(self, action: Any) -> float:
        return 1.0 if action == 1 else -1.0


class MatchAction(SeenReward):
    """5: action 1 pays where 1 is seen, action 0 where -1 is seen."""

    num_actions = 2

    def pay(self, action: Any) -> float:
        return 1.0 if (self.state > 0) == (action == 1) else -1.0


class ForEver(Probe):
    """6a: reward 1 in one and the same state, cut off after 5 steps. Value 1 / (1 - gamma)."""

    length = 5

    def ends(self) -> tuple[bool, bool]:
        return False, self.age >= self.length


class FiveSteps(Probe):
    """6b: reward 1, five steps and then nothing; the time is seen. Value (1 - gamma^5) / (1 - gamma) at first."""

    length = 5

    def observe(self) -> float:
        return self.age / self.length


class Sentinel(Probe):
    """7: some episodes terminate, some are cut off, some both at once; the last observation is MAGIC."""

    num_actions = 2

    def observe(self) -> float:
        return float(self.np_random.normal())

    def pay(self, action: Any) -> float:
        return float(self.np_random.normal())

    def ends(self) -> tuple[bool, bool]:
        chance = self.np_random.random(2)
        return bool(chance[0] < 0.2), bool(chance[1] < 0.2)

    def last(self) -> float:
        return MAGIC


class Reach(Probe):
    """8: a continuous action that should be what is seen; pays minus the squared distance."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1, 1, (1,))

    def observe(self) -> float:
        return float(self.np_random.uniform(-0.8, 0.8))

    def pay(self, action: Any) -> float:
        assert abs(action[0]) <= 1, "the action was not clipped to the bounds"
        return -float((action[0] - self.state) ** 2)


PROBES = (ConstantReward, SeenReward, LateReward, TwoActions, MatchAction, ForEver, FiveSteps, Sentinel, Reach)


def register_probes() -> None:
    """Make them known to `gymnasium.make_vec` as Probe<Name>-v0."""
    for probe in PROBES:
        name = f"Probe{probe.__name__}-v0"
        if name not in gym.registry:
            gym.register(name, entry_point=probe)
