"""Recommendations as a bandit: which of ten articles to show to which kind of reader, learnt from clicks alone.

There is no state that our action changes, so there is nothing to bootstrap: this is the corner of reinforcement
learning where only exploration is hard. The price of learning is the regret: clicks that were missed for not knowing
the best article from the start. It is summed from the true click rates, so luck with clicks does not enter it.

Three ways to explore (Russo et al. 2018, "A tutorial on Thompson sampling", arXiv 1707.02038): always a little
(epsilon-greedy), where an optimist would (UCB1: Auer et al. 2002), and in proportion to what may still be true
(Thompson sampling). Hundreds of runs go side by side in NumPy.

Left out: what makes the real problem hard, see `LEFT_OUT`.

    python -m classic.real_world --env recommendations
"""

from typing import Literal

import numpy as np

from classic.curves import Curve
from classic.sketches import Sketch
from classic.tabular_model import Floats, Integers

Method = Literal["random", "epsilon-greedy", "UCB1", "Thompson sampling"]
METHODS: tuple[Method, ...] = ("random", "epsilon-greedy", "UCB1", "Thompson sampling")
LEFT_OUT = (
    "taste changes with what is shown (the action changes the reader), clicks come late and are not what people want "
    "in the end, millions of articles that come and go, whole pages and not one article"
)


def click_rates(num_kinds: int, num_articles: int, generator: np.random.Generator) -> Floats:
    """(K, A) probability that a reader of this kind clicks on this article; most are low, as they are."""
    return generator.beta(1.5, 12.0, size=(num_kinds, num_articles))


def regret_of(
    method: Method,
    rates: Floats,
    num_rounds: int,
    generator: np.random.Generator,
    *,
    num_runs: int = 50,
    epsilon: float = 0.1,
) -> Floats:
    """(R, T) regret so far, in expected clicks, of R runs side by side.

    Args:
        method: how to explore.
        rates: (K, A) true click rates; the learner sees clicks only.
        num_rounds: T readers, of a random kind each.
        generator: of all chance.
        num_runs: R.
        epsilon: share of random articles; read by epsilon-greedy only.
    """
    num_kinds, num_articles = rates.shape
    shown, clicked = (np.zeros((num_runs, num_kinds, num_articles)) for _ in range(2))
    runs = np.arange(num_runs)
    regret = np.empty((num_runs, num_rounds))
    for round_number in range(num_rounds):
        kinds = generator.integers(num_kinds, size=num_runs)
        articles = choose(method, shown[runs, kinds], clicked[runs, kinds], epsilon, generator)
        rate = rates[kinds, articles]
        shown[runs, kinds, articles] += 1
        clicked[runs, kinds, articles] += generator.random(num_runs) < rate
        regret[:, round_number] = rates[kinds].max(-1) - rate
    return regret.cumsum(1)


def choose(method: Method, shown: Floats, clicked: Floats, epsilon: float, generator: np.random.Generator) -> Integers:
    """(R,) an article for each run, from (R, A) how often each was shown and clicked to readers of this kind."""
    lottery = generator.random(shown.shape)
    if method == "random":
        return np.asarray(lottery.argmax(-1))
    if method == "Thompson sampling":
        # One draw of what the click rates may be, from the posterior of a uniform prior; then the best of that draw.
        return np.asarray(generator.beta(1 + clicked, 1 + shown - clicked).argmax(-1))
    means = clicked / np.maximum(shown, 1)
    if method == "UCB1":
        readers = np.maximum(shown.sum(-1, keepdims=True), 1)
        bonus = np.where(shown > 0, np.sqrt(2 * np.log(readers) / np.maximum(shown, 1)), np.inf)
        return np.asarray(np.lexsort((lottery, means + bonus))[:, -1])
    greedy = np.lexsort((lottery, means))[:, -1]
    explore = generator.random(len(shown)) < epsilon
    return np.where(explore, lottery.argmax(-1), greedy)


def recommendations(seed: int, *, num_rounds: int = 4000, epsilon: float = 0.1, num_runs: int = 50) -> Sketch:
    """All four methods on three kinds of readers and ten articles."""
    rates = click_rates(3, 10, np.random.default_rng(seed))
    regrets = {
        method: regret_of(
            method, rates, num_rounds, np.random.default_rng([seed, index]), num_runs=num_runs, epsilon=epsilon
        )
        for index, method in enumerate(METHODS)
    }
    points = np.linspace(0, num_rounds - 1, 60).astype(int)
    return Sketch(
        name="recommendations",
        setting="agent: the page; action: one of 10 articles for a reader of one of 3 kinds; reward: a click",
        measure=f"regret after {num_rounds:,} readers, in expected clicks (lower is better)",
        scores={method: float(regret[:, -1].mean()) for method, regret in regrets.items()},
        limits={"knowing the rates from the start": 0.0},
        left_out=LEFT_OUT,
        curves={
            method: Curve((points + 1).tolist(), [regret[:, points].mean(0).tolist()])
            for method, regret in regrets.items()
        },
        xlabel="readers",
        ylabel="regret, clicks",
    )
