"""A robot's joint as control: two gains that are found in simulation and then meet a real arm of another mass.

The joint is a mass that a motor pushes; the command acts one tick late, as over a real bus. The controller is the one
that most joints in the world run, u = -kp * error - kd * speed. The gains are found by the cross-entropy method: draw
gains, keep the best tenth, draw again around those; a policy search that needs returns only, no gradients.

The lesson is not that the search works but where it fails: gains tuned on one mass are brittle on others, and gains
tuned on many masses at once (domain randomisation: Tobin et al. 2017, arXiv 1703.06907) give up a little at the one to
hold on all. For each mass the best linear controller that knows it is exact (Riccati), so we see what ignorance costs.

Left out: see `LEFT_OUT`.

    python -m classic.real_world --env robotics
"""

import numpy as np

from classic.curves import Curve
from classic.sketches import Sketch
from classic.tabular_model import Floats

TICK = 0.1  # seconds
NUM_TICKS = 60
EFFORT = 0.001  # cost of a squared newton beside a squared metre
MASSES = np.geomspace(0.5, 2.5, 13)  # kilograms
LEFT_OUT = (
    "contacts, several joints that pull at one another, cameras, wear, and that a real arm breaks when exploration is "
    "rough; policies there are networks, trained in simulation with thousands of arms in parallel"
)


def costs(gains: Floats, masses: Floats) -> Floats:
    """(G, M) cost of moving by one metre, for G pairs (kp, kd) and M masses: squared error plus a little effort."""
    return trajectories(gains, masses)[1]


def trajectories(gains: Floats, masses: Floats) -> tuple[Floats, Floats]:
    """Errors (NUM_TICKS + 1, G, M) in metres and total costs (G, M)."""
    kp, kd = gains[:, 0, None], gains[:, 1, None]
    error = np.ones((len(gains), len(masses)))
    speed, command, total = np.zeros_like(error), np.zeros_like(error), np.zeros_like(error)
    errors = [error]
    for _ in range(NUM_TICKS):
        next_command = -kp * error - kd * speed
        total = total + error**2 + EFFORT * next_command**2
        # What the motor does now was decided a tick ago.
        error, speed, command = error + TICK * speed, speed + TICK * command / masses, next_command
        errors.append(error)
    return np.stack(errors), total + error**2


def best_costs(masses: Floats) -> Floats:
    """(M,) the least cost of any controller that knows the mass and all that happened: a Riccati recursion.

    The state is (error, speed, command on its way); costs are quadratic and the motion is linear, so the best
    controller is linear and its cost is x' P x (Bertsekas 2017, "Dynamic programming and optimal control", 3.1).
    """
    start = np.array([1.0, 0.0, 0.0])
    weights = np.diag([1.0, 0.0, 0.0])
    results = []
    for mass in masses:
        motion = np.array([[1.0, TICK, 0.0], [0.0, 1.0, TICK / mass], [0.0, 0.0, 0.0]])
        push = np.array([0.0, 0.0, 1.0])
        value = weights
        for _ in range(NUM_TICKS):
            gain = (push @ value @ motion) / (EFFORT + push @ value @ push)
            value = weights + motion.T @ value @ (motion - np.outer(push, gain))
        results.append(float(start @ value @ start))
    return np.array(results)


def search(masses: Floats, generator: np.random.Generator, *, num_rounds: int = 30, population: int = 100) -> Floats:
    """(2,) gains of the cross-entropy method for the mean cost over these masses, in units of the best cost of each."""
    mean, deviation = np.log([5.0, 3.0]), np.array([1.0, 1.0])
    best = best_costs(masses)
    for _ in range(num_rounds):
        logs = mean + deviation * generator.standard_normal((population, 2))
        with np.errstate(over="ignore", invalid="ignore"):  # wild gains run away: that is how they are found out
            scores = np.nan_to_num((costs(np.exp(logs), masses) / best).mean(1), nan=np.inf)
        elite = logs[np.argsort(scores)[: population // 10]]
        mean, deviation = elite.mean(0), elite.std(0) + 1e-4
    return np.asarray(np.exp(mean))


def robotics(seed: int, *, masses: Floats = MASSES) -> Sketch:
    """Gains from one simulated mass and gains from many, on real arms of all these masses."""
    generator = np.random.default_rng(seed)
    one, many = search(np.array([1.0]), generator), search(masses, generator)
    best = best_costs(masses)
    ratios = costs(np.stack([one, many]), masses) / best
    return Sketch(
        name="robotics",
        setting="agent: a joint's controller; action: force; reward: minus squared error and a little effort",
        measure="worst cost over all masses, as a multiple of the best that knows the mass (lower is better)",
        scores={
            "gains tuned on 1 kg": float(ratios[0].max()),
            "gains tuned on many masses": float(ratios[1].max()),
        },
        limits={"knowing the mass": 1.0},
        left_out=LEFT_OUT,
        curves={
            "tuned on 1 kg": Curve(masses.tolist(), [ratios[0].tolist()]),
            "tuned on many masses": Curve(masses.tolist(), [ratios[1].tolist()]),
        },
        xlabel="mass of the real arm, kg",
        ylabel="cost, multiple of the best",
        yscale="log",
    )
