"""The panels of notebook 1: you drive, luck in tests, and values with a clock.

Left out: the lesson itself (`classic.what_is_rl`).

    jupyter lab classic/notebooks/01_what_is_rl.ipynb
"""

from typing import Any

import numpy as np
from PIL import Image

from classic.charts import chart, draw_lines, finish, side_by_side
from classic.curves import Curve, with_heights
from classic.dynamic_programming import action_values, greedy_policy, value_iteration
from classic.environments import make_environment
from classic.luck import chance_below, success_counts
from classic.notebook_controls import Answer, Panel, choice, slider
from classic.pictures import picture_of_state, picture_of_values
from classic.playing_picture import BEST
from classic.tabular_model import Floats, TabularModel, tabular_model
from classic.what_is_rl import keys_of

NEW_EPISODE = "new episode"
# Exact success rates on the slippery 4x4 lake (lesson 1 computes them).
AGENTS = {"best with a clock": 0.744190, "best table": 0.740165, "random": 0.013940}


class Drive:
    """You at the wheel: one environment, one button for each action."""

    def __init__(self, env_id: str, seed: int) -> None:
        self._model = tabular_model(env_id)
        self._env = make_environment(env_id)
        self._actions = keys_of(env_id)
        self._state = int(self._env.reset(seed=seed)[0])
        self._total, self._steps, self._ended = 0.0, 0, False
        self.returns: list[float] = []

    def actions(self) -> list[str]:
        return list(self._actions)

    def answer(self) -> Answer:
        """The board as it stands."""
        played = f"; mean of {len(self.returns)} episodes {np.mean(self.returns):.3f}" if self.returns else ""
        ending = ", the episode is over" if self._ended else ""
        text = f"step {self._steps}, return {self._total:g}{ending}{played}"
        return Answer(picture_of_state(self._model, self._state, ""), text)

    def press(self, label: str) -> Answer:
        """Do what the button says; a press after the end begins the next episode."""
        if label == NEW_EPISODE or self._ended:
            self._state = int(self._env.reset()[0])
            self._total, self._steps, self._ended = 0.0, 0, False
            return self.answer()
        state, reward, terminated, truncated, _ = self._env.step(self._actions[label])
        self._state, self._total, self._steps = int(state), self._total + float(reward), self._steps + 1
        self._ended = bool(terminated or truncated)
        if self._ended:
            self.returns.append(self._total)
        return self.answer()


def drive_panel(env_id: str = "FrozenLake-v1", seed: int = 0) -> Panel:
    """A button for each action; the ice decides the rest."""
    drive = Drive(env_id, seed)

    def button(label: str) -> Any:
        return lambda show: show(drive.press(label))

    labels = [*drive.actions(), NEW_EPISODE]
    return Panel(drive.answer, {}, {label: button(label) for label in labels}, pressed=labels[:3])


def luck_panel() -> Panel:
    """How many episodes does a test need before it says more about the agent than about luck?"""
    controls = {
        "agent": choice("agent", list(AGENTS)),
        "num_episodes": slider("episodes", 100, 10, 1000, 10),
        "threshold": slider("threshold", 0.70, 0.5, 0.9, 0.01),
    }
    return Panel(luck, controls)


def luck(agent: str, num_episodes: int, threshold: float) -> Answer:
    """The exact distribution of a test's result, with the share that falls below the threshold."""
    truth = AGENTS[agent]
    rates, chances = np.arange(num_episodes + 1) / num_episodes, success_counts(truth, num_episodes)

    def draw(axes: Any) -> None:
        # Two shapes with steps: a thousand bars would take a second each time a slider moves.
        num_below = int((rates < threshold - 1e-12).sum())
        edges = (np.arange(num_episodes + 2) - 0.5) / num_episodes
        failing, passing = chances[:num_below], chances[num_below:]
        axes.stairs(failing, edges[: num_below + 1], fill=True, color="#d1495b", label="test failed")
        axes.stairs(passing, edges[num_below:], fill=True, color="#4b9b6e", label="test passed")
        axes.axvline(truth, color="black", linewidth=1, label="the truth")
        low, high = max(0.0, truth - 0.25), min(1.0, truth + 0.25)
        for style, name in zip(("--", ":"), BEST, strict=True):
            if low <= AGENTS[name] <= high:
                axes.axvline(AGENTS[name], color="black", linestyle=style, label=f"{name}: {AGENTS[name]:.3f}")
        axes.set_xlim(low, high)
        finish(axes, xlabel=f"success rate in {num_episodes} episodes", ylabel="probability")

    failed = chance_below(threshold, truth, num_episodes)
    return Answer(chart(draw), f"{agent}, truly {truth:.6f}: a test of {num_episodes} episodes fails {failed:.2%}")


def clock_panel() -> Panel:
    """Value and best action of every state, with k steps left."""
    model = tabular_model("FrozenLake-v1")
    q_values = values_by_steps_left(model, model.max_episode_steps or 100)
    limits = with_heights({name: AGENTS[name] for name in BEST})

    def answer(steps_left: int) -> Answer:
        board = picture_of_values(model, q_values[steps_left - 1], f"{steps_left} steps left")
        chance = [float(model.start @ q.max(-1)) for q in q_values]

        def draw(axes: Any) -> None:
            axes.plot(steps_left, chance[steps_left - 1], "o", markersize=9, color="C0")
            curve = Curve(range(1, len(chance) + 1), [chance])
            labels = {"xlabel": "steps left", "ylabel": "chance to reach the goal"}
            draw_lines(axes, {"with a clock": curve}, limits=limits, **labels)

        picture: Image.Image = side_by_side(board, chart(draw, width=4.6, height=2.3))
        return Answer(picture, f"from the start with {steps_left} steps left: {chance[steps_left - 1]:.6f}")

    return Panel(answer, {"steps_left": slider("steps left", 100, 1, 100, 1)})


def values_by_steps_left(model: TabularModel, num_steps: int) -> list[Floats]:
    """Q with 1, 2, ... steps left, each (S, A): the best that can still be got, undiscounted."""
    values, found = np.zeros(model.num_states), []
    for _ in range(num_steps):
        found.append(action_values(model, values, 1.0))
        values = found[-1].max(-1)
    return found


def best_table(model: TabularModel) -> Floats:
    """(S, A) the best policy that a table can hold, at gamma 0.99."""
    return greedy_policy(value_iteration(model, 0.99))
