"""Seeds, schedules, tables, JSON, curves, pictures and replays: what the lessons share."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from classic import what_is_rl_command
from classic.agent_pictures import draw_diagnostics
from classic.curves import Curve, draw_curves
from classic.environment_options import environment_options
from classic.environments import current_id, make_environment, specification
from classic.errors import LessonError
from classic.forgetting_picture import draw_forgetting
from classic.gradient_variance import METHODS, Gradients, draw_gradients
from classic.pictures import (
    picture_of_cart_pole,
    picture_of_pendulum,
    picture_of_state,
    picture_of_table_episode,
    picture_of_values,
)
from classic.real_world_command import write_run_picture
from classic.records import table_text, write_json
from classic.replays import write_replay
from classic.rlhf_run import RECORDED, read_metrics
from classic.schedules import Schedule
from classic.seeds import interquartile_mean, spread
from classic.tabular_model import tabular_model
from classic.training_runs import Point
from classic.vector_rollouts import make_vector
from tests.full_disk import files_of_at_most


def test_interquartile_mean_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for size in (1, 2, 3, 4, 5, 9, 10, 11):
        values = np.random.default_rng(size).normal(size=size)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_one_lucky_seed_does_not_move_the_interquartile_mean() -> None:
    assert interquartile_mean([1.0, 2.0, 3.0, 400.0]) == 2.5


def test_the_interval_holds_the_mean_and_shrinks_with_seeds() -> None:
    generator = np.random.default_rng(0)
    few, many = (spread(generator.normal(size=size).tolist()) for size in (8, 128))
    for found in (few, many):
        assert found.low <= found.interquartile_mean <= found.high
    assert many.high - many.low < few.high - few.low
    assert spread([3.0, 3.0, 3.0])[:3] == (3.0, 3.0, 3.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    found = [spread(generator.normal(size=40).tolist(), num_resamples=200) for _ in range(200)]
    coverage = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.88 <= coverage <= 0.99


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Schedule(0.3), [0.3, 0.3, 0.3]),
        (Schedule(1.0, 0.0, "linear"), [1.0, 0.5, 0.0]),
        (Schedule(1.0, 0.2, "linear", 0.5), [1.0, 0.2, 0.2]),
        (Schedule(1.0, 0.01, "exponential"), [1.0, 0.1, 0.01]),
    ],
)
def test_schedules_at_their_start_middle_and_end(schedule: Schedule, values: list[float]) -> None:
    assert [schedule(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(values)


def test_schedules_that_can_not_be_are_refused() -> None:
    with pytest.raises(LessonError, match="fraction"):
        Schedule(1.0, 0.0, "linear", 0.0)
    with pytest.raises(LessonError, match="exponential"):
        Schedule(1.0, 0.0, "exponential")


def test_a_table_is_aligned() -> None:
    text = table_text(["name", "number"], [["a", 1], ["long name", 12.5]])
    assert text.splitlines() == ["name       number", "---------  ------", "a               1", "long name    12.5"]


def test_json_has_the_machine_and_no_infinity(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "x.json", {"value": -math.inf, "list": [math.nan, 1.5], "rows": ({"a": 1},)})
    written = json.loads((tmp_path / "deep" / "x.json").read_text())
    assert written["value"] is None
    assert written["list"] == [None, 1.5]
    assert written["rows"] == [{"a": 1}]
    assert written["machine"]["num_cores"] >= 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Taxi-v3", "Taxi-v4"),
        ("taxi-v4", "Taxi-v4"),
        ("CartPole", "CartPole-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("Pendelum-v1", "Pendulum-v1"),
        ("Zork-v1", None),
        ("Nope-v9", None),  # which is spelled a little like Hopper
        ("frozenlak", "FrozenLake-v1"),
        ("MountainCart-v0", "MountainCar-v0"),
        ("Hopper-v9", "Hopper-v5"),  # the very name: what it needs is told when it is made
    ],
)
def test_what_was_meant(typed: str, meant: str | None) -> None:
    assert current_id(typed) == meant


def test_only_what_works_here_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def with_and_without(installed: bool) -> str | None:
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: installed or None if name == "mujoco" else found(name)
        )
        return current_id("Hoper-v5")

    assert with_and_without(False) is None
    assert with_and_without(True) == "Hopper-v5"


@pytest.mark.parametrize("make", [make_environment, lambda env_id, **options: make_vector(env_id, 2, **options)])
def test_options_behind_kwargs_are_left_to_the_environment(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(render_mode: str | None = None, size: int = 4, **more: Any) -> gym.Env[Any, Any]:
        if more.pop("colour", "red") != "red":
            raise KeyError("blue")
        return gym.make("CartPole-v1").unwrapped

    monkeypatch.setitem(gym.registry, "Picky-v0", EnvSpec("Picky-v0", entry_point=picky))
    make("Picky-v0", colour="red", size=3).close()
    with pytest.raises(
        LessonError, match=r"Picky-v0 was given colour=blue and can not be made.*KeyError.*leave it out"
    ):
        make("Picky-v0", colour="blue")
    with pytest.raises(LessonError, match="a finite number: type --env-option size=4"):
        make("Picky-v0", size="large")


def test_a_module_that_is_not_there_is_no_traceback() -> None:
    with pytest.raises(LessonError, match="type --env FrozenLake-v1, Taxi-v4 or CartPole-v1"):
        specification("nowhere:Robot-v1")


@pytest.mark.parametrize(
    ("env_id", "limit", "threshold"),
    [
        ("FrozenLake-v1", 100, 0.70),
        ("FrozenLake8x8-v1", 200, 0.85),
        ("Taxi-v4", 200, 8),
        ("CliffWalking-v1", None, None),
        ("CartPole-v1", 500, 475),
        ("Pendulum-v1", 200, None),
    ],
)
def test_the_environments_of_the_course_are_what_the_text_says(
    env_id: str, limit: int | None, threshold: float | None
) -> None:
    spec = specification(env_id)
    assert (spec.max_episode_steps, spec.reward_threshold) == (limit, threshold)


def test_options_are_read_by_kind() -> None:
    typed = ["is_slippery=false", "success_rate=0.8", "size=4", "map_name=8x8"]
    expected = {"is_slippery": False, "success_rate": 0.8, "size": 4, "map_name": "8x8"}
    assert environment_options(typed) == expected


def test_curves_are_drawn_without_a_display(tmp_path: Path) -> None:
    curve = Curve([1, 2, 3], [[0.1, 0.2, 0.3], [0.2, 0.3, -math.inf]])
    draw_curves(tmp_path / "curve.png", {"one": curve}, title="t", ylabel="y", limits={"best": 0.5})
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (840, 480)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4", "CliffWalking-v1"])
def test_every_state_has_a_picture_of_its_own(env_id: str) -> None:
    model = tabular_model(env_id)
    pictures = {picture_of_state(model, state, "").tobytes() for state in range(model.num_states)}
    # In Taxi, a passenger who waits and one who rides look alike where the taxi stands beside them.
    assert len(pictures) == model.num_states if env_id != "Taxi-v4" else len(pictures) > 460


def test_an_episode_becomes_a_gif_and_a_page(tmp_path: Path) -> None:
    model = tabular_model("CliffWalking-v1")
    policy = np.eye(4)[[1] * 48]
    policy[36], policy[35] = np.eye(4)[0], np.eye(4)[2]
    frames = picture_of_table_episode(model, policy, np.random.default_rng(0))
    assert len(frames) == 14
    write_replay(tmp_path / "cliff.gif", frames, frames_per_second=4)
    write_replay(tmp_path / "cliff.html", frames, frames_per_second=4)
    with Image.open(tmp_path / "cliff.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 14
        gif.seek(13)
        assert gif.info["duration"] == 1000
    page = (tmp_path / "cliff.html").read_text()
    assert page.count("data:image/png;base64,") == 14
    assert "http" not in page


def test_colours_that_come_late_survive_the_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), "white"), Image.new("RGB", (20, 20), (209, 73, 91))]
    write_replay(tmp_path / "two.gif", frames, frames_per_second=4)
    with Image.open(tmp_path / "two.gif") as gif:
        gif.seek(1)
        assert np.abs(np.array(gif.convert("RGB"))[0, 0].astype(int) - [209, 73, 91]).max() < 8


def test_white_stays_white_in_a_gif(tmp_path: Path) -> None:
    """A drawing with smooth edges and letters has many colours that are nearly white."""
    frames = [picture_of_cart_pole(np.array([0, 0, angle, 0], dtype=np.float32), "step") for angle in (0.1, 0.2)]
    write_replay(tmp_path / "pole.gif", frames, frames_per_second=4)
    with Image.open(tmp_path / "pole.gif") as gif:
        assert gif.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_frames_have_one_size_whatever_is_written_below() -> None:
    model = tabular_model("FrozenLake-v1")
    assert len({picture_of_state(model, 0, "x" * length).size for length in (0, 5, 40)}) == 1


def test_other_endings_and_no_frames_are_refused(tmp_path: Path) -> None:
    frame = Image.new("RGB", (4, 4))
    with pytest.raises(LessonError, match=r"\.gif or \.html"):
        write_replay(tmp_path / "replay.mp4", [frame], frames_per_second=4)
    with pytest.raises(LessonError, match="no frames"):
        write_replay(tmp_path / "replay.gif", [], frames_per_second=4)


def test_drawings_move_with_what_they_show() -> None:
    upright = picture_of_cart_pole(np.zeros(4, dtype=np.float32), "")
    assert upright.tobytes() != picture_of_cart_pole(np.array([0, 0, 0.2, 0], dtype=np.float32), "").tobytes()
    up, down = (picture_of_pendulum(np.array([cosine, 0, 0], dtype=np.float32), "") for cosine in (1, -1))
    red = (209, 73, 91)
    assert up.getpixel((110, 60)) == red
    assert down.getpixel((110, 160)) == red
    assert down.getpixel((110, 60)) != red


def test_values_and_arrows_are_drawn() -> None:
    model = tabular_model("FrozenLake-v1")
    q = np.zeros((16, 4))
    q[0, 2] = 1.0
    image = picture_of_values(model, q, "caption")
    assert image.getpixel((5, 40)) != image.getpixel((53, 40))  # the best square is greener than its neighbour


POINTS = [Point(step, 1.0, float(step), {"entropy": 0.5, "td_loss": 0.1}, 1.0) for step in (100, 200)]
GRADIENTS = Gradients(dict.fromkeys(METHODS, np.random.default_rng(0).normal(size=(8, 3))), 1, 0.0)
FRAMES = [Image.effect_noise((60, 60), step) for step in (10, 20)]
# Name of the file to what writes it.
WRITERS: dict[str, Callable[[Path], object]] = {
    "curve.png": lambda path: draw_curves(path, {"a": Curve([0, 1], [[0.0, 1.0]])}, title="", ylabel=""),
    "diagnostics.png": lambda path: draw_diagnostics(path, [POINTS], title=""),
    "forgetting.png": lambda path: draw_forgetting(path, [POINTS], title="", gamma=0.9),
    "gradients.png": lambda path: draw_gradients(path, GRADIENTS, ""),
    "run.png": lambda path: write_run_picture(path.parent, read_metrics(RECORDED), ""),
    "values.png": lambda path: what_is_rl_command.write_pictures(path.parent, tabular_model("FrozenLake-v1"), 0),
    "replay.gif": lambda path: write_replay(path, FRAMES, frames_per_second=4),
    "replay.html": lambda path: write_replay(path, FRAMES, frames_per_second=4),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_picture_that_was_there(name: str, tmp_path: Path) -> None:
    """Half a picture is none, and the one of the run before would be gone."""
    path = tmp_path / "pictures" / name
    WRITERS[name](path)
    before = path.read_bytes()
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="File too large"):
        WRITERS[name](path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.half"))
