"""Is the network forgetting? Figures that foretell a collapse, which the TD loss does not.

A DQN that balances the pole stops seeing falls. They leave the replay buffer; Q of states that can not be saved drifts
from the one reward that is left to 1 / (1 - gamma), the value of balancing for ever; the gap between actions closes,
and one day it drops the pole. All that happens under a falling TD loss.

The yardstick is fixed after the warm-up: some states, and transitions that ended an episode. What Q should say of those
is known exactly: their reward, since nothing follows.

Left out: a cure. Keeping the best weights (`classic.training_runs`) is one; more exploration and larger buffers others.

    python -m classic.dqn --out runs/dqn
"""

from dataclasses import dataclass

import numpy as np

from classic.q_network import QNetwork
from classic.replay_buffer import ReplayBuffer, Transitions

NUM_STATES = 256


@dataclass(frozen=True)
class Yardstick:
    """What Q is asked about, the same at every evaluation."""

    states: Transitions  # any
    doomed: Transitions  # each ended an episode; may be empty


def yardstick_of(warm_up: Transitions, generator: np.random.Generator) -> Yardstick:
    """At most 256 states and as many doomed ones, from the steps before learning began."""
    ends = np.flatnonzero(warm_up.terminated)
    some = generator.permutation(len(warm_up))[:NUM_STATES]
    return Yardstick(warm_up.rows(some), warm_up.rows(generator.permutation(ends)[:NUM_STATES]))


def forgetting_figures(network: QNetwork, buffer: ReplayBuffer, yardstick: Yardstick) -> dict[str, float]:
    """The figures at one moment.

    Returns:
        `terminal_fraction`: of the buffer. `action_gap`: best Q minus second best, mean over the fixed states.
        `doomed_q`: mean Q of the last actions of episodes, and `doomed_q_exact`, what it should be; NaN where the
        warm-up saw no episode end.
    """
    ordered = np.sort(network.rows(yardstick.states.observations), axis=-1)
    gaps = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else np.zeros(len(ordered))
    doomed = yardstick.doomed
    asked = network.rows(doomed.observations)[np.arange(len(doomed)), doomed.actions]
    return {
        "terminal_fraction": buffer.terminal_fraction(),
        "action_gap": float(gaps.mean()),
        "doomed_q": float(asked.mean()) if len(doomed) else float("nan"),
        "doomed_q_exact": float(doomed.rewards.mean()) if len(doomed) else float("nan"),
    }
