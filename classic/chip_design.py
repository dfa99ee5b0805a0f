"""Chip design as a game of placing blocks: nine blocks on nine places, wires as short as can be.

A policy places one block after the other; the reward comes at the end, minus the length of all wires. That is how
Mirhoseini et al. 2021 (Nature 594, 207) set it up for real chips. REINFORCE with a baseline learns a table here: how
much each block likes each place. Simulated annealing, the method that such work is measured by, gets as many tries.
There are 362,880 placements, so the optimum is found by looking at all of them.

The honest part: whether learning beats good annealing on real chips is disputed (Cheng et al. 2023, arXiv 2302.11014,
against it; Goldie et al. 2024, arXiv 2411.10053, in reply). On nine blocks nobody needs either.

Left out: see `LEFT_OUT`.

    python -m classic.real_world --env chip_design
"""

from functools import cache
from itertools import permutations

import numpy as np

from classic.curves import Curve
from classic.sketches import Sketch
from classic.tabular_model import Floats, Integers

SIDE = 3
NUM_BLOCKS = SIDE * SIDE
LEFT_OUT = (
    "blocks of different size, millions of cells, congestion, timing and heat; and the point of the real work, a "
    "network that carries over from one chip to the next"
)


def make_nets(generator: np.random.Generator, num_nets: int = 14) -> list[Integers]:
    """Wires: each joins two to four blocks."""
    return [generator.choice(NUM_BLOCKS, size=generator.integers(2, 5), replace=False) for _ in range(num_nets)]


def wire_lengths(placements: Integers, nets: list[Integers]) -> Floats:
    """(N,) half the perimeter of the box around each net, summed over nets; placements (N, blocks) are places."""
    rows, columns = np.divmod(placements, SIDE)
    total = np.zeros(len(placements))
    for net in nets:
        total += np.ptp(rows[:, net], axis=1) + np.ptp(columns[:, net], axis=1)
    return total


@cache
def all_placements() -> Integers:
    """(9!, 9) every placement."""
    return np.array(list(permutations(range(NUM_BLOCKS))), dtype=np.int8).astype(np.int64)


def optimum(nets: list[Integers]) -> float:
    """The shortest wires of all placements."""
    return float(wire_lengths(all_placements(), nets).min())


def random_search(nets: list[Integers], num_tries: int, generator: np.random.Generator) -> Floats:
    """(tries,) wire length of random placements."""
    placements = generator.permuted(np.tile(np.arange(NUM_BLOCKS), (num_tries, 1)), axis=1)
    return wire_lengths(placements, nets)


def anneal(nets: list[Integers], num_tries: int, generator: np.random.Generator) -> Floats:
    """(tries,) wire length of simulated annealing: swap two blocks, keep that if shorter, or by chance while hot."""
    placement = generator.permutation(NUM_BLOCKS)
    length = float(wire_lengths(placement[None], nets)[0])
    lengths = np.empty(num_tries)
    for attempt, temperature in enumerate(np.geomspace(3.0, 0.1, num_tries)):
        first, second = generator.choice(NUM_BLOCKS, size=2, replace=False)
        candidate = placement.copy()
        candidate[[first, second]] = candidate[[second, first]]
        new = float(wire_lengths(candidate[None], nets)[0])
        if new <= length or generator.random() < np.exp((length - new) / temperature):
            placement, length = candidate, new
        lengths[attempt] = length
    return lengths


def reinforce(
    nets: list[Integers], num_tries: int, generator: np.random.Generator, *, batch: int = 20, rate: float = 2.0
) -> Floats:
    """(tries,) wire lengths while REINFORCE learns; the baseline is the batch's mean, the scale its deviation."""
    logits = np.zeros((NUM_BLOCKS, NUM_BLOCKS))  # block x place
    lengths = []
    for _ in range(num_tries // batch):
        placements, score = sample_placements(logits, batch, generator)
        lengths.append(wire_lengths(placements, nets))
        advantages = -(lengths[-1] - lengths[-1].mean()) / (lengths[-1].std() + 1e-8)
        logits += rate * np.einsum("n,nbp->bp", advantages, score) / batch
    return np.concatenate(lengths)


def sample_placements(logits: Floats, count: int, generator: np.random.Generator) -> tuple[Integers, Floats]:
    """Blocks in order, each on a free place by softmax.

    Returns:
        Placements (N, blocks), and the gradient of their log-probability by the logits, (N, blocks, places).
    """
    free = np.ones((count, NUM_BLOCKS), dtype=np.bool_)
    placements = np.empty((count, NUM_BLOCKS), dtype=np.int64)
    score = np.zeros((count, NUM_BLOCKS, NUM_BLOCKS))
    rows = np.arange(count)
    for block in range(NUM_BLOCKS):
        masked = np.where(free, logits[block], -np.inf)
        probs = np.exp(masked - masked.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        places = (masked + generator.gumbel(size=masked.shape)).argmax(1)
        placements[:, block] = places
        score[:, block] = -probs
        score[rows, block, places] += 1
        free[rows, places] = False
    return placements, score


def chip_design(seed: int, *, num_tries: int = 3000) -> Sketch:
    """Random search, annealing and REINFORCE, with as many placements tried by each."""
    nets = make_nets(np.random.default_rng(seed))
    best = optimum(nets)
    runs = {
        "random placements": random_search(nets, num_tries, np.random.default_rng([seed, 0])),
        "simulated annealing": anneal(nets, num_tries, np.random.default_rng([seed, 1])),
        "REINFORCE": reinforce(nets, num_tries, np.random.default_rng([seed, 2])),
    }
    last = max(1, num_tries // 10)
    # Window by window, so that the curves can be read.
    windows = range(0, num_tries - last // 2, max(1, last // 2))
    return Sketch(
        name="chip_design",
        setting="agent: the placer; action: a place for the next block; reward: minus the length of all wires",
        measure=f"mean wire length of the last {last} placements, as a multiple of the optimum (lower is better)",
        scores={name: float(lengths[-last:].mean()) / best for name, lengths in runs.items()},
        limits={"optimum of all 362,880": 1.0},
        left_out=LEFT_OUT,
        curves={
            name: Curve(
                [start + last // 2 for start in windows],
                [[float(lengths[start : start + last].mean()) / best for start in windows]],
            )
            for name, lengths in runs.items()
        },
        xlabel="placements tried",
        ylabel="wire length, multiple of the optimum",
    )
