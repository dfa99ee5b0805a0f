"""Lesson 6 as pictures: the curves of a sketch; proxy and gold against KL; the answers that a policy gives.

Left out: the numbers (`classic.real_world`).

    python -m classic.real_world --env sandbox --out runs/real_world
"""

import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from PIL import Image
from torch import Tensor

from classic.answers import all_answers
from classic.charts import chart, finish
from classic.curves import Curve, draw_curve
from classic.kl_optimum import Outcome, kl_optimum
from classic.real_world import Frontier, optimum_at
from classic.seeds import interquartile_mean
from classic.sketches import Sketch

PROXY, GOLD, PPO = "#2a7de1", "#d99a00", "#d1495b"


def picture_of_sketch(*found: Sketch) -> Image.Image:
    """The curves of one world, with what it is above them: the interquartile mean over seeds, and each seed behind it.

    Args:
        found: of each seed.
    """
    first = found[0]

    def draw(axes: Any) -> None:
        for index, (name, curve) in enumerate(curves_over_seeds(found).items()):
            draw_curve(axes, curve, colour=f"C{index}", name=name)
        finish(axes, title=first.setting + seeds_text(len(found)), xlabel=first.xlabel, ylabel=first.ylabel)
        axes.set_yscale(first.yscale)

    return chart(draw, width=7.6, height=3.4)


def curves_over_seeds(found: Sequence[Sketch]) -> dict[str, Curve]:
    """Name to the curve with a row for each seed; a world looks at the same places whatever its seed."""
    names = dict.fromkeys(name for sketch in found for name in sketch.curves)
    by_seed = {name: [sketch.curves[name] for sketch in found if name in sketch.curves] for name in names}
    return {
        name: Curve(curves[0].steps, [row for curve in curves for row in curve.values])
        for name, curves in by_seed.items()
    }


def seeds_text(num_seeds: int) -> str:
    """A line below the title of a picture of several seeds."""
    return f"\ninterquartile mean of {num_seeds} seeds, each of them behind it" if num_seeds > 1 else ""


def middle_outcome(found: Sequence[Outcome]) -> Outcome:
    """The interquartile mean over seeds of each of its numbers."""
    return Outcome(*(interquartile_mean(numbers) for numbers in zip(*(astuple(one) for one in found), strict=True)))


def picture_of_frontier(
    flaw: float, exact: Frontier, beta: float | None, ppo: Sequence[Sequence[Outcome]] = ()
) -> Image.Image:
    """What pressing harder buys: proxy and gold of every optimum against its KL; PPO's policies as crosses.

    Args:
        flaw: of the reward model, for the title.
        exact: the curves.
        beta: marked on them; None for none.
        ppo: exact outcomes of trained policies, one row for each point, with the seeds of it.
    """

    def draw(axes: Any) -> None:
        # Against the root, as in Gao et al. 2022, arXiv 2210.10760: the start is not a wall.
        for name, colour in (("proxy", PROXY), ("gold", GOLD)):
            lines = [(exact.optima, "-", f"{name}, optimum"), (exact.best_of, ":", f"{name}, best of n")]
            for outcomes, style, label in lines:
                heights = [getattr(outcome, name) for outcome in outcomes]
                axes.plot([root_kl(one) for one in outcomes], heights, style, color=colour, linewidth=2, label=label)
            for index, seeds in enumerate(ppo):
                label = "PPO, judged exactly" if name == "proxy" and not index else ""
                draw_reached(axes, seeds, name, label)
            if beta is not None:
                here = optimum_at(beta, flaw)
                axes.plot(root_kl(here), getattr(here, name), "o", color=colour, markersize=10)
        title = f"flaw of the reward model {flaw:g}" + seeds_text(max(map(len, ppo), default=0))
        finish(axes, title=title, xlabel="root of KL to the reference", ylabel="score")

    return chart(draw, width=5.6, height=3.8)


def draw_reached(axes: Any, seeds: Sequence[Outcome], name: str, label: str) -> None:
    """A cross at the interquartile mean of what PPO reached, and a faint one for each of several seeds."""
    for one in seeds if len(seeds) > 1 else ():
        axes.plot(root_kl(one), getattr(one, name), "x", color=PPO, alpha=0.35, markersize=5)
    middle = middle_outcome(seeds)
    axes.plot(root_kl(middle), getattr(middle, name), "x", color=PPO, markersize=9, mew=2, label=label)


def root_kl(outcome: Outcome) -> float:
    """KL can come out as -1e-16."""
    return math.sqrt(max(outcome.kl, 0.0))


def picture_of_answers(log_probs: Tensor, title: str, count: int = 8) -> Image.Image:
    """The likeliest answers as bars, coloured by their gold score."""
    answers = all_answers()
    probs, rows = log_probs.exp().topk(count)

    def draw(axes: Any) -> None:
        colours = ["#4b9b6e" if answers.gold[row] > 0 else PPO for row in rows.tolist()]
        axes.barh(range(count), probs.tolist(), color=colours)
        axes.set_yticks(range(count), [answers.texts[row] for row in rows.tolist()])
        axes.invert_yaxis()
        axes.set_xlim(0, 0.5)
        finish(axes, title=title, xlabel="probability (green: gold above 0)")

    return chart(draw, width=4.4, height=3.8)


def optimal_log_probs(beta: float, flaw: float) -> Tensor:
    """(N,) of the optimum."""
    answers = all_answers()
    return kl_optimum(answers.log_probs(answers.ref_logits), answers.proxy(flaw), beta)
