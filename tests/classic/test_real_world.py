"""The sketches against brute force, exact limits and oracles; the bridge to a run folder; the command."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from classic.bidding import Day, bidding, hindsight, make_day, pace, profit, won
from classic.chip_design import (
    NUM_BLOCKS,
    anneal,
    chip_design,
    make_nets,
    optimum,
    sample_placements,
    wire_lengths,
)
from classic.cooling import (
    NUM_HOURS,
    best_policy,
    cooling,
    cooling_model,
    heat,
    mean_temperatures,
    power_price,
    thermostat,
)
from classic.dynamic_programming import expected_return
from classic.errors import LessonError
from classic.real_world_command import main
from classic.recommendations import choose, click_rates, recommendations, regret_of
from classic.rlhf_run import GOLD, KL, RECORDED, SCORE, curve_of, picture_of_run, read_metrics
from classic.robotics import MASSES, NUM_TICKS, best_costs, costs, robotics, search, trajectories

# --- recommendations -----------------------------------------------------------------------------------------------


def test_random_articles_cost_what_the_rates_say() -> None:
    rates = click_rates(3, 10, np.random.default_rng(0))
    per_reader = float((rates.max(-1) - rates.mean(-1)).mean())
    regret = regret_of("random", rates, 400, np.random.default_rng(1), num_runs=400)
    assert regret[:, -1].mean() == pytest.approx(400 * per_reader, rel=0.02)
    assert (np.diff(regret, axis=1) >= 0).all()


def test_learning_costs_less_than_guessing_and_thompson_sampling_stops_paying() -> None:
    sketch = recommendations(0, num_rounds=3000, num_runs=20)
    scores = sketch.scores
    assert scores["Thompson sampling"] < 0.5 * scores["random"]
    assert scores["epsilon-greedy"] < 0.5 * scores["random"]
    assert scores["UCB1"] < 0.9 * scores["random"]
    # Epsilon-greedy explores for ever; of Thompson's regret the second half is the smaller.
    steps, (values,) = sketch.curves["Thompson sampling"].steps, sketch.curves["Thompson sampling"].values
    assert values[-1] - values[len(steps) // 2] < 0.4 * values[-1]


def test_each_method_chooses_as_its_name_says() -> None:
    generator = np.random.default_rng(0)
    shown, clicked = np.full((4000, 3), 100.0), np.tile([50.0, 10.0, 10.0], (4000, 1))
    greedy = choose("epsilon-greedy", shown, clicked, 0.3, generator)
    assert np.mean(greedy == 0) == pytest.approx(0.7 + 0.1, abs=0.03)
    assert np.mean(choose("random", shown, clicked, 0.0, generator) == 0) == pytest.approx(1 / 3, abs=0.03)
    assert (choose("UCB1", shown, clicked, 0.0, generator) == 0).all()
    shown[:, 2] = clicked[:, 2] = 0  # never shown: the optimist must look
    assert (choose("UCB1", shown, clicked, 0.0, generator) == 2).all()
    # P(Beta(1, 1) > Beta(51, 51)) is a half: what is unknown is tried about as often as not.
    assert np.mean(choose("Thompson sampling", shown, clicked, 0.0, generator) == 2) == pytest.approx(0.5, abs=0.03)


# --- bidding -------------------------------------------------------------------------------------------------------


def test_no_set_of_auctions_beats_hindsight() -> None:
    for seed in range(5):
        day = make_day(10, np.random.default_rng(seed))
        budget = 0.3 * float(day.prices.sum())
        sets = np.array(list(product([False, True], repeat=10)))
        affordable = sets[(sets * day.prices).sum(1) <= budget]
        best = max(profit(day, one) for one in affordable)
        bound, _ = hindsight(day, budget)
        assert best <= bound + 1e-12
        assert bound - best <= (day.values - day.prices).max()  # less than one auction away


def test_with_money_for_all_the_best_is_every_auction_that_pays() -> None:
    day = make_day(200, np.random.default_rng(0))
    bound, mu = hindsight(day, float(day.prices.sum()))
    assert mu == 0
    assert bound == pytest.approx(profit(day, day.values > day.prices))
    # Second price: bidding the value wins exactly those, and no other constant shading does better.
    golds = [profit(day, won(day, day.values * shade, 1e9)) for shade in (0.5, 0.8, 1.0, 1.2, 2.0)]
    assert max(golds) == golds[2] == pytest.approx(bound)


def test_bidding_with_the_price_of_money_buys_what_hindsight_buys() -> None:
    day = make_day(3000, np.random.default_rng(0))
    budget = 0.2 * float(day.prices.sum())
    bound, mu = hindsight(day, budget)
    assert profit(day, won(day, day.values / (1 + mu), budget)) == pytest.approx(bound, rel=0.01)


def test_pacing_keeps_the_budget_and_finds_the_price_of_money() -> None:
    day = make_day(4000, np.random.default_rng(1))
    budget = 0.2 * float(day.prices.sum())
    wins, mus = pace(day, budget, 0.02)
    assert day.prices[wins].sum() <= budget
    assert mus[1000:3500].mean() == pytest.approx(hindsight(day, budget)[1], rel=0.15)
    scores = bidding(1).scores
    assert scores["pacing"] > 0.95
    assert scores["pacing"] > scores["bid the value until the money is gone"] + 0.2


def test_money_spent_is_gone() -> None:
    day = Day(np.array([3.0, 3.0, 3.0]), np.array([1.0, 2.0, 1.0]))
    assert won(day, day.values, 2.0).tolist() == [True, False, True]


# --- cooling -------------------------------------------------------------------------------------------------------


def test_the_hall_is_a_proper_table_whose_mean_drift_is_the_heat() -> None:
    model = cooling_model()
    assert model.probabilities.sum(-1) == pytest.approx(1.0)
    assert (model.probabilities >= 0).all()
    state = 6 * NUM_HOURS + 16  # six degrees at four in the afternoon, far from both ends
    reached = (model.probabilities[state, 2] * (model.next_states[state, 2] // NUM_HOURS)).sum()
    assert reached == pytest.approx(6 + heat(16) - 2)
    assert heat(16) == pytest.approx(1.9)
    assert (model.rewards[state, 2] == -2 * power_price(16)).all()


def test_the_optimum_beats_every_thermostat_and_learning_gets_near() -> None:
    sketch = cooling(0, num_steps=500_000)
    (rule,) = (score for name, score in sketch.scores.items() if "thermostat" in name)
    learnt, best = sketch.scores["Q-learning"], sketch.limits["optimum"]
    assert sketch.limits["optimum that knows when the week ends"] <= best < learnt < rule
    assert learnt < best + 0.25 * (rule - best)


def test_the_optimum_cools_ahead_at_night() -> None:
    model = cooling_model()
    best, rule = mean_temperatures(model, best_policy(model)), mean_temperatures(model, thermostat(9))
    assert best[8] < rule[8] - 5  # at eight in the morning, before power gets dear
    assert expected_return(model, best_policy(model)) > expected_return(model, thermostat(9))


# --- robotics ------------------------------------------------------------------------------------------------------


def test_no_gains_beat_the_riccati_cost() -> None:
    gains = np.exp(np.random.default_rng(0).normal([1.5, 1.0], 0.7, size=(300, 2)))
    with np.errstate(over="ignore"):
        found = costs(gains, MASSES)
    assert (found > best_costs(MASSES)).all()
    tuned = costs(search(np.array([1.0]), np.random.default_rng(0))[None], np.array([1.0]))
    assert tuned[0, 0] < 1.15 * best_costs(np.array([1.0]))[0]


def test_riccati_against_torch() -> None:
    """The best sequence of commands by descent, knowing nothing of Riccati; without noise it needs no feedback."""
    torch = pytest.importorskip("torch")
    commands = torch.zeros(NUM_TICKS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([commands], max_iter=200, line_search_fn="strong_wolfe")

    def closure():  # type: ignore[no-untyped-def]
        optimizer.zero_grad()
        error, speed, late, total = 1.0, 0.0, 0.0, 0.0
        for command in commands:
            total = total + error**2 + 0.001 * command**2
            error, speed, late = error + 0.1 * speed, speed + 0.1 * late / 2.0, command
        total = total + error**2
        total.backward()
        return total

    optimizer.step(closure)
    assert closure().item() == pytest.approx(best_costs(np.array([2.0]))[0], rel=1e-6)


def test_gains_of_one_mass_fail_on_a_light_arm_and_randomised_ones_do_not() -> None:
    scores = robotics(0).scores
    assert scores["gains tuned on 1 kg"] > 10
    assert scores["gains tuned on many masses"] < 1.6
    errors, _ = trajectories(search(MASSES, np.random.default_rng(0))[None], MASSES)
    assert errors.shape == (NUM_TICKS + 1, 1, len(MASSES))
    assert np.abs(errors[-1]).max() < 0.05


# --- chip design ---------------------------------------------------------------------------------------------------


def test_wire_length_by_hand() -> None:
    """Places 0 1 2 / 3 4 5 / 6 7 8: block 0 at 0 and block 1 at 8 are two rows and two columns apart."""
    nets = [np.array([0, 1]), np.array([0, 2, 3])]
    placement = np.array([[0, 8, 1, 3, 2, 4, 5, 6, 7]])
    assert wire_lengths(placement, nets).tolist() == [4 + 2]


def test_the_gradient_of_a_placement_against_torch() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(NUM_BLOCKS, NUM_BLOCKS))
    placements, score = sample_placements(logits, 3, np.random.default_rng(1))
    assert all(sorted(row) == list(range(NUM_BLOCKS)) for row in placements.tolist())
    for row, found in zip(placements, score, strict=True):
        table = torch.tensor(logits, requires_grad=True)
        total, free = 0.0, torch.ones(NUM_BLOCKS, dtype=torch.bool)
        for block, place in enumerate(row):
            total = total + torch.where(free, table[block], -torch.inf).log_softmax(-1)[place]
            free = free & (torch.arange(NUM_BLOCKS) != int(place))
        total.backward()
        np.testing.assert_allclose(found, table.grad.numpy(), atol=1e-12)


def test_annealing_and_learning_come_near_the_optimum_and_guessing_does_not() -> None:
    scores = chip_design(0, num_tries=2000).scores
    assert scores["random placements"] > 1.2
    assert scores["REINFORCE"] < 1.1
    nets = make_nets(np.random.default_rng(0))
    assert anneal(nets, 2000, np.random.default_rng(0))[-1] <= 1.05 * optimum(nets)


# --- the bridge ----------------------------------------------------------------------------------------------------


def test_a_run_folder_is_read_and_drawn(tmp_path: Path) -> None:
    (tmp_path / "ppo").mkdir()
    lines = [json.dumps({"step": step, SCORE: 0.1 * step, KL: 0.2 * step}) for step in range(5)]
    lines.insert(0, json.dumps({"step": 0, GOLD: 1.5}))
    (tmp_path / "ppo" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "objec')  # cut while writing
    rows = read_metrics(tmp_path)
    assert len(rows) == 6
    assert curve_of(rows, SCORE).values == [[0.0, 0.1, 0.2, pytest.approx(0.3), 0.4]]
    assert curve_of(rows, GOLD).steps == [0]
    wide, narrow = picture_of_run(rows).width, picture_of_run(rows[1:]).width
    assert wide > narrow  # without a gold score there is no empty panel


def test_the_recorded_run_shows_reward_kl_and_gold() -> None:
    """Figures of README, "Results on the embedded default", seed 0: KL 1.62 nats on held-out prompts."""
    rows = read_metrics(RECORDED)
    assert curve_of(rows, GOLD).values[0][-1] > curve_of(rows, GOLD).values[0][0] + 0.5
    assert curve_of(rows, "eval_kl").values[0][-1] == pytest.approx(1.62, abs=0.1)


@pytest.mark.parametrize(("content", "message"), [(None, "rlhf-lab run"), ('{"step": 1, "loss": 2}', "--run runs")])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(LessonError, match=message):
        read_metrics(tmp_path)


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--env", "bidding", "robotics", "sandbox", "--steps", "20", "--beta", "1", "0.2", "--seeds", "2"]
    main([*short, "--quiet", "--json", str(tmp_path / "all.json"), "--out", str(tmp_path)])
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["seeds"] == [0, 1]
    assert len(written["bidding"]["scores"]) == 2
    assert [run["beta"] for run in written["sandbox"]["reached"][0]] == [1.0, 0.2]
    assert {"bidding.png", "robotics.png", "sandbox.png"} <= {file.name for file in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    assert printed.count("left out:") == 3
    assert "gold is highest at beta 0.372" in printed


def test_the_command_shows_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--run", str(RECORDED), "--out", str(tmp_path)])
    assert (tmp_path / "run.png").is_file()
    assert "gold score: 1.684 at first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--beta", "-1"], "above 0"), (["--env", "bidding", "--steps", "5"], "--env sandbox")],
)
def test_what_the_command_can_not_do_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main([*arguments, "--quiet"])
