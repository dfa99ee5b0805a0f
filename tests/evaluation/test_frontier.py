"""Frontiers by hand, against scipy-free geometry, and PPO against best-of-n at equal KL."""

import math
from typing import Any

import numpy as np
import pytest

from rlhf_lab.evaluation.frontier import area_under, concave_frontier, summarize

# --- the curve ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "corners"),
    [
        ([], [(0, 1)]),
        ([(2, 3)], [(0, 1), (2, 3)]),
        ([(1, 2), (2, 3)], [(0, 1), (2, 3)]),  # on the line
        ([(1, 2.5), (2, 3)], [(0, 1), (1, 2.5), (2, 3)]),
        ([(1, 1.5), (2, 3)], [(0, 1), (2, 3)]),  # below the line: a coin gives more
        ([(2, 3), (4, 2.5)], [(0, 1), (2, 3)]),  # over-optimised: nobody has to go there
        ([(2, 3), (4, 3)], [(0, 1), (2, 3)]),
        ([(2, 2), (2, 3), (2, 1)], [(0, 1), (2, 3)]),  # one KL, the best counts
        ([(1, 0.5), (2, 0.9)], [(0, 1)]),  # never above where it starts
        ([(-0.1, 1.5), (1, 2)], [(0, 1.5), (1, 2)]),  # noise below KL 0
        ([(3, 4), (1, 3), (2, 3.2), (0.5, 1.2)], [(0, 1), (1, 3), (3, 4)]),
    ],
)
def test_corners_by_hand(points: list[tuple[float, float]], corners: list[tuple[float, float]]) -> None:
    kls, golds = concave_frontier([kl for kl, _ in points], [gold for _, gold in points], 1.0)
    assert list(zip(kls.tolist(), golds.tolist(), strict=True)) == corners


def test_no_mixture_of_points_is_above_and_the_curve_is_made_of_mixtures() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        kls, golds = rng.uniform(0, 5, 8), rng.uniform(0, 3, 8)
        corners = concave_frontier(kls.tolist(), golds.tolist(), 1.0)
        x, y = np.append(kls, 0.0), np.append(golds, 1.0)
        share = rng.dirichlet(np.full(9, 0.3), size=200)
        assert (share @ y <= np.interp(share @ x, *corners) + 1e-9).all()
        assert all(any(math.isclose(a, b) for b in x) for a in corners[0])
        slopes = np.diff(corners[1]) / np.diff(corners[0])
        assert (np.diff(slopes) < 0).all()
        assert (slopes > 0).all()


def test_areas_by_hand() -> None:
    corner = (np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    assert area_under(*corner, 1.0, 2.0) == pytest.approx(2.0)  # a triangle
    assert area_under(*corner, 1.0, 1.0) == pytest.approx(0.5)
    assert area_under(*corner, 1.0, 3.0) == pytest.approx(4.0)  # level beyond the last point
    assert area_under(*corner, 1.0, 0.0) == 0.0
    assert area_under(np.array([0.0]), np.array([1.0]), 1.0, 5.0) == 0.0


def test_the_area_is_that_of_a_fine_grid() -> None:
    corner = concave_frontier([0.3, 1.1, 2.7, 4.0], [0.5, 1.6, 2.2, 2.0], 0.1)
    grid = np.linspace(0, 3.3, 100_001)
    assert area_under(*corner, 0.1, 3.3) == pytest.approx(np.mean(np.interp(grid, *corner) - 0.1) * 3.3, rel=1e-4)


# --- from points to a summary --------------------------------------------------------------------------------------


def values(kl: float, gold: float, *, noise: float = 0.0, seed: int = 0, judge: str = "gold") -> dict[str, list[float]]:
    """A number for each of 50 prompts, with exactly these means."""
    wave = np.random.default_rng(seed).normal(0, 1, 50)
    wave = noise * (wave - wave.mean())
    return {"kl": [kl] * 50, "score": [gold / 2] * 50, judge: (gold + wave).tolist()}


def points() -> list[dict[str, Any]]:
    ppo = [(0.1, 0, 1.0, 2.0), (0.1, 1, 2.0, 3.0), (0.01, 0, 3.0, 2.9), (0.01, 1, 5.0, 3.1)]
    best = [(1, 0.0, 0.0, 1.0), (2, 0.1, 0.2, 1.4), (4, 2.0, 2.4, 2.0)]
    return [
        *({"method": "ppo", "kl_coef": w, "seed": s, "values": values(kl, g)} for w, s, kl, g in ppo),
        *({"method": "best_of_n", "n": n, "formula_kl": f, "values": values(kl, g)} for n, kl, f, g in best),
    ]


def summary(given: list[dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    settings = {"judge": "gold", "num_bootstrap": 200, "seed": 0} | changed
    return summarize(points() if given is None else given, values(0.0, 1.0), **settings)


def test_seeds_are_averaged_before_the_frontier() -> None:
    assert summary()["frontiers"]["ppo"] == {"kl": [0.0, 1.5, 4.0], "gold": [1.0, 2.5, 3.0]}


def test_the_common_range_ends_where_the_first_method_ends() -> None:
    areas = summary()["areas"]
    assert areas["max_kl"] == 2.0
    assert areas["methods"]["ppo"]["max_kl"] == 4.0
    assert areas["methods"]["ppo"]["mean"] == pytest.approx(1.5 * 1.5 / 2 + 0.5 * (1.5 + 1.6) / 2)
    assert areas["methods"]["ppo"]["mean_gain"]["mean"] == pytest.approx(areas["methods"]["ppo"]["mean"] / 2)


def test_ppo_against_best_of_n_at_equal_kl() -> None:
    found = {(one["question"], one["kl_of_best_of_n"]): one for one in summary()["ppo_against_best_of_n"]}
    assert {one["policy"] for one in found.values()} == {"sweep"}
    assert {one["kl"] for (_, which), one in found.items() if which == "estimated"} == {2.0}
    assert found["at_most", "estimated"]["difference"]["mean"] == pytest.approx(2.6 - 2.0)
    assert found["exactly", "formula"]["kl"] == 2.4
    assert found["exactly", "formula"]["ppo"]["mean"] == pytest.approx(2.5 + 0.9 / 2.5 * 0.5)


def test_ppo_is_held_against_best_of_n_at_five_nats_where_both_get_there() -> None:
    far = [{**point, "formula_kl": 9.0, "values": {**point["values"], "kl": [9.0] * 50}} for point in points()[-1:]]
    wide = [{**point, "values": {**point["values"], "kl": [9.0] * 50}} for point in points()[3:4]]
    found = summary([*points()[:3], *wide, *far])["ppo_against_best_of_n"]
    assert {one["kl"] for one in found} == {5.0}


def test_the_runs_own_policy_is_held_against_best_of_n_at_its_kl() -> None:
    found = [one for one in summary(run=values(1.0, 2.5))["ppo_against_best_of_n"] if one["policy"] == "run"]
    assert [(one["kl_of_best_of_n"], one["kl"]) for one in found] == [("estimated", 1.0), ("formula", 1.0)]
    assert found[0]["difference"]["mean"] == pytest.approx(2.5 - (1.4 + 0.9 / 1.9 * 0.6))
    assert found[1]["difference"]["mean"] == pytest.approx(2.5 - (1.4 + 0.8 / 2.2 * 0.6))
    assert summary(run=values(1.0, 2.5))["run"]["gold"]["mean"] == pytest.approx(2.5)
    assert summary(run=values(1.0, 2.5))["areas"] == summary()["areas"]


def test_a_policy_that_best_of_n_does_not_reach_is_not_held_against_it() -> None:
    found = summary(run=values(2.2, 2.5))["ppo_against_best_of_n"]
    assert [one["kl_of_best_of_n"] for one in found if one["policy"] == "run"] == ["formula"]


def test_what_is_past_the_best_point_shows_only_in_exactly() -> None:
    """A policy at 3 nats that is worse than one at 1.5: nobody has to take it, but it is what 3 nats got."""
    worse = [{**point, "values": values(3.0, 1.2)} for point in points()[2:4]]
    best = [{**points()[-1], "formula_kl": 3.0, "values": values(3.0, 2.0)}]
    found = {
        (one["question"], one["kl_of_best_of_n"]): one["ppo"]["mean"]
        for one in summary([*points()[:2], *worse, *best])["ppo_against_best_of_n"]
    }
    assert found["at_most", "estimated"] == pytest.approx(2.5)
    assert found["exactly", "estimated"] == pytest.approx(1.2)


def test_without_best_of_n_there_is_nothing_to_hold_ppo_against() -> None:
    assert summary(points()[:4])["ppo_against_best_of_n"] == []


def test_noise_that_all_share_leaves_differences_certain() -> None:
    """Prompts are resampled together: what makes a prompt easy for one method makes it easy for all."""
    shared = [
        {**point, "values": values(point["values"]["kl"][0], point["values"]["gold"][0], noise=1.0)}
        for point in points()
    ]
    own = [
        {**point, "values": values(point["values"]["kl"][0], point["values"]["gold"][0], noise=1.0, seed=number)}
        for number, point in enumerate(points())
    ]
    widths = []
    for given in (shared, own):
        found = summarize(given, values(0.0, 1.0, noise=1.0), judge="gold", num_bootstrap=500, seed=0)
        difference = found["ppo_against_best_of_n"][0]["difference"]
        widths.append(difference["high"] - difference["low"])
    assert widths[0] == pytest.approx(0.0, abs=1e-9)
    assert widths[1] > 0.1


def test_points_keep_what_they_are_and_lose_their_lists() -> None:
    first = summary()["points"][0]
    assert first["kl_coef"] == 0.1
    assert first["seed"] == 0
    assert first["gold"] == pytest.approx({"mean": 2.0, "low": 2.0, "high": 2.0})
    assert "values" not in first


def test_without_gold_the_score_is_judged() -> None:
    plain = [{**p, "values": {k: v for k, v in p["values"].items() if k != "gold"}} for p in points()]
    base = {"kl": [0.0] * 50, "score": [0.5] * 50}
    found = summarize(plain, base, judge="score", num_bootstrap=50, seed=0)
    assert found["judge"] == "score"
    assert found["frontiers"]["ppo"]["score"] == [0.5, 1.25, 1.5]
    assert "gold" not in found["points"][0]


def test_methods_that_never_left_the_start_have_no_area() -> None:
    still = [{**point, "values": {**point["values"], "kl": [0.0] * 50}} for point in points()[:2]]
    areas = summary(still)["areas"]
    assert areas["max_kl"] == 0.0
    assert areas["methods"]["ppo"]["mean_gain"] is None
