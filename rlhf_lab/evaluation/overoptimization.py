"""Gold against proxy: along the run's PPO evaluations, along best-of-n and, after a sweep, along its KL weights.

Where the reward model's score goes on rising while the gold score turns down, the reward model is being
over-optimised; `scaling_fits` says where the turn is. Reads `ppo/metrics.jsonl` and what best-of-n and the sweep
measured; returns what goes into `evaluation/overoptimization.json`. Outside the embedded world there is no gold score,
so there is nothing to fit.
"""

from collections.abc import Sequence
from typing import Any

from rlhf_lab.evaluation.scaling_fits import Form, fit

NO_GOLD = "no gold score outside the embedded world: only the reward model's own score is known"


def overoptimization(
    metrics: Sequence[dict[str, Any]], best_of_n: Sequence[dict[str, Any]], sweep: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """`metrics`: rows of PPO's metrics.jsonl; `best_of_n`: of `best_of_n_points`; `sweep`: points of
    frontier.json.

    Golds are taken above the SFT model's on the same prompts: the evaluation before the first update, and best of 1.
    """
    evaluated = [row for row in metrics if row.get("eval_kl") is not None and row.get("eval_scores") is not None]
    along_ppo = [
        {"step": row["step"], "kl": row["eval_kl"], "score": row["eval_scores"], "gold": row.get("eval_gold")}
        for row in evaluated
    ]
    along_n = [{"n": point["n"], "formula_kl": point["formula_kl"], **_means(point["values"])} for point in best_of_n]
    base = next((point for point in along_n if point["n"] == 1), None)
    found = {
        "ppo": _traced(along_ppo, "rl", next((row for row in along_ppo if row["step"] == 0), None)),
        "best_of_n": _traced(along_n, "best_of_n", base),
    }
    if of_ppo := [point for point in sweep if point["method"] == "ppo"]:
        along = [
            {
                "kl_coef": point["kl_coef"],
                "seed": point["seed"],
                "kl": point["kl"]["mean"],
                "score": point["score"]["mean"],
                "gold": point["gold"]["mean"] if "gold" in point else None,
            }
            for point in of_ppo
        ]
        found["sweep"] = _traced(along, "rl", base)
    return found


def _traced(points: list[dict[str, Any]], form: Form, base: dict[str, Any] | None) -> dict[str, Any]:
    """The points of one curve and the fit of their gold gains over `base`."""
    known = [point for point in points if point.get("gold") is not None]
    traced = {"points": points, "base_score": None if base is None else base["score"], "base_gold": None, "fit": None}
    if base is None or base.get("gold") is None:
        return {**traced, "words": NO_GOLD if points else "not measured"}
    gains = [float(point["gold"]) - float(base["gold"]) for point in known]
    found = fit([point["kl"] for point in known], gains, form)
    return {**traced, "base_gold": base["gold"], "fit": found, "words": found["words"]}


def _means(values: dict[str, list[float]]) -> dict[str, float | None]:
    means = {key: sum(of_prompts) / len(of_prompts) for key, of_prompts in values.items()}
    return {"kl": means["kl"], "score": means["score"], "gold": means.get("gold")}
