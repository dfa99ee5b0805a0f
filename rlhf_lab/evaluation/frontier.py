"""The reward-KL frontier: what each method's gold score is worth in nats of KL from the SFT model.

A trained policy is a point (KL, gold), each a mean over held-out prompts. A method's frontier is the least concave,
never falling curve on or above its points and the SFT model's own (KL 0). That curve is within the method's reach:
taking one of two policies by the toss of a coin, for each prompt anew, has the mean of their golds and, as KL is
convex, at most the mean of their KLs; and whoever may spend more KL may also spend less. Seeds are averaged first, a
point for each KL weight, so that no method profits from its luckiest seed. The area under the frontier is taken above
the SFT model's gold, from KL 0 to the largest KL that every method reaches, so nothing is extrapolated.

Outside the embedded world there is no gold score: then the reward model's own score is plotted, which shows how far a
method gets with what it was trained on, and not what that is worth.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.config import EvaluationSection, FrontierSection
from rlhf_lab.data.prompts import Prompt
from rlhf_lab.evaluation.bootstrap import bootstrap_mean
from rlhf_lab.evaluation.policy import answer
from rlhf_lab.ppo_config import PPOConfig

WANTED_KL = 5.0  # nats at which PPO is held against best-of-n, where both get there
MEASURED = ("kl", "score", "gold", "length")

Values = dict[str, list[float]]  # metric -> one number a prompt
Floats = NDArray[np.float64]


def measure_policy(
    policy: PreTrainedModel,
    sft: PreTrainedModel,
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    ppo: PPOConfig,
    frontier: FrontierSection,
    evaluation: EvaluationSection,
    is_embedded: bool,
    seed: int,
) -> Values:
    """KL to `sft` in nats, score, gold (embedded world) and length of `policy`, for each prompt the mean over
    `frontier.samples_per_prompt` completions."""
    number = frontier.samples_per_prompt
    said = answer(
        policy,
        sft,
        reward_model,
        tokenizer,
        [prompt for prompt in prompts for _ in range(number)],
        ppo=ppo,
        settings=evaluation,
        is_embedded=is_embedded,
        seed=seed,
    )
    found = {}
    for metric in MEASURED:
        if metric in said.metrics:
            values = torch.tensor(said.metrics[metric], dtype=torch.float64)
            found[metric] = values.view(-1, number).mean(1).tolist()
    return found


def concave_frontier(kls: Sequence[float], golds: Sequence[float], base: float) -> tuple[Floats, Floats]:
    """Corners (KL, gold) of the least concave, never falling curve on or above the points and (0, base).

    Beyond the last corner the curve is level. A KL that was measured below 0, by the noise of sampling, counts as 0.
    """
    points = sorted([(0.0, base), *((max(0.0, kl), gold) for kl, gold in zip(kls, golds, strict=True))])
    corners: list[tuple[float, float]] = []
    for point in points:
        if corners and point[1] <= corners[-1][1]:
            continue  # no gain for more KL
        while corners and _is_covered(corners[-1], corners[:-1], point):
            corners.pop()
        corners.append(point)
    return np.array([kl for kl, _ in corners]), np.array([gold for _, gold in corners])


def _is_covered(middle: tuple[float, float], before: list[tuple[float, float]], right: tuple[float, float]) -> bool:
    """Whether `middle` lies straight below `right`, or on or below the line to it from the corner before."""
    if not before:
        return right[0] <= middle[0]
    left = before[-1]
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (middle[0] - left[0])


def area_under(kls: Floats, golds: Floats, base: float, max_kl: float) -> float:
    """The integral of the curve through these corners, above `base`, from KL 0 to `max_kl`; level beyond its ends."""
    x = np.unique(np.concatenate([kls[kls < max_kl], [0.0, max_kl]]))
    height = np.interp(x, kls, golds) - base
    return float(((height[1:] + height[:-1]) / 2 * np.diff(x)).sum())


def summarize(
    points: Sequence[dict[str, Any]],
    base: Values,
    *,
    judge: str,
    num_bootstrap: int,
    seed: int,
    run: Values | None = None,
) -> dict[str, Any]:
    """From measured points to what the report shows: points with intervals, frontiers, areas, PPO against best-of-n.

    A point has `method`, `values` (one number a prompt), and `kl_coef` and `seed`, or `n` and `formula_kl`. `base` is
    the SFT model's and `run` the policy's that the run itself trained, for longer than a sweep does: it is no part of
    a frontier and is held against best-of-n at its own KL. `judge` is "gold" or "score". Intervals are 95 % percentile
    bootstraps over prompts, the same resamples everywhere, so that differences are paired; they leave out how seeds
    differ, which the points show.
    """
    methods = list(dict.fromkeys(point["method"] for point in points))
    curves = {method: _curve(points, method, judge) for method in methods}
    resamples = _resamples(len(base[judge]), num_bootstrap, seed)
    base_means = np.concatenate([[np.mean(base[judge])], resamples @ np.array(base[judge])])
    means = {m: (_means(kls, resamples), _means(golds, resamples)) for m, (kls, golds) in curves.items()}
    max_kl = max(0.0, min(float(kl[0].max()) for kl, _ in means.values()))
    frontiers, areas = {}, {}
    for method, (kls, golds) in means.items():
        corners = [concave_frontier(kl, gold, low) for kl, gold, low in zip(kls, golds, base_means, strict=True)]
        found = [area_under(*corner, low, max_kl) for corner, low in zip(corners, base_means, strict=True)]
        frontiers[method] = {"kl": corners[0][0].tolist(), judge: corners[0][1].tolist()}
        areas[method] = {
            **_interval(found),
            "mean_gain": _interval([area / max_kl for area in found]) if max_kl > 0 else None,
            "max_kl": float(kls[0].max()),
        }
    interval = {"num_resamples": num_bootstrap, "seed": seed}
    return {
        "judge": judge,
        "base": {key: bootstrap_mean(values, **interval) for key, values in base.items()},
        "points": [
            {key: value for key, value in point.items() if key != "values"}
            | {key: bootstrap_mean(values, **interval) for key, values in point["values"].items()}
            for point in points
        ],
        "frontiers": frontiers,
        "areas": {"max_kl": max_kl, "methods": areas},
        "run": None if run is None else {key: bootstrap_mean(values, **interval) for key, values in run.items()},
        "ppo_against_best_of_n": _ppo_against_best_of_n(points, means, base_means)
        + _run_against_best_of_n(run, points, means, base_means, resamples, judge),
    }


def _ppo_against_best_of_n(
    points: Sequence[dict[str, Any]], means: dict[str, tuple[Floats, Floats]], base_means: Floats
) -> list[dict[str, Any]]:
    """PPO's gold less best-of-n's at the same KL, WANTED_KL or the largest that both reach; [] without both.

    Two questions: `at_most`, on the frontiers, is the best that this many nats buy; `exactly`, on the straight lines
    between neighbouring points, is what a policy that spent them has. And two KLs of best-of-n: `estimated`, which
    knows that equal answers cost nothing, and `formula`, the upper bound log n - (n - 1) / n.
    """
    if not {"ppo", "best_of_n"} <= set(means):
        return []
    ppo_kls, ppo_golds = means["ppo"]
    golds = means["best_of_n"][1]
    found = []
    for kl_of_best, kls in _kls_of_best_of_n(points, means):
        kl = min(WANTED_KL, float(ppo_kls[0].max()), float(kls[0].max()))
        for question in ("at_most", "exactly"):
            ours = _read(ppo_kls, ppo_golds, base_means, kl, question)
            theirs = _read(kls, golds, base_means, kl, question)
            found.append(
                {
                    "policy": "sweep",
                    "question": question,
                    "kl_of_best_of_n": kl_of_best,
                    "kl": kl,
                    "wanted_kl": WANTED_KL,
                    **_compared(ours, theirs),
                }
            )
    return found


def _run_against_best_of_n(
    run: Values | None,
    points: Sequence[dict[str, Any]],
    means: dict[str, tuple[Floats, Floats]],
    base_means: Floats,
    resamples: Floats,
    judge: str,
) -> list[dict[str, Any]]:
    """The run's own policy less best-of-n at the policy's KL; left out where best-of-n does not get so far."""
    if run is None or "best_of_n" not in means:
        return []
    kl = float(np.mean(run["kl"]))
    ours = _means(np.array([run[judge]]), resamples)[:, 0].tolist()
    return [
        {
            "policy": "run",
            "question": "exactly",
            "kl_of_best_of_n": kl_of_best,
            "kl": kl,
            **_compared(ours, _read(kls, means["best_of_n"][1], base_means, kl, "exactly")),
        }
        for kl_of_best, kls in _kls_of_best_of_n(points, means)
        if 0 <= kl <= float(kls[0].max())
    ]


def _kls_of_best_of_n(
    points: Sequence[dict[str, Any]], means: dict[str, tuple[Floats, Floats]]
) -> list[tuple[str, Floats]]:
    """Both KLs of best-of-n, (1 + R, M) each."""
    own = means["best_of_n"][0]
    formula = np.array([point["formula_kl"] for point in points if point["method"] == "best_of_n"])
    return [("estimated", own), ("formula", np.broadcast_to(formula, own.shape))]


def _compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, dict[str, float]]:
    difference = [a - b for a, b in zip(ours, theirs, strict=True)]
    return {"ppo": _interval(ours), "best_of_n": _interval(theirs), "difference": _interval(difference)}


def _read(kls: Floats, golds: Floats, bases: Floats, at: float, question: str) -> list[float]:
    """The gold at one KL, for the sample and each resample."""
    if question == "at_most":
        corners = [concave_frontier(kl, gold, low) for kl, gold, low in zip(kls, golds, bases, strict=True)]
        return [float(np.interp(at, *corner)) for corner in corners]
    lines = []
    for kl, gold, low in zip(kls, golds, bases, strict=True):
        x, y = np.append(kl, 0.0), np.append(gold, low)
        order = np.argsort(x, kind="stable")
        lines.append(float(np.interp(at, x[order], y[order])))
    return lines


def _curve(points: Sequence[dict[str, Any]], method: str, judge: str) -> tuple[Floats, Floats]:
    """(M, P) KL and judge's values of a method, seeds averaged: a row for each KL weight or n."""
    groups: dict[Any, list[Values]] = {}
    for point in points:
        if point["method"] == method:
            groups.setdefault(point.get("kl_coef", point.get("n")), []).append(point["values"])
    rows = [tuple(np.mean([one[key] for one in group], axis=0) for key in ("kl", judge)) for group in groups.values()]
    return np.stack([kl for kl, _ in rows]), np.stack([gold for _, gold in rows])


def _resamples(num_prompts: int, number: int, seed: int) -> Floats:
    """(R, P) weights: how often each prompt is in a resample, over P."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_prompts, [1 / num_prompts] * num_prompts, size=number) / num_prompts


def _means(values: Floats, resamples: Floats) -> Floats:
    """(1 + R, M) means over prompts: of the sample in row 0, then of each resample."""
    return np.concatenate([values.mean(axis=1)[None], resamples @ values.T])


def _interval(found: Sequence[float]) -> dict[str, float]:
    """Of numbers that were made from the sample (the first) and from each resample."""
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return {"mean": float(found[0]), "low": float(low), "high": float(high)}
