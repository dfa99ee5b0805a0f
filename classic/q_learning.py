"""Lesson 2: Q-learning, with Sarsa and Expected Sarsa beside it, judged exactly.

A table holds Q(s, a), the discounted reward to come after action a in state s. Each step moves one entry towards what
was seen (Sutton and Barto 2018, equations 6.7 to 6.9):

    Q(s, a) <- Q(s, a) + alpha * (r + gamma * bootstrap(s') - Q(s, a))

The three methods differ in the bootstrap alone: the best action in s' (Q-learning), the action that is taken there
(Sarsa), the mean over the actions that could be taken (Expected Sarsa). It is 0 where the episode terminated, and it is
not 0 where a time limit cut the episode off: s' has a future, only not in this episode.

What comes out is judged by dynamic programming on the environment's own table, never by playing; the learner does not
see that table. Left out: eligibility traces, double Q-learning, planning; anything with torch.

    python -m classic.q_learning --env FrozenLake-v1 --seed 0
    python -m classic.q_learning --env CliffWalking-v1 --method expected_sarsa --seeds 10 --out runs/cliff
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.q_learning_command")


import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from classic.dynamic_programming import (
    epsilon_greedy_policy,
    expected_return,
    greedy_policy,
    reachable_states,
    value_iteration,
)
from classic.errors import LessonError
from classic.q_table import Method, QTable, StepSize, epsilon_greedy_actions
from classic.schedules import Schedule
from classic.settings_checks import require_numbers
from classic.table_streams import Moves, TableStreams
from classic.tabular_model import Floats, Integers, TabularModel

ROUNDS_OF_PROGRESS = 1024  # some hundredths of a second


@dataclass(frozen=True)
class Settings:
    """All that decides a run, besides the environment and the seed."""

    method: Method = "q_learning"
    gamma: float = 0.99
    alpha: Schedule = field(default_factory=lambda: Schedule(0.1))
    step_size: StepSize = "schedule"  # the other two count visits and leave alpha aside
    epsilon: Schedule = field(default_factory=lambda: Schedule(1.0, 0.1, "linear", 0.5))
    initial_value: float = 0.0
    num_streams: int = 64
    num_steps: int = 1_000_000  # environment steps of all streams together
    num_evaluations: int = 40

    def __post_init__(self) -> None:
        require_numbers(self)
        if not 0 <= self.gamma <= 1:
            raise LessonError(f"got gamma {self.gamma}; a discount lies between 0 and 1: type --gamma 0.99")
        for name, schedule in (("alpha", self.alpha), ("epsilon", self.epsilon)):
            ends = [schedule.start, schedule.start if schedule.end is None else schedule.end]
            if not all(0 <= end <= 1 for end in ends):
                raise LessonError(f"got {name} {ends[0]} to {ends[1]}; it lies between 0 and 1: type --{name} 0.1")
        if self.num_steps < self.num_streams * self.num_evaluations:
            needed = self.num_streams * self.num_evaluations
            raise LessonError(
                f"got a budget of {self.num_steps:,} steps; {self.num_streams} streams and {self.num_evaluations} "
                f"evaluations need {needed:,}: type --steps {needed}, or --streams 1 --evaluations 1"
            )


@dataclass(frozen=True)
class Point:
    """What is known exactly at one moment of the training."""

    step: int  # environment steps so far
    greedy_return: float  # mean return of an episode without exploration
    online_return: float  # the same with the exploration of this moment
    q_error: float  # largest |Q - Q*| over the states that can be reached


@dataclass(frozen=True)
class Result:
    """The learned table and how it got there."""

    q: Floats  # (S, A)
    visits: Integers  # (S, A)
    points: list[Point]
    num_steps: int
    num_episodes: int
    seconds: float  # of learning alone; the judging is not counted
    saw_reward: bool  # False: every reward was 0, so nothing can have been learned


class Learner:
    """One table, its streams and its chance; `step` is one move in every stream and one update."""

    def __init__(self, model: TabularModel, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._generator = np.random.default_rng(seed)
        self._streams = TableStreams(model, settings.num_streams, self._generator)
        self.table = QTable((model.num_states, model.num_actions), settings.initial_value)
        self._actions = self._choose(self._streams.states, settings.epsilon(0.0))
        self.num_episodes = 0
        self.saw_reward = False

    def step(self, progress: float) -> None:
        """Act, see, choose the next actions, learn. `progress` (0 to 1) is how much of the budget is spent."""
        settings, epsilon = self._settings, self._settings.epsilon(progress)
        states, actions = self._streams.states, self._actions
        moves = self._streams.step(actions)
        # Sarsa must do what it bootstraps from, so the choice comes before the update, for all three methods.
        next_actions = self._choose(moves.next_states, epsilon)
        self.table.update(
            states,
            actions,
            moves,
            next_actions,
            method=settings.method,
            gamma=settings.gamma,
            epsilon=epsilon,
            alpha=settings.alpha(progress),
            step_size=settings.step_size,
        )
        self._actions = self._at_first_states(next_actions, moves, epsilon)
        self.saw_reward = self.saw_reward or bool(moves.rewards.any())

    def _choose(self, states: Integers, epsilon: float) -> Integers:
        return epsilon_greedy_actions(self.table.q[states], epsilon, self._generator)

    def _at_first_states(self, actions: Integers, moves: Moves, epsilon: float) -> Integers:
        """A stream that started anew stands elsewhere than it got to, so it chooses again."""
        ended = np.flatnonzero(moves.terminated | moves.truncated)
        self.num_episodes += len(ended)
        if len(ended):
            actions[ended] = self._choose(self._streams.states[ended], epsilon)
        return actions


def learn(
    model: TabularModel,
    settings: Settings,
    seed: int,
    on_point: Callable[[Point], None] = lambda point: None,
    on_steps: Callable[[int], None] = lambda num_steps: None,
) -> Result:
    """Train one table.

    Args:
        model: the learner steps it and sees states, rewards and ends; its probabilities are for judging only.
        settings: see there.
        seed: of all chance; one seed gives one table, to the last bit.
        on_point: called at each evaluation, for progress and live plots.
        on_steps: called with the environment steps so far, more often: evaluations of a large budget are far apart.
    """
    judge = Judge(model, settings)
    learner = Learner(model, settings, seed)
    num_rounds = settings.num_steps // settings.num_streams
    points: list[Point] = []
    seconds, first = 0.0, 0
    for number in range(1, settings.num_evaluations + 1):
        last = round_of_evaluation(number, settings)
        began = time.perf_counter()
        for finished in range(first, last):
            if finished % ROUNDS_OF_PROGRESS == 0:
                on_steps(finished * settings.num_streams)
            learner.step(finished / num_rounds)
        seconds += time.perf_counter() - began
        points.append(judge(learner.table.q, last * settings.num_streams, last / num_rounds))
        on_point(points[-1])
        first = last
    return Result(
        q=learner.table.q,
        visits=learner.table.visits,
        points=points,
        num_steps=num_rounds * settings.num_streams,
        num_episodes=learner.num_episodes,
        seconds=seconds,
        saw_reward=learner.saw_reward,
    )


def round_of_evaluation(number: int, settings: Settings) -> int:
    """After how many moves of every stream the evaluation of this number (1 to the last) is; evenly spaced."""
    num_rounds = settings.num_steps // settings.num_streams
    if number == settings.num_evaluations:
        return num_rounds
    return int(number * (num_rounds / settings.num_evaluations))


class Judge:
    """Exact figures of a table: what its policies earn, and how far it is from the best table of its kind."""

    def __init__(self, model: TabularModel, settings: Settings) -> None:
        self._model = model
        self._epsilon = settings.epsilon
        self._reachable = reachable_states(model)
        # Q-learning strives for the best policy, the other two for the best one that explores as they do at the end.
        epsilon = 0.0 if settings.method == "q_learning" else settings.epsilon(1.0)
        self._best = value_iteration(model, settings.gamma, epsilon=epsilon, tolerance=1e-10)

    def __call__(self, q: Floats, step: int, progress: float) -> Point:
        online = epsilon_greedy_policy(q, self._epsilon(progress))
        return Point(
            step=step,
            greedy_return=expected_return(self._model, greedy_policy(q)),
            online_return=expected_return(self._model, online),
            q_error=float(np.abs(q - self._best)[self._reachable].max()),
        )
