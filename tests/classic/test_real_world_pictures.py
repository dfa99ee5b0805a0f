"""The pictures of lesson 6 show every seed, and their middle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from classic import real_world_command, real_world_pictures
from classic.bidding import bidding
from classic.curves import Curve
from classic.kl_optimum import Outcome
from classic.real_world import frontier
from classic.real_world_command import main
from classic.sketches import Sketch


def axes_of(monkeypatch: pytest.MonkeyPatch, picture: Callable[[], object]) -> Any:
    """What a picture draws, instead of the picture."""
    axes = Figure().subplots()
    monkeypatch.setattr(real_world_pictures, "chart", lambda draw, **_: draw(axes))
    picture()
    return axes


def test_a_world_is_drawn_over_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [bidding(seed, num_auctions=200) for seed in range(5)]
    axes = axes_of(monkeypatch, lambda: real_world_pictures.picture_of_sketch(*found))
    assert axes.get_title().endswith("interquartile mean of 5 seeds, each of them behind it")
    learnt = [sketch.curves["price of money, learnt"].values[0] for sketch in found]
    # Of five the lowest and the highest are left out.
    middle = np.sort(np.array(learnt), axis=0)[1:4].mean(0)
    lines = [line.get_ydata() for line in axes.get_lines()]
    assert len(lines) == 2 * (5 + 1)
    assert any(np.allclose(line, middle) for line in lines)
    assert all(any(np.allclose(line, row) for line in lines) for row in learnt)
    alone = axes_of(monkeypatch, lambda: real_world_pictures.picture_of_sketch(found[0]))
    assert alone.get_title() == found[0].setting
    assert len(alone.get_lines()) == 2


def test_a_curve_that_only_one_seed_has_is_drawn_too() -> None:
    """The best thermostat may be another one with another seed."""
    one, other = (
        Sketch("", "", "", {}, {}, "", {name: Curve([0], [[1.0]]), "x": Curve([0], [[2.0]])}) for name in "ab"
    )
    curves = real_world_pictures.curves_over_seeds([one, other])
    assert {name: len(curve.values) for name, curve in curves.items()} == {"a": 1, "x": 2, "b": 1}


def test_what_ppo_reached_is_drawn_over_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [Outcome(kl, 1.0, kl) for kl in (0.0, 1.0, 4.0, 9.0)]
    axes = axes_of(monkeypatch, lambda: real_world_pictures.picture_of_frontier(0.5, frontier(0.5), None, [seeds]))
    assert "interquartile mean of 4 seeds" in axes.get_title()
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "x"]
    assert crosses[:5] == [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (pytest.approx(2.5**0.5), 1.0)]
    assert crosses[9] == (pytest.approx(2.5**0.5), 2.5)


def test_the_command_draws_all_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (1, 1))
    drawn: dict[str, Any] = {}

    def sketch(*found: Sketch) -> Image.Image:
        drawn["sketch"] = found
        return image

    def sandbox(flaw: float, exact: object, beta: object, ppo: list[list[Outcome]]) -> Image.Image:
        drawn["sandbox"] = ppo
        return image

    monkeypatch.setattr(real_world_command, "picture_of_sketch", sketch)
    monkeypatch.setattr(real_world_command, "picture_of_frontier", sandbox)
    words = ["--env", "bidding", "sandbox", "--steps", "2", "--beta", "1", "0.5", "--seeds", "3", "--quiet"]
    main([*words, "--out", str(tmp_path)])
    assert len(drawn["sketch"]) == 3
    assert [len(seeds) for seeds in drawn["sandbox"]] == [3, 3]
