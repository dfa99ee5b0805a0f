"""Lesson 6 as pictures: the curves of a sketch; proxy and gold against KL; the answers that a policy gives.

Left out: the numbers (`classic.real_world`).

    python -m classic.real_world --env sandbox --out runs/real_world
"""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from classic.answers import all_answers
from classic.charts import chart, draw_lines, finish
from classic.kl_optimum import Outcome, kl_optimum
from classic.real_world import Frontier, optimum_at
from classic.sketches import Sketch

PROXY, GOLD, PPO = "#2a7de1", "#d99a00", "#d1495b"


def picture_of_sketch(sketch: Sketch) -> Image.Image:
    """Its curves, with what the world is above them."""

    def draw(axes: Any) -> None:
        draw_lines(axes, sketch.curves, title=sketch.setting, xlabel=sketch.xlabel, ylabel=sketch.ylabel)
        axes.set_yscale(sketch.yscale)

    return chart(draw, width=7.6, height=3.4)


def picture_of_frontier(
    flaw: float, exact: Frontier, beta: float | None, ppo: Sequence[tuple[float, Outcome]] = ()
) -> Image.Image:
    """What pressing harder buys: proxy and gold of every optimum against its KL; PPO's policies as crosses.

    Args:
        flaw: of the reward model, for the title.
        exact: the curves.
        beta: marked on them; None for none.
        ppo: beta and exact outcome of trained policies.
    """

    def draw(axes: Any) -> None:
        # Against the root, as in Gao et al. 2022, arXiv 2210.10760: the start is not a wall.
        for name, colour in (("proxy", PROXY), ("gold", GOLD)):
            lines = [(exact.optima, "-", f"{name}, optimum"), (exact.best_of, ":", f"{name}, best of n")]
            for outcomes, style, label in lines:
                heights = [getattr(outcome, name) for outcome in outcomes]
                axes.plot([root_kl(one) for one in outcomes], heights, style, color=colour, linewidth=2, label=label)
            for index, (_, one) in enumerate(ppo):
                label = "PPO, judged exactly" if name == "proxy" and not index else ""
                axes.plot(root_kl(one), getattr(one, name), "x", color=PPO, markersize=9, mew=2, label=label)
            if beta is not None:
                here = optimum_at(beta, flaw)
                axes.plot(root_kl(here), getattr(here, name), "o", color=colour, markersize=10)
        finish(axes, title=f"flaw of the reward model {flaw:g}", xlabel="root of KL to the reference", ylabel="score")

    return chart(draw, width=5.6, height=3.8)


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
