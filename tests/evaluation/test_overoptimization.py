"""Gold against proxy: which rows become points, what they are measured from, and what is said without gold."""

import math
from typing import Any

import pytest
import torch

from rlhf_lab.evaluation.best_of_n import Samples, best_of_n_points
from rlhf_lab.evaluation.overoptimization import overoptimization
from rlhf_lab.functional import best_of_n_kl

D = [0.5, 1.0, 1.5, 2.0, 3.0]


def ppo_rows(a: float, b: float, *, gold: bool = True) -> list[dict[str, Any]]:
    """A run whose gold follows d (a - b ln d) from 1.7 on, an evaluation at every tenth update."""
    rows: list[dict[str, Any]] = [{"step": 0, "eval_scores": 0.0, "eval_kl": 0.0, "eval_gold": 1.7}]
    for number, d in enumerate(D, start=1):
        rows.append({"step": 10 * number, "objective/kl": d * d, "objective/scores": d})
        row = {"step": 10 * number, "eval_scores": d, "eval_kl": d * d, "eval_gold": 1.7 + d * (a - b * math.log(d))}
        rows.append(row)
    return [{k: v for k, v in row.items() if gold or k != "eval_gold"} for row in rows]


def best_points(*, gold: bool = True) -> list[dict[str, Any]]:
    """Best-of-n whose gold follows d (1 - 0.25 d) from 1.5 on."""
    points = []
    for n in (1, 2, 4, 16, 64):
        kl = best_of_n_kl(n)
        values = {"kl": [kl, kl], "score": [0.1, 0.3], "gold": [1.5 + kl**0.5 - 0.25 * kl] * 2}
        points.append({"n": n, "formula_kl": kl, "values": {k: v for k, v in values.items() if gold or k != "gold"}})
    return points


def test_a_run_that_follows_the_curves_is_fitted_exactly() -> None:
    found = overoptimization(ppo_rows(1.0, 0.6), best_points())
    assert (found["ppo"]["fit"]["a"], found["ppo"]["fit"]["b"]) == pytest.approx((1.0, 0.6))
    assert (found["best_of_n"]["fit"]["a"], found["best_of_n"]["fit"]["b"]) == pytest.approx((1.0, 0.25))
    assert found["best_of_n"]["fit"]["turn_kl"] == pytest.approx(4.0)
    assert found["ppo"]["base_gold"] == 1.7
    assert found["best_of_n"]["base_gold"] == 1.5
    assert [row["step"] for row in found["ppo"]["points"]] == [0, 10, 20, 30, 40, 50], "evaluations, not rollouts"
    assert "sweep" not in found


def test_means_over_prompts_are_the_points() -> None:
    first = overoptimization([], best_points())["best_of_n"]["points"][0]
    assert (first["n"], first["score"], first["kl"]) == (1, pytest.approx(0.2), 0.0)


def test_the_sweeps_ppo_points_are_a_curve_of_their_own() -> None:
    def point(method: str, kl: float) -> dict[str, Any]:
        gold = 1.5 + kl**0.5 * (1.0 - 0.0)
        return {
            "method": method,
            "kl_coef": 1 / kl,
            "seed": 0,
            **{key: {"mean": value} for key, value in (("kl", kl), ("score", kl), ("gold", gold))},
        }

    swept = [point("ppo", kl) for kl in (0.5, 1.0, 2.0, 4.0)] + [point("dpo", 3.0)]
    found = overoptimization([], best_points(), swept)["sweep"]
    assert len(found["points"]) == 4
    assert found["fit"]["a"] == pytest.approx(1.0)
    assert found["base_gold"] == 1.5, "the SFT model's, from best of 1"


def test_an_evaluation_that_lacks_gold_is_a_point_without_a_part_in_the_fit() -> None:
    rows = ppo_rows(1.0, 0.6)
    rows[4] = {"step": 20, "eval_scores": 9.0, "eval_kl": 9.0}
    found = overoptimization(rows, [])["ppo"]
    assert (found["fit"]["a"], found["fit"]["num_points"]) == (pytest.approx(1.0), 4)
    assert found["points"][2]["gold"] is None


def test_without_gold_there_is_no_fit_and_it_says_why() -> None:
    found = overoptimization(ppo_rows(1.0, 0.6, gold=False), best_points(gold=False))
    for curve in ("ppo", "best_of_n"):
        assert found[curve]["fit"] is None
        assert "no gold score outside the embedded world" in found[curve]["words"]
        assert len(found[curve]["points"]) > 4, "scores are known all the same"


def test_a_run_without_evaluations_says_that_nothing_was_measured() -> None:
    found = overoptimization([{"step": 1, "objective/kl": 0.1}], best_points())
    assert (found["ppo"]["points"], found["ppo"]["words"]) == ([], "not measured")


def test_best_of_n_points_are_what_it_reads() -> None:
    samples = Samples(torch.tensor([2, 2]), torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]).log(), None)
    found = overoptimization([], best_of_n_points([samples], [1, 2]))["best_of_n"]
    assert [point["kl"] for point in found["points"]] == pytest.approx([0.0, 0.1308], abs=1e-3)  # ln 2 less H(1/4)
    assert found["fit"] is None
