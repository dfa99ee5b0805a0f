"""The panels of notebook 6: five sketches, the RLHF sandbox with its reward-hacking sliders, and PPO in it, live.

Left out: the worlds themselves, one file each.

    jupyter lab classic/notebooks/06_real_world_rl.ipynb
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classic.answers import all_answers
from classic.bidding import bidding
from classic.charts import chart, draw_lines, finish, side_by_side
from classic.chip_design import chip_design
from classic.cooling import NUM_HOURS, best_policy, cooling, cooling_model, mean_temperatures, thermostat
from classic.curves import Curve
from classic.dynamic_programming import expected_return
from classic.kl_optimum import covariance
from classic.notebook_controls import Answer, Panel, Show, budget, draw_every, log_slider, slider
from classic.real_world import frontier, optimum_at
from classic.real_world_pictures import (
    optimal_log_probs,
    picture_of_answers,
    picture_of_frontier,
    picture_of_sketch,
)
from classic.recommendations import recommendations
from classic.rlhf_run import RECORDED, picture_of_run, read_metrics, summary_of_run
from classic.rlhf_sandbox import Point, Settings, train
from classic.robotics import TICK, best_costs, trajectories
from classic.sketches import Sketch


def scores_text(sketch: Sketch) -> str:
    """Its measure and scores in two lines."""
    scores = [*sketch.scores.items(), *sketch.limits.items()]
    return f"{sketch.measure}\n" + "; ".join(f"{name}: {score:.4g}" for name, score in scores)


def recommendations_panel() -> Panel:
    """How much to explore: the slider moves epsilon-greedy, the others find out by themselves."""

    def answer(epsilon: float, seed: int) -> Answer:
        sketch = recommendations(seed, num_rounds=budget(1000, 200), epsilon=epsilon, num_runs=20)
        return Answer(picture_of_sketch(sketch), scores_text(sketch))

    return Panel(answer, {"epsilon": slider("epsilon", 0.1, 0.0, 0.5, 0.02), "seed": slider("seed", 0, 0, 9, 1)})


def bidding_panel() -> Panel:
    """A budget for the day, and how fast the price of money is learnt."""

    def answer(budget_fraction: float, step: float) -> Answer:
        sketch = bidding(0, budget_fraction=budget_fraction, step=step)
        return Answer(picture_of_sketch(sketch), scores_text(sketch))

    controls = {
        "budget_fraction": slider("budget, of the price of everything", 0.2, 0.02, 0.6, 0.02),
        "step": log_slider("step", 0.02, -3, 0, 10),
    }
    return Panel(answer, controls)


def cooling_panel() -> Panel:
    """What heat damage costs decides how the best controller uses the night; the button lets Q-learning find it."""

    def answer(penalty: float) -> Answer:
        model = cooling_model(penalty)
        best, rule = best_policy(model), thermostat(9)
        hours = list(range(NUM_HOURS))
        curves = {
            "thermostat at 9": Curve(hours, [mean_temperatures(model, rule).tolist()]),
            "optimum": Curve(hours, [mean_temperatures(model, best).tolist()]),
        }
        costs = [-expected_return(model, policy) for policy in (rule, best)]

        def draw(axes: Any) -> None:
            draw_lines(axes, curves, xlabel="hour of the day", ylabel="mean temperature, exact")
            axes.axvspan(8, 22, color="#ffd166", alpha=0.2)

        text = f"cost of a week: thermostat {costs[0]:.1f}, optimum {costs[1]:.1f} (shaded: power is dear)"
        return Answer(chart(draw), text)

    def start(show: Show, penalty: float) -> None:
        sketch = cooling(0, num_steps=budget(2_000_000, 100_000), penalty=penalty)
        show(Answer(picture_of_sketch(sketch), scores_text(sketch)))

    return Panel(answer, {"penalty": slider("cost of a degree too warm", 8.0, 0.5, 20.0, 0.5)}, {"Q-learning": start})


def robot_panel() -> Panel:
    """You set the gains of a joint; then the arm turns out to weigh something else."""

    def answer(kp: float, kd: float, mass: float) -> Answer:
        masses = np.array([mass])
        with np.errstate(over="ignore"):
            errors, costs = trajectories(np.array([[kp, kd]]), masses)
        seconds = (np.arange(len(errors)) * TICK).tolist()

        def draw(axes: Any) -> None:
            shown = errors[:, 0, 0].clip(-2, 2).tolist()
            draw_lines(axes, {"error": Curve(seconds, [shown])}, xlabel="seconds", ylabel="metres", limits={"goal": 0})
            axes.set_ylim(-2, 2)

        best = best_costs(masses)[0]
        text = f"cost {costs[0, 0]:.4g}; a controller that knows the mass pays {best:.4g}"
        return Answer(chart(draw, height=2.8), text)

    controls = {
        "kp": slider("kp", 10.7, 1.0, 30.0, 0.1),
        "kd": slider("kd", 5.7, 0.0, 15.0, 0.1),
        "mass": slider("mass of the real arm, kg", 0.55, 0.3, 3.0, 0.05),
    }
    return Panel(answer, controls)


def chip_panel() -> Panel:
    """Nine blocks: guessing, annealing and REINFORCE, with as many tries each."""

    def place(show: Show, seed: int) -> None:
        sketch = chip_design(seed, num_tries=budget(2000, 200))
        show(Answer(picture_of_sketch(sketch), scores_text(sketch)))

    return Panel(None, {"seed": slider("seed", 0, 0, 9, 1)}, {"place the blocks": place})


def hacking_panel() -> Panel:
    """Two sliders: the price of KL, and how easily the reward model is flattered. All exact, nothing is trained."""
    controls = {"beta": log_slider("beta", 0.4, -1.7, 1.0), "flaw": slider("flaw", 0.5, 0.0, 1.0, 0.05)}
    return Panel(hacking_answer, controls)


def hacking_answer(beta: float, flaw: float) -> Answer:
    """Where the optimum of this beta stands on the frontier, and what it says."""
    answers, exact, here = all_answers(), frontier(flaw), optimum_at(beta, flaw)
    policy = optimal_log_probs(beta, flaw)
    slope = covariance(policy, answers.gold, answers.proxy(flaw))
    verdict = "pressing harder still helps" if slope > 0 else "pressing harder makes it worse: the reward is hacked"
    text = (
        f"KL {here.kl:.3f} nats, proxy {here.proxy:.3f}, gold {here.gold:.3f}; gold is best at {exact.best_beta:.3g}\n"
        f"covariance of gold and proxy {slope:+.3f}: {verdict}"
    )
    bars = picture_of_answers(policy, f"optimum at beta {beta:.3g}")
    return Answer(side_by_side(picture_of_frontier(flaw, exact, beta), bars), text)


def sandbox_panel(seed: int = 0) -> Panel:
    """PPO towards the optimum that the formula names."""

    def start(show: Show, beta: float, flaw: float, clip_range: float) -> None:
        settings = Settings(kl_coef=beta, flaw=flaw, clip_range=clip_range, num_updates=budget(200, 20))
        exact, points = frontier(flaw), list[Point]()
        is_due = draw_every(settings.num_updates // settings.evaluate_every + 1)

        def draw() -> None:
            last = points[-1]
            way = picture_of_frontier(flaw, exact, beta, [[point.outcome] for point in points])
            text = f"update {last.update}: gap to the optimum {last.gap:.4f}, gold {last.outcome.gold:.3f}"
            show(Answer(side_by_side(way, picture_of_gap(points)), text))

        def on_point(point: Point) -> None:
            points.append(point)
            if is_due(len(points)):
                draw()

        train(settings, seed, on_point)
        draw()

    controls = {
        "beta": log_slider("beta", 0.2, -1.3, 0.5),
        "flaw": slider("flaw", 0.5, 0.0, 1.0, 0.05),
        "clip_range": slider("clip range", 0.2, 0.05, 0.5, 0.05),
    }
    return Panel(None, controls, {"train PPO": start})


def picture_of_gap(points: list[Point]) -> Image.Image:
    """What PPO still lacks, on a logarithmic scale."""

    def draw(axes: Any) -> None:
        axes.plot([point.update for point in points], [point.gap for point in points], linewidth=2, color="#d1495b")
        axes.set_yscale("log")
        finish(axes, title="what is still missing", xlabel="PPO updates", ylabel="objective, optimum - ours")

    return chart(draw, width=4.0, height=3.8)


def run_picture(folder: str = "runs/assistant") -> Answer:
    """Your run of rlhf-lab if there is one, else the recorded one."""
    own = Path(folder)
    name = folder if (own / "ppo" / "metrics.jsonl").is_file() else "a recorded run (seed 0)"
    rows = read_metrics(own if name == folder else RECORDED)
    return Answer(picture_of_run(rows, name), summary_of_run(rows))
