"""Lesson 1: an agent acts, an environment answers with a state and a reward, and the agent is to make the most of it.

Three agents walk over the frozen lake, where two of three steps slip to the side: one at random, one that follows the
best table (an action for each state), one that also looks at the clock. A fourth is you. The exact chance of each to
reach the goal is known (0.014, 0.740, 0.744), and beside it stands what some hundred episodes of playing show, with the
interval in which that would fall by luck alone.

Words: the policy says which action to take in a state; the return is the sum of the rewards of an episode; the value of
a state is the return to expect from there. Left out: learning, which begins in `classic.q_learning`; torch and pygame.

    python -m classic.what_is_rl                 the three agents, exact and by playing
    python -m classic.what_is_rl --seeds 10 --out runs/what_is_rl
    python -m classic.what_is_rl --play          you drive: arrow keys or WASD, q to stop
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.what_is_rl_command")


import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from classic.dynamic_programming import (
    best_policy_with_clock,
    best_return_with_clock,
    expected_return,
    greedy_policy,
    value_iteration,
)
from classic.errors import LessonError
from classic.luck import success_interval
from classic.tabular_model import Floats, Integers, TabularModel

# The actions of each environment, by what a player would press. Gymnasium numbers them differently in each.
KEYS = {
    "FrozenLake": {"left": 0, "down": 1, "right": 2, "up": 3},
    "CliffWalking": {"up": 0, "right": 1, "down": 2, "left": 3},
    "Taxi": {"down": 0, "up": 1, "right": 2, "left": 3, "p": 4, "o": 5},
}
SUPERVISED_AND_REINFORCEMENT = [
    ["feedback", "the right answer for each example", "a reward, which does not say what was right"],
    ["data", "given, the same whatever is predicted", "made by the agent's own actions"],
    ["goal", "small error on examples like the given ones", "large sum of rewards to come"],
    ["examples", "reading digits, translating, spam", "games, robots, bids, aligning language models"],
]


class Agent(Protocol):
    """Whatever chooses actions."""

    def act(self, state: int, step: int) -> int:
        """The action in this state, `step` steps after the episode began."""
        ...


@dataclass
class RandomAgent:
    """Any action, whatever the state."""

    action_space: Any  # of the environment; seeded by `play`

    def act(self, state: int, step: int) -> int:
        return int(self.action_space.sample())


@dataclass
class TableAgent:
    """One action for each state: all that a Q-table can say."""

    actions: Sequence[int]  # (S,)

    def act(self, state: int, step: int) -> int:
        return int(self.actions[state])


@dataclass
class ClockAgent:
    """One action for each state and number of steps left: with few steps left it pays to take risks."""

    actions: Any  # (K + 1, S), row k for k steps left, the last one also for more
    num_steps: int  # of an episode, the time limit

    def act(self, state: int, step: int) -> int:
        return int(self.actions[min(self.num_steps - step, len(self.actions) - 1), state])


@dataclass
class Driver:
    """You."""

    keys: Iterator[str]
    actions: dict[str, int]  # key to action

    def act(self, state: int, step: int) -> int:
        for key in self.keys:
            if key in self.actions:
                return self.actions[key]
            if key == "q":
                break
        raise StopDrivingError


class StopDrivingError(Exception):
    """The driver pressed q, or the input ended."""


@dataclass(frozen=True)
class Step:
    """What one action led to."""

    state: int  # in which the agent acted
    action: int
    reward: float
    next_state: int
    terminated: bool  # nothing is to come
    truncated: bool  # the time limit cut it off


def play(env: Any, agent: Agent, seed: int | None = None) -> Iterator[Step]:
    """The loop of reinforcement learning, one episode: state, action, reward, next state.

    Args:
        env: a Gymnasium environment with numbered states.
        agent: see `Agent`.
        seed: of the environment and of its action space; None goes on with the chance of the episode before.
    """
    state, _ = env.reset(seed=seed)
    if seed is not None:
        env.action_space.seed(seed)
    return steps_from(env, agent, int(state))


def steps_from(env: Any, agent: Agent, state: int) -> Iterator[Step]:
    """The steps to the end of an episode that was just reset to this state."""
    ended, number = False, 0
    while not ended:
        action = agent.act(state, number)
        next_state, reward, terminated, truncated, _ = env.step(action)
        yield Step(state, action, float(reward), int(next_state), bool(terminated), bool(truncated))
        state, ended, number = int(next_state), terminated or truncated, number + 1


@dataclass(frozen=True)
class Played:
    """N episodes of one agent, one after the other."""

    returns: Floats  # (N,)
    lengths: Integers  # (N,) steps

    def running_means(self) -> Floats:
        """(N,) mean return of the first 1, 2, ... N episodes."""
        return np.asarray(self.returns.cumsum() / np.arange(1, len(self.returns) + 1))


def play_on(
    env: Any, agent: Agent, seed: int, *, num_episodes: int | None = None, num_steps: int | None = None
) -> Played:
    """Whole episodes until there are so many, or until so many steps are spent.

    The trap: an episode that a budget of steps would cut off must be played to its end and counted. Cut off are mostly
    long episodes, and on the lake the long ones are those that reach the goal. (With it, the expected sum of returns is
    the mean return times the expected number of episodes: Wald's equation, Wald 1944, "On cumulative sums of random
    variables", equation 4.)

    Args:
        env: see `play`.
        agent: likewise.
        seed: of the first episode; the others go on from there.
        num_episodes: how many, or
        num_steps: how long.
    """
    returns: list[float] = []
    lengths: list[int] = []
    spent, enough = 0, (num_steps if num_episodes is None else num_episodes) or 1
    while spent < enough:
        rewards = [step.reward for step in play(env, agent, None if returns else seed)]
        returns.append(sum(rewards))
        lengths.append(len(rewards))
        spent += len(rewards) if num_episodes is None else 1
    return Played(np.array(returns), np.array(lengths))


def returns_of_playing(env: Any, agent: Agent, num_episodes: int, seed: int) -> Floats:
    """(N,) returns of episodes one after the other; the first is seeded, the others go on from there."""
    return play_on(env, agent, seed, num_episodes=num_episodes).returns


def agents_of(model: TabularModel, env: Any) -> dict[str, tuple[Agent, float]]:
    """Name to agent and its exact mean return."""
    anything = np.full((model.num_states, model.num_actions), 1 / model.num_actions)
    best = greedy_policy(value_iteration(model, 0.99))
    agents: dict[str, tuple[Agent, float]] = {
        "random": (RandomAgent(env.action_space), expected_return(model, anything)),
        "best table": (TableAgent(best.argmax(-1).tolist()), expected_return(model, first_of_ties(best))),
    }
    if model.max_episode_steps is not None:
        clock = ClockAgent(best_policy_with_clock(model), model.max_episode_steps)
        agents["best with a clock"] = (clock, best_return_with_clock(model))
    return agents


def first_of_ties(policy: Floats) -> Floats:
    """(S, A) the policy that always takes the first of its likeliest actions."""
    return np.eye(policy.shape[1])[policy.argmax(-1)]


def interval_of(returns: Floats) -> tuple[float, float]:
    """Wilson's interval where each return is 0 or 1, else `sampling_interval`; nan of one episode, which tells none."""
    if np.isin(returns, (0.0, 1.0)).all():
        return success_interval(int(returns.sum()), len(returns))
    return sampling_interval(returns) if len(returns) > 1 else (math.nan, math.nan)


def sampling_interval(returns: Floats) -> tuple[float, float]:
    """Mean -+ 1.96 standard errors: where the mean of as many other episodes would lie, 95 times in 100."""
    margin = 1.96 * float(returns.std()) / len(returns) ** 0.5
    return float(returns.mean()) - margin, float(returns.mean()) + margin


def keys_of(env_id: str) -> dict[str, int]:
    """Key to action.

    Raises:
        LessonError: nobody has said which key is which action there.
    """
    for name, keys in KEYS.items():
        if env_id.startswith(name):
            return keys
    raise LessonError(f"no keys are known for {env_id}: type --env FrozenLake-v1, CliffWalking-v1 or Taxi-v4")


def drive(env: Any, keys: Iterable[str], actions: dict[str, int], seed: int) -> Iterator[str]:
    """You drive episode after episode: yields what to show, until q is pressed or the keys end.

    Args:
        env: made with `render_mode="ansi"`, so that it draws itself as text.
        keys: names as `classic.keyboard.read_keys` gives them.
        actions: key to action.
        seed: of the first episode.
    """
    driver = Driver(iter(keys), actions)
    returns: list[float] = []
    names = {action: key for key, action in actions.items()}
    try:
        for episode_seed in [seed, *[None] * 9999]:
            total = 0.0
            state, _ = env.reset(seed=episode_seed)
            yield f"episode {len(returns) + 1}\n{env.render()}"
            for step in steps_from(env, driver, int(state)):
                total += step.reward
                yield f"{env.render()}you pressed {names[step.action]}: reward {step.reward:g}, return {total:g}"
            returns.append(total)
            ending = "terminated" if step.terminated else "truncated by the time limit"
            yield f"{ending}; mean return of {len(returns)} episodes: {np.mean(returns):.3f}"
    except StopDrivingError:
        yield f"{len(returns)} episodes" + (f", mean return {np.mean(returns):.3f}" if returns else "")
