"""Wherever success on the frozen lake is plotted, the two exact limits are drawn: 0.744 with a clock, 0.740 by a table.

Published with the course's reference; the second is what a search over all tables finds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from classic import q_learning_command
from classic.curves import Curve
from classic.dynamic_programming import best_table_return
from classic.environments import make_environment
from classic.playing_picture import picture_of_playing, running_mean
from classic.q_learning import Settings
from classic.q_learning_command import exact_limits
from classic.tabular_model import tabular_model
from classic.what_is_rl_command import rows_of_agents

CLOCK, TABLE = pytest.approx(0.744190, abs=6e-7), pytest.approx(0.740165, abs=6e-7)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Where lines were drawn across a chart."""
    drawn: list[float] = []

    def noting(plain: Any) -> Any:
        def draw(axes: Axes, at: float, *rest: Any, **style: Any) -> Any:
            drawn.append(at)
            return plain(axes, at, *rest, **style)

        return draw

    for name in ("axhline", "axvline"):
        monkeypatch.setattr(Axes, name, noting(getattr(Axes, name)))
    return drawn


def of_playing(folder: Path) -> None:
    picture_of_playing(make_environment("FrozenLake-v1"), tabular_model("FrozenLake-v1"), 5, 0)


def of_lesson_2(folder: Path) -> None:
    short = ["--steps", "12800", "--evaluations", "2", "--streams", "64", "--quiet"]
    q_learning_command.main([*short, "--out", str(folder)])


def of_lesson_2_with_another_gamma(folder: Path) -> None:
    short = ["--steps", "12800", "--evaluations", "2", "--streams", "64", "--quiet"]
    q_learning_command.main([*short, "--gamma", "0.95", "--out", str(folder)])


def of_panel(module: str, name: str) -> Callable[[Path], None]:
    def draw(folder: Path) -> None:
        pytest.importorskip("ipywidgets")
        panels = pytest.importorskip(f"classic.{module}_panels")
        getattr(panels, name)()

    draw.__name__ = name
    return draw


PICTURES = [
    of_playing,
    of_lesson_2,
    of_lesson_2_with_another_gamma,
    of_panel("what_is_rl", "luck_panel"),
    of_panel("what_is_rl", "clock_panel"),
    of_panel("q_learning", "settings_panel"),
    of_panel("q_learning", "gamma_panel"),
]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.__name__)
def test_both_limits_are_drawn(picture: Callable[[Path], None], lines: list[float], tmp_path: Path) -> None:
    picture(tmp_path)
    assert CLOCK in lines
    assert TABLE in lines


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("FrozenLake-v1", 0.740165),
        ("FrozenLake8x8-v1", 0.893568),
        ("Taxi-v4", 7.93),
        ("CliffWalking-v1", -13.0),
        ("CliffWalkingSlippery-v1", -64.709),
    ],
)
def test_the_best_table_earns_what_is_published(env_id: str, expected: float) -> None:
    assert best_table_return(tabular_model(env_id)) == pytest.approx(expected, abs=6e-4 if expected < -60 else 6e-7)


def test_the_table_of_the_typed_discount_is_named_where_it_is_not_the_best() -> None:
    lake = tabular_model("FrozenLake-v1")
    assert exact_limits(lake, Settings(gamma=0.99)) == {"best table": TABLE, "best with a clock": CLOCK}
    assert exact_limits(lake, Settings(gamma=0.95)) == {
        "best table": TABLE,
        "best table at gamma 0.95": pytest.approx(0.729766, abs=6e-7),
        "best with a clock": CLOCK,
    }


def test_the_picture_of_playing_shows_the_running_mean_of_the_very_episodes_of_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: dict[str, Curve] = {}
    monkeypatch.setattr("classic.playing_picture.draw_lines", lambda axes, curves, **_: shown.update(curves))
    lake, env = tabular_model("FrozenLake-v1"), make_environment("FrozenLake-v1")
    picture_of_playing(env, lake, 20, 3)
    assert running_mean(np.array([1.0, 0.0, 0.0, 1.0])) == Curve([1, 2, 3, 4], [[1.0, 0.5, pytest.approx(1 / 3), 0.5]])
    rows = {row[0]: row[2] for row in rows_of_agents(env, lake, 20, 3, quiet=True)}
    assert {name: curve.values[0][-1] for name, curve in shown.items()} == pytest.approx(rows)
