"""Cooling as a Markov decision process: how hard to run the plant of a machine hall, hour by hour.

The hall heats up, more by day than by night; power is dearer by day; too warm a hall costs more than power. The trick
that a thermostat can not know is to cool ahead, at night. The world is a table (temperature x hour), so lesson 2
applies as it stands: Q-learning learns from experience, value iteration says what is possible at best, and every policy
is judged exactly.

Left out: see `LEFT_OUT`. The best known report of such a system, "Safety-first AI for autonomous data centre cooling"
(DeepMind and Google 2018), is from real halls, with people and hard limits around the agent.

    python -m classic.real_world --env cooling
"""

import numpy as np

from classic.curves import Curve
from classic.dynamic_programming import (
    best_return_with_clock,
    expected_return,
    greedy_policy,
    state_transitions,
    value_iteration,
)
from classic.q_learning import Settings, learn
from classic.schedules import Schedule
from classic.sketches import Sketch
from classic.tabular_model import Floats, TabularModel

NUM_TEMPERATURES, NUM_HOURS, NUM_LEVELS = 16, 24, 4
TOO_WARM = 11  # degrees above the coldest; from here on machines suffer
LEFT_OUT = (
    "hundreds of sensors and set points, dynamics that nobody wrote down, delays of hours, and above all safety: a "
    "real agent may not try out what happens when the hall gets too warm"
)


def heat(hour: int) -> float:
    """Degrees that the hall gains in this hour without cooling: 1.9 at four in the afternoon, 0.5 at four at night."""
    return float(1.2 + 0.7 * np.cos(2 * np.pi * (hour - 16) / 24))


def power_price(hour: int) -> float:
    """Of one level of cooling for an hour: 1 from eight in the morning to ten at night, else 0.4."""
    return 1.0 if 8 <= hour < 22 else 0.4


def cooling_model(penalty: float = 8.0) -> TabularModel:
    """States are temperature x hour, actions the levels 0 to 3; a level takes one degree an hour. An episode is a week.

    Args:
        penalty: cost of each degree-hour that is too warm, in prices of power.
    """
    shape = (NUM_TEMPERATURES * NUM_HOURS, NUM_LEVELS, 4)
    probabilities, rewards = np.zeros(shape), np.zeros(shape)
    next_states = np.zeros(shape, dtype=np.int64)
    for state, level in np.ndindex(shape[:2]):
        temperature, hour = divmod(state, NUM_HOURS)
        drift = temperature + heat(hour) - level
        low = int(np.floor(drift))
        # Rounded up as often as the fraction says, then a degree less or more in 1 of 20 hours each: the mean is drift.
        rounded = np.array([low + 1 - drift, drift - low])
        chances = np.convolve(rounded, [0.05, 0.9, 0.05])
        for outcome, chance in enumerate(chances):
            reached = min(max(low - 1 + outcome, 0), NUM_TEMPERATURES - 1)
            probabilities[state, level, outcome] = chance
            next_states[state, level, outcome] = reached * NUM_HOURS + (hour + 1) % NUM_HOURS
            rewards[state, level, outcome] = -level * power_price(hour) - penalty * max(0, reached - TOO_WARM)
    start = np.zeros(shape[0])
    start[8 * NUM_HOURS] = 1.0  # eight degrees, midnight
    return TabularModel(
        env_id="Cooling",
        probabilities=probabilities,
        next_states=next_states,
        rewards=rewards,
        terminated=np.zeros(shape, dtype=np.bool_),
        start=start,
        max_episode_steps=7 * NUM_HOURS,
    )


def thermostat(set_point: int) -> Floats:
    """(S, A) the rule of most halls: full power above the set point, one level at it, nothing below."""
    temperatures = np.arange(NUM_TEMPERATURES * NUM_HOURS) // NUM_HOURS
    levels = np.where(temperatures > set_point, NUM_LEVELS - 1, np.where(temperatures == set_point, 1, 0))
    return np.eye(NUM_LEVELS)[levels]


def best_policy(model: TabularModel) -> Floats:
    """(S, A) the optimum, with a foresight of 200 hours (gamma 0.995)."""
    return greedy_policy(value_iteration(model, 0.995, tolerance=1e-8))


def mean_temperatures(model: TabularModel, policy: Floats) -> Floats:
    """(24,) exact mean temperature at each hour of the last day of the week."""
    moves, states = state_transitions(model, policy), model.start
    for _ in range(6 * NUM_HOURS):
        states = states @ moves
    means = np.empty(NUM_HOURS)
    temperatures = np.arange(model.num_states) // NUM_HOURS
    for hour in range(NUM_HOURS):
        means[hour] = states @ temperatures
        states = states @ moves
    return means


def cooling(seed: int, *, num_steps: int = 2_000_000, penalty: float = 8.0) -> Sketch:
    """The best thermostat, Q-learning, and the optimum, all judged exactly over a week."""
    model = cooling_model(penalty)
    best = best_policy(model)
    set_points = {point: expected_return(model, thermostat(point)) for point in range(4, NUM_TEMPERATURES)}
    set_point = max(set_points, key=lambda point: set_points[point])
    settings = Settings(
        gamma=0.98,  # two days of foresight are enough, and are learnt sooner than a week of it
        step_size="rescaled",
        epsilon=Schedule(0.5),
        num_streams=256,
        num_steps=num_steps,
        num_evaluations=1,
    )
    learnt = greedy_policy(learn(model, settings, seed).q)
    hours = list(range(NUM_HOURS))
    policies = {f"thermostat at {set_point}": thermostat(set_point), "Q-learning": learnt, "optimum": best}
    return Sketch(
        name="cooling",
        setting="agent: the plant's controller; action: one of 4 levels an hour; reward: minus power and heat damage",
        measure="mean cost of a week, in prices of power (lower is better)",
        scores={
            f"best thermostat, at {set_point}": -set_points[set_point],
            "Q-learning": -expected_return(model, learnt),
        },
        limits={
            "optimum": -expected_return(model, best),
            "optimum that knows when the week ends": -best_return_with_clock(model),
        },
        left_out=LEFT_OUT,
        curves={name: Curve(hours, [mean_temperatures(model, policy).tolist()]) for name, policy in policies.items()},
        xlabel="hour of the day",
        ylabel="degrees, exact mean",
    )
