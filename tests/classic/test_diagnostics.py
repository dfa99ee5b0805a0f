"""The figures of the updates are drawn: entropy, KL, clip fraction, explained variance, and not the loss."""

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from classic import policy_gradient_command, ppo_command
from classic.actor_critic import ActorCritic
from classic.agent_pictures import FIGURES, draw_diagnostics, draw_figure, number_of_actions
from classic.training_runs import Point

OF_PPO = ["entropy", "kl", "clip_fraction", "explained_variance"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Name and number of actions of each figure, wherever it was drawn."""
    seen: list[tuple[str, int | None]] = []

    def note(axes: Any, runs: Any, name: str, num_actions: int | None = None) -> None:
        seen.append((name, num_actions))
        draw_figure(axes, runs, name, num_actions)

    for module in ("agent_pictures", "training_panel"):
        monkeypatch.setattr(f"classic.{module}.draw_figure", note)
    return seen


def point(step: int, **metrics: float) -> Point:
    return Point(step, 1.0, 20.0, metrics, 1.0)


def test_a_figure_shows_its_numbers_and_what_they_are_at_most() -> None:
    runs = [[point(100, entropy=0.6, explained_variance=0.1), point(200, entropy=0.4, explained_variance=0.9)]]
    entropy, explained = Figure().subplots(1, 2)
    draw_figure(entropy, runs, "entropy", 4)
    curve, limit = entropy.lines
    assert curve.get_xdata().tolist() == [100, 200]
    assert curve.get_ydata() == pytest.approx([0.6, 0.4])
    assert limit.get_ydata() == pytest.approx([math.log(4)] * 2)
    draw_figure(explained, runs, "explained_variance", 4)
    assert [line.get_ydata()[-1] for line in explained.lines] == pytest.approx([0.9, 1.0])


def test_a_continuous_policy_has_no_entropy_of_knowing_nothing() -> None:
    axes = Figure().subplots()
    draw_figure(axes, [[point(100, entropy=1.4), point(200, entropy=-0.4)]], "entropy")
    assert len(axes.lines) == 1
    assert number_of_actions(ActorCritic(3, 2, continuous=True)) is None
    assert number_of_actions(ActorCritic(3, 2)) == 2


def test_only_what_was_measured_has_a_panel(tmp_path: Path, drawn: list[tuple[str, int | None]]) -> None:
    """REINFORCE has no critic to explain anything, DQN none of it all."""
    draw_diagnostics(tmp_path / "deep" / "some.png", [[point(100, gradient_norm=1.0, entropy=0.6, loss=3.0)]], title="")
    assert [name for name, _ in drawn] == ["entropy", "gradient_norm"]
    with Image.open(tmp_path / "deep" / "some.png") as image:
        assert image.width == 990
    draw_diagnostics(tmp_path / "none.png", [[point(100, td_loss=1.0)]], title="")
    assert not (tmp_path / "none.png").exists()
    assert not any("loss" in name for name in FIGURES)


@pytest.mark.parametrize(
    ("command", "typed", "names"),
    [
        (ppo_command, [], OF_PPO),
        (policy_gradient_command, [], ["entropy", "kl", "explained_variance", "gradient_norm"]),
        (policy_gradient_command, ["--method", "reinforce"], ["entropy", "kl", "gradient_norm"]),
    ],
)
def test_the_commands_draw_them(
    command: Any, typed: list[str], names: list[str], tmp_path: Path, drawn: list[tuple[str, int | None]]
) -> None:
    short = ["--steps", "2048", "--num-evaluation-episodes", "2", "--quiet", "--out", str(tmp_path)]
    command.main([*short, *typed])
    assert drawn == [(name, 2) for name in names]
    assert (tmp_path / "diagnostics.png").is_file()


@pytest.mark.parametrize(
    ("module", "name", "figures"),
    [
        ("ppo", "pole_panel", [(name, 2) for name in OF_PPO]),
        ("policy_gradient", "pole_panel", [("entropy", 2), ("kl", 2), ("explained_variance", 2)]),
        ("policy_gradient", "pendulum_panel", [("entropy", None), ("kl", None), ("explained_variance", None)]),
    ],
)
def test_the_panels_draw_them_below_the_returns(
    module: str,
    name: str,
    figures: list[tuple[str, int | None]],
    monkeypatch: pytest.MonkeyPatch,
    drawn: list[tuple[str, int | None]],
) -> None:
    pytest.importorskip("ipywidgets")
    monkeypatch.delenv("CLASSIC_NOTEBOOK", raising=False)
    panels = pytest.importorskip(f"classic.{module}_panels")
    monkeypatch.setattr(panels, "NUM_EPISODES", 2)
    monkeypatch.setattr("classic.training_panel.NUM_PICTURES", 2)
    panel = getattr(panels, name)(num_steps=4096)
    assert drawn == figures  # empty, before anybody presses
    before = panel.answer.picture
    panel.press("train ours")
    assert drawn[-len(figures) :] == figures
    assert panel.answer.picture.size == before.size
    lower = (0, before.height - 200, *before.size)
    assert panel.answer.picture.crop(lower).tobytes() != before.crop(lower).tobytes()
