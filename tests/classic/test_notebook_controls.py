"""Panels without a browser: moving a control redraws, buttons draw live, stills stand in for widgets."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from classic.errors import LessonError

pytest.importorskip("ipywidgets")
from classic.dqn_panels import dqn_panel, loss_panel, overestimation, slope_of_huber
from classic.luck import chance_below, success_counts
from classic.notebook_controls import (
    Answer,
    Panel,
    Show,
    budget,
    choice,
    draw_every,
    log_slider,
    mode,
    png,
    replay,
    slider,
    switch,
    with_lines,
)
from classic.policy_gradient_panels import (
    density_panel,
    density_slopes,
    mean_and_variance,
    noise_panel,
    pendulum_panel,
    two_arm_samples,
    two_arms_panel,
)
from classic.policy_gradient_panels import pole_panel as gradient_pole_panel
from classic.ppo_panels import (
    advantage_answer,
    clip_panel,
    pole_panel,
    targets_of_standing,
    value_and_slope,
)
from classic.q_learning_panels import TaxiPanel, cliff_panel, gamma_panel, settings_panel, taxi_panel, update_panel
from classic.real_world_panels import hacking_panel, robot_panel, run_picture, sandbox_panel
from classic.what_is_rl_panels import AGENTS, clock_panel, drive_panel, luck_panel


@pytest.fixture(autouse=True)
def somebody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLASSIC_NOTEBOOK", raising=False)


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations and pictures take longer than these short trainings."""
    monkeypatch.setattr("classic.training_panel.NUM_PICTURES", 2)
    for lesson in ("dqn", "policy_gradient", "ppo"):
        monkeypatch.setattr(f"classic.{lesson}_panels.NUM_EPISODES", 2)


def square(size: int, colour: str = "white") -> Answer:
    return Answer(Image.new("RGB", (size, 20), colour), f"size {size}")


def size_of(panel: Panel) -> tuple[int, int]:
    return Image.open(io.BytesIO(panel.image.value)).size


# --- the panel -----------------------------------------------------------------------------------------------------


def test_a_control_that_moves_redraws_at_once() -> None:
    panel = Panel(square, {"size": slider("size", 10, 1, 50, 1)})
    assert size_of(panel) == (10, 20)
    panel.controls["size"].value = 30
    assert size_of(panel) == (30, 20)
    assert panel.text.value == "size 30"


def test_a_button_waits_for_a_person_and_draws_as_it_goes() -> None:
    seen = []

    def start(show: Show, size: int) -> None:
        for step in (1, 2):
            assert panel.buttons["go"].disabled
            show(square(size * step))
            seen.append(size_of(panel)[0])

    panel = Panel(None, {"size": slider("size", 10, 1, 50, 1)}, {"go": start})
    assert not panel.image.value
    assert "go" in panel.text.value
    panel.buttons["go"].click()
    assert seen == [10, 20]
    assert not panel.buttons["go"].disabled


def test_a_button_whose_work_fails_can_be_pressed_again() -> None:
    def start(show: Show) -> None:
        raise ValueError("no")

    panel = Panel(None, {}, {"go": start})
    with pytest.raises(ValueError, match="no"):
        panel.press("go")
    assert not panel.buttons["go"].disabled


@pytest.mark.parametrize(("who", "presses"), [("", 0), ("record", 1), ("test", 1)])
def test_where_nobody_is_there_the_buttons_press_themselves(
    who: str, presses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASSIC_NOTEBOOK", who)
    pressed = []
    Panel(None, {}, {"a": lambda show: pressed.append("a"), "b": lambda show: pressed.append("b")}, pressed=["b"])
    assert pressed == ["b"] * presses


def test_budgets_are_small_in_tests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert budget(100_000, 2048) == 100_000
    monkeypatch.setenv("CLASSIC_NOTEBOOK", "test")
    assert budget(100_000, 2048) == 5_000
    assert budget(10_000, 2048) == 2_048
    monkeypatch.setenv("CLASSIC_NOTEBOOK", "fast")
    with pytest.raises(LessonError, match="record, test"):
        mode()


def test_drawing_is_rare_and_ends_with_the_last() -> None:
    is_due = draw_every(50, 10)
    due = [number for number in range(1, 51) if is_due(number)]
    assert len(due) == 10
    assert due[-1] == 50
    assert sum(map(draw_every(20, 12), range(1, 21))) <= 12
    assert [number for number in range(1, 4) if draw_every(3)(number)] == [1, 2, 3]


def test_the_still_picture_carries_text_and_settings_and_stands_beside_the_widget() -> None:
    panel = Panel(square, {"size": slider("size", 10, 1, 50, 1)})
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    still = Image.open(io.BytesIO(bundle["image/png"]))
    assert still.height == 20 + 2 * 17 + 8  # one line of text, one of settings
    assert still.width > 10
    assert with_lines(Image.new("RGB", (9, 9)), []).size == (9, 9)


def test_kinds_of_controls() -> None:
    assert type(slider("n", 1, 0, 9, 1)).__name__ == "IntSlider"
    assert type(slider("x", 0.5, 0, 1, 0.1)).__name__ == "FloatSlider"
    assert log_slider("beta", 0.1, -2, 1).value == 0.1
    assert choice("method", ["a", "b"]).value == "a"
    assert switch("on", True).value is True


def test_pictures_are_small_and_faithful() -> None:
    image = Image.new("RGB", (50, 50), (209, 73, 91))
    assert Image.open(io.BytesIO(png(image))).convert("RGB").getpixel((5, 5)) == (209, 73, 91)
    moving = replay([image, Image.new("RGB", (50, 50), "white")])
    assert moving.data[:6] == b"GIF89a"
    assert moving.format == "png"  # nbconvert and GitHub show no image/gif


# --- luck ----------------------------------------------------------------------------------------------------------


def test_luck_by_the_published_figures() -> None:
    """Sampling noise of the best table on FrozenLake: below 0.70 in 15.2 % of tests of 100, 0.19 % of 1,000."""
    truth = AGENTS["best table"]
    assert chance_below(0.70, truth, 100) == pytest.approx(0.152, abs=0.0005)
    assert chance_below(0.70, truth, 1000) == pytest.approx(0.0019, abs=0.00005)
    assert 1 - chance_below(0.78, truth, 100) == pytest.approx(0.216, abs=0.0005)


def test_sure_things_need_no_luck() -> None:
    assert success_counts(1.0, 5).tolist() == pytest.approx([0, 0, 0, 0, 0, 1])
    assert success_counts(0.0, 5).tolist() == pytest.approx([1, 0, 0, 0, 0, 0])
    assert success_counts(0.3, 700).sum() == pytest.approx(1.0)


# --- the lessons' panels -------------------------------------------------------------------------------------------


def test_you_can_drive() -> None:
    panel = drive_panel("CliffWalking-v1")
    for label in ["up", *["right"] * 11, "down"]:
        panel.buttons[label].click()
    assert "return -13, the episode is over; mean of 1 episodes -13.000" in panel.text.value
    panel.buttons["up"].click()
    assert "step 0, return 0" in panel.text.value


def test_the_clock_changes_what_is_best() -> None:
    panel = clock_panel()
    assert "0.744190" in panel.text.value
    panel.controls["steps_left"].value = 5
    assert "0.000000" in panel.text.value  # the goal is six steps away


def test_the_luck_panel_names_the_share_of_failed_tests() -> None:
    panel = luck_panel()
    panel.controls["agent"].value = "best table"
    assert "fails 15.16%" in panel.text.value
    panel.controls["num_episodes"].value = 1000
    assert "fails 0.19%" in panel.text.value


def test_one_update_is_shown_with_its_numbers() -> None:
    panel = update_panel(seed=12)  # its sixth random step reaches the goal; most seeds wander for hundreds
    panel.controls["alpha"].value = 0.5
    while "0 (it ended)" not in panel.text.value or "(1 +" not in panel.text.value:
        panel.press("one step")  # until the first goal; the table was empty, so Q becomes alpha
    assert "Q ← 0.0000 + 0.5 × (1 + 0 (it ended) − 0.0000) = 0.5000" in panel.text.value
    panel.press("forget")
    assert "empty" in panel.text.value


def test_settings_train_a_whole_table_behind_a_slider() -> None:
    panel = settings_panel(num_steps=100_000)
    assert "exactly: 0.740165" in panel.text.value
    panel.controls["gamma"].value = 0.9
    assert "exactly: 0.740165" not in panel.text.value  # too short-sighted for the best table


def test_gamma_on_the_large_lake_by_the_exact_figures() -> None:
    panel = gamma_panel()
    assert "0.740165" in panel.text.value
    assert "0.542026" in panel.text.value
    panel.controls["env_id"].value = "FrozenLake8x8-v1"
    assert "0.862955" in panel.text.value
    panel.controls["gamma"].value = 0.995
    assert "0.893568" in panel.text.value


def test_the_cliff_is_dear_for_q_learning_and_not_for_the_careful() -> None:
    panel = cliff_panel(num_steps=60_000)
    assert "greedy: -13.00" in panel.text.value
    careless = float(panel.text.value.rsplit(": ", 1)[1])
    panel.controls["method"].value = "expected_sarsa"
    assert float(panel.text.value.rsplit(": ", 1)[1]) > careless + 15


def test_the_taxi_drives_better_after_the_button() -> None:
    panel = taxi_panel(num_steps=400_000)
    assert isinstance(panel, TaxiPanel)
    assert len(panel.episode()) == 40
    panel.press("learn to drive a taxi")
    assert "exact mean return 7.9" in panel.text.value
    assert len(panel.episode()) <= 20


def test_the_clip_panel_says_where_the_gradient_is_gone() -> None:
    panel = clip_panel()
    assert "slope +1.00" in panel.text.value
    panel.controls["ratio"].value = 1.5
    assert "no gradient" in panel.text.value
    panel.controls["advantage"].value = -1.0
    assert "slope -1.00" in panel.text.value  # too likely, and bad: it is called back


def test_the_mistake_with_the_clock_by_the_published_figures() -> None:
    """Critic sanity of CartPole: 100 at gamma 0.99, or a mean of 80.3 that ends at 1; 50 and 45.1 at 0.98."""
    assert targets_of_standing(0.99, cut_is_end=False).tolist() == pytest.approx([100.0] * 500)
    wrong = targets_of_standing(0.99, cut_is_end=True)
    assert float(wrong.mean()) == pytest.approx(80.3, abs=0.05)
    assert float(wrong[-1]) == pytest.approx(1.0)
    assert float(targets_of_standing(0.98, cut_is_end=True).mean()) == pytest.approx(45.1, abs=0.05)
    assert "-0.40: after it comes nothing" in advantage_answer(0.95, 0.9, fell=True).text
    assert "-0.02: after it comes what" in advantage_answer(0.95, 0.9, fell=False).text


def test_slopes_are_zero_exactly_on_the_flat_parts() -> None:
    for ratio, advantage, slope in [(1.3, 1.0, 0.0), (0.5, 1.0, 1.0), (0.5, -2.0, 0.0), (1.3, -2.0, -2.0)]:
        assert value_and_slope(ratio, advantage, 0.2)[1] == slope


@pytest.mark.usefixtures("few_episodes")
def test_the_pole_is_trained_and_shown() -> None:
    panel = pole_panel(num_steps=4096)
    assert size_of(panel)[0] > 600  # the chart with its limits is there before anybody presses
    by_hand = panel.episode()
    assert len(by_hand) == 101  # 500 steps by hand, every fifth and the first
    panel.controls["num_ppo_epochs"].value = 2
    panel.press("train ours")
    assert "clip 0.2, lambda 0.95, 2 epochs: 3," in panel.text.value
    first = np.asarray(panel.answer.picture)
    panel.controls["clip_range"].value = 0.1
    assert (np.asarray(panel.answer.picture) == first).all()  # a control counts when a button is pressed
    panel.press("train ours")
    assert "clip 0.1" in panel.text.value
    assert panel.result is not None
    assert len(panel.episode()) <= 101


def test_losses_and_their_slopes() -> None:
    assert [slope_of_huber(error) for error in (-3.0, 0.25, 7.0)] == [-1.0, 0.25, 1.0]
    panel = loss_panel()
    assert "squared loss +2.50, of Huber's +1.00" in panel.text.value


def test_the_best_of_noisy_numbers_by_the_published_expectation() -> None:
    """The mean of the largest of two standard normals is 1 / sqrt(pi); of one it is 0, and double DQN gives 0."""
    assert overestimation(1.0, 2, double=False) == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert overestimation(1.0, 1, double=False) == pytest.approx(0.0, abs=0.02)
    assert overestimation(3.0, 10, double=True) == pytest.approx(0.0, abs=0.06)


@pytest.mark.usefixtures("few_episodes")
def test_crutches_are_taken_away_by_their_switches() -> None:
    panel = dqn_panel(num_steps=1600)
    panel.controls["replay"].value = False
    panel.controls["double"].value = False
    panel.press("train ours")
    assert "without replay, rate 0.001: 1," in panel.text.value
    assert panel.result is not None
    assert "doomed_q" in panel.result.points[-1].metrics


def test_two_arms_have_one_mean_and_the_noise_depends_on_the_baseline() -> None:
    means, variances = zip(
        *(mean_and_variance(*two_arm_samples(0.5, 11.0, 10.0, baseline)) for baseline in (0.0, 5.0, 10.5)), strict=True
    )
    assert means == pytest.approx([0.25] * 3)  # p (1 - p) (11 - 10)
    assert variances == pytest.approx([5.25**2, 2.75**2, 0.0], abs=1e-9)
    panel = two_arms_panel()
    assert "mean +0.2500" in panel.text.value
    panel.controls["baseline"].value = 10.5
    assert "variance 0.0000" in panel.text.value


def test_a_good_action_pulls_the_bell_and_widens_it_beyond_one_deviation() -> None:
    assert density_slopes(0.0, 0.0, 1.5)[1] > 0 > density_slopes(0.0, 0.0, 0.5)[1]
    assert density_slopes(0.0, 0.0, 1.0) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert "mean +1.00" in density_panel().text.value


def test_noise_is_measured_for_the_three_methods() -> None:
    panel = noise_panel(num_steps=10_240, num_batches=6)
    panel.controls["num_episodes"].value = 2
    panel.press("measure the noise")
    assert "reinforce 100.0%, baseline " in panel.text.value


@pytest.mark.usefixtures("few_episodes")
@pytest.mark.parametrize("method", ["reinforce", "baseline", "actor_critic"])
def test_each_method_trains_from_its_panel(method: str) -> None:
    panel = gradient_pole_panel(num_steps=2048)
    panel.controls["method"].value = method
    panel.press("train ours")
    assert panel.text.value.startswith(method.replace("_", "-"))


@pytest.mark.usefixtures("few_episodes")
def test_the_pendulum_has_no_lines_of_the_pole_and_no_race() -> None:
    panel = pendulum_panel(num_steps=4096)
    assert list(panel.buttons) == ["train ours"]
    panel.press("train ours")
    assert "mean return -" in panel.text.value


def test_the_hacking_panel_says_when_to_stop() -> None:
    panel = hacking_panel()
    assert "still helps" in panel.text.value
    panel.controls["beta"].value = 0.1
    assert "hacked" in panel.text.value
    panel.controls["flaw"].value = 0.2
    assert "still helps" in panel.text.value


def test_the_sandbox_panel_trains_towards_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASSIC_NOTEBOOK", "test")
    panel = sandbox_panel()
    assert "update 20: gap to the optimum 0." in panel.text.value


def test_an_arm_of_another_mass_shakes() -> None:
    panel = robot_panel()
    shaking = float(panel.text.value.split()[1].rstrip(";"))
    panel.controls["mass"].value = 1.0
    assert float(panel.text.value.split()[1].rstrip(";")) < shaking / 10


def test_the_bridge_shows_the_recorded_run_where_there_is_no_own_one() -> None:
    answer = run_picture("runs/no_such_run")
    assert "gold score: 1.684 at first, 2.672 at last" in answer.text
    assert np.asarray(answer.picture).std() > 0
