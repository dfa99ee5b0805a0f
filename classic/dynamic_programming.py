"""Exact answers for tabular environments: the best values, and what a policy is worth, without a single sample.

An average over 100 episodes of FrozenLake is off by 0.044 (one standard deviation), so a perfect policy fails
Gymnasium's threshold of 0.70 in 15 of 100 such tests, and shows 0.78 or more in 22. Dynamic programming has no noise.

Two traps. The value of the start state under gamma 0.99 (0.542 on FrozenLake) is not the chance to reach the goal
(0.740): use gamma 1 and the time limit for that. And a time limit makes the best action depend on the time left, which
a table over states can not say: `best_return_with_clock` (0.744) is above anything that Q-learning can reach.

Left out: policy iteration and environments too large for arrays of (states, actions, outcomes).

    python -m pytest tests/classic/test_dynamic_programming.py
"""

from collections.abc import Iterator

import numpy as np

from classic.errors import LessonError
from classic.tabular_model import Bools, Floats, Integers, TabularModel

DISCOUNTS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
# Steps of a time limit that are looked at one by one. On Gymnasium's lakes, cliffs and taxis the best values stand
# still after 10,000 at most.
MAX_STEPS_OF_POLICY = 1000
MAX_STEPS_WITH_CLOCK = 20_000


def action_values(model: TabularModel, values: Floats, gamma: float) -> Floats:
    """One Bellman backup: Q(s, a) = E[r + gamma * V(s')], without V where terminated. Sutton and Barto 2018, eq. 4.6.

    Args:
        model: the environment.
        values: (S,) value of each state, in units of return.
        gamma: discount a step.

    Returns:
        (S, A).
    """
    future = np.where(model.terminated, 0.0, values[model.next_states])
    return np.asarray((model.probabilities * (model.rewards + gamma * future)).sum(-1))


def value_iteration(
    model: TabularModel, gamma: float, *, epsilon: float = 0.0, tolerance: float = 1e-13, max_sweeps: int = 200_000
) -> Floats:
    """Q* of the problem without time limit: Sutton and Barto 2018, equation 4.10, swept until it stands still.

    Args:
        model: the environment; its time limit is not looked at, since a table can not know the time.
        gamma: discount a step.
        epsilon: with this probability each action is replaced by a random one, as epsilon-greedy does. The best such
            policy is what Sarsa and Expected Sarsa strive for. 0 for the ordinary optimum.
        tolerance: largest change of a value in the last sweep, in units of return.
        max_sweeps: raises when it has not come to rest by then.

    Returns:
        (S, A) values of each action, followed by the best policy of that kind.

    Raises:
        LessonError: it does not come to rest, as with gamma 1 where an endless loop costs nothing or pays.
    """
    values, change = np.zeros(model.num_states), np.inf
    for _ in range(max_sweeps):
        q = action_values(model, values, gamma)
        new_values = (1 - epsilon) * q.max(-1) + epsilon * q.mean(-1)
        change = np.abs(new_values - values).max()
        values = new_values
        if change < tolerance * max(1.0, float(np.abs(values).max())):
            return action_values(model, values, gamma)
    raise LessonError(
        f"value iteration on {model.env_id} with gamma {gamma} still moves by {change:.2g} after {max_sweeps} sweeps; "
        "give a gamma below 1, for example --gamma 0.99"
    )


def greedy_policy(q: Floats) -> Floats:
    """(S, A) probabilities: the best action of each row, equal parts where several are exactly as good."""
    is_best = q == q.max(-1, keepdims=True)
    return is_best / is_best.sum(-1, keepdims=True)


def epsilon_greedy_policy(q: Floats, epsilon: float) -> Floats:
    """(S, A) probabilities: greedy, but with probability `epsilon` any action (the greedy one included)."""
    return (1 - epsilon) * greedy_policy(q) + epsilon / q.shape[-1]


def expected_return(model: TabularModel, policy: Floats) -> float:
    """The exact mean of the undiscounted return of one episode, over start states, chance and the time limit.

    Args:
        model: the environment. With a time limit: backward induction over exactly that many steps, since what comes
            after the cut is not counted, just as in a test by playing; how long it takes grows with the logarithm of a
            limit beyond 1000. Without: a linear system.
        policy: (S, A) probabilities of a stationary policy.

    Returns:
        Units of reward an episode; on FrozenLake the chance to reach the goal. -inf (or inf) where the policy may walk
        for ever without a time limit and pays (or earns) for it.
    """
    if model.max_episode_steps is None:
        return _return_without_limit(model, policy)
    values, left = np.zeros(model.num_states), model.max_episode_steps
    for _ in range(min(left, MAX_STEPS_OF_POLICY)):
        before, values = values, (policy * action_values(model, values, 1.0)).sum(-1)
        left -= 1
        if np.array_equal(values, before):  # to the last bit, so that no step more would change them
            return float(model.start @ values)
    return float(model.start @ _many_steps_before(model, policy, values, left))


def _many_steps_before(model: TabularModel, policy: Floats, values: Floats, num_steps: int) -> Floats:
    """(S,) what the values are that many steps earlier, by doubling: a limit of a billion takes 30 rounds.

    One step of a policy is values -> rewards + moves @ values, and two of them are such a step again.
    """
    moves, rewards = state_transitions(model, policy), mean_rewards(model, policy)
    while num_steps:
        if num_steps % 2:
            values = rewards + moves @ values
        moves, rewards = moves @ moves, rewards + moves @ rewards
        num_steps //= 2
    return values


def best_table_return(model: TabularModel) -> float:
    """The highest exact mean return of a table: the best of the best tables at several discounts.

    A table can not know the time, so under a time limit no discount is the right one for all environments, and the
    result need not be monotone in it: on FrozenLake8x8-v1 0.99 gives 0.862955, 0.995 the highest, 0.893568, 0.999
    0.885654. On Gymnasium's lakes, cliffs and taxi this is what a search over tables finds; elsewhere a lower bound.
    """
    tables = [greedy_policy(value_iteration(model, gamma, tolerance=1e-10)) for gamma in DISCOUNTS]
    return max(expected_return(model, table) for table in tables)


def best_return_with_clock(model: TabularModel) -> float:
    """The best mean return of any policy, one that looks at the clock included: backward induction with a maximum.

    Raises:
        LessonError: there is no time limit, so the clock says nothing: use `value_iteration` with gamma 1.
    """
    values = np.zeros(model.num_states)
    for values in _values_with_clock(model):  # noqa: B007  only the last: a list of all would grow with the limit
        pass
    return float(model.start @ values)


def best_policy_with_clock(model: TabularModel) -> Integers:
    """(K + 1, S) best action with k steps left, k = 0 to K; row 0 is never used.

    K is the time limit, or less where the values stand still before: then the last row holds for all steps before too.
    """
    rows = [action_values(model, values, 1.0).argmax(-1) for values in _values_with_clock(model)]
    return np.stack([np.zeros(model.num_states, dtype=np.int64), *rows[:-1]])


def _values_with_clock(model: TabularModel) -> Iterator[Floats]:
    """(S,) best undiscounted return with k steps left, k = 0 to the limit, or until they stand still."""
    if model.max_episode_steps is None:
        raise LessonError(
            f"{model.env_id} has no time limit, so a clock changes nothing: give one with --max-episode-steps 200"
        )
    values = np.zeros(model.num_states)
    yield values
    for _ in range(min(model.max_episode_steps, MAX_STEPS_WITH_CLOCK)):
        before, values = values, action_values(model, values, 1.0).max(-1)
        yield values
        if np.array_equal(values, before):
            return
    if model.max_episode_steps > MAX_STEPS_WITH_CLOCK:
        raise LessonError(
            f"got a time limit of {model.max_episode_steps:,} steps; on {model.env_id} the best values still change "
            f"after {MAX_STEPS_WITH_CLOCK:,}, and each step more is another sweep: type --max-episode-steps "
            f"{MAX_STEPS_WITH_CLOCK}"
        )


def _return_without_limit(model: TabularModel, policy: Floats) -> float:
    moves, rewards = state_transitions(model, policy), mean_rewards(model, policy)
    reached = _closure(moves > 0, model.start > 0)
    # From these states the episode can end; from the other ones it never does, whatever chance does.
    can_end = _closure((moves > 0).T, moves.sum(-1) < 1 - 1e-12)
    trapped = rewards[reached & ~can_end]
    if (trapped < 0).any() and (trapped > 0).any():
        raise LessonError(
            f"on {model.env_id} the policy walks for ever through rewards of both signs: its return is not defined "
            "without a time limit: give one with --max-episode-steps 200"
        )
    if trapped.any():
        return float(np.copysign(np.inf, trapped.sum()))
    inner = np.flatnonzero(reached & can_end)
    values = np.zeros(model.num_states)
    values[inner] = np.linalg.solve(np.eye(len(inner)) - moves[np.ix_(inner, inner)], rewards[inner])
    return float(model.start @ values)


def mean_rewards(model: TabularModel, policy: Floats) -> Floats:
    """(S,) expected reward of one step under the policy."""
    return np.asarray((policy * (model.probabilities * model.rewards).sum(-1)).sum(-1))


def state_transitions(model: TabularModel, policy: Floats) -> Floats:
    """(S, S) probability to go from row to column and not to end there, under the policy."""
    weights = np.where(model.terminated, 0.0, model.probabilities * policy[..., None])
    moves = np.zeros((model.num_states, model.num_states))
    rows = np.broadcast_to(np.arange(model.num_states)[:, None, None], weights.shape)
    np.add.at(moves, (rows, model.next_states), weights)
    return moves


def _closure(edges: Bools, members: Bools) -> Bools:
    """(S,) True for the members and all that can be reached from them along the edges (row to column)."""
    while True:
        grown = members | edges[members].any(0)
        if (grown == members).all():
            return members
        members = grown


def reachable_states(model: TabularModel) -> Bools:
    """(S,) True where some policy can stand and still act; Taxi has 400 of them among its 500 numbers."""
    anything = np.full((model.num_states, model.num_actions), 1 / model.num_actions)
    return _closure(state_transitions(model, anything) > 0, model.start > 0)
