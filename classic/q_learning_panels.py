"""The panels of notebook 2: one update with its numbers, settings that answer at once, gamma, the cliff, the taxi.

Left out: the lesson itself (`classic.q_learning`).

    jupyter lab classic/notebooks/02_q_learning.ipynb
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from PIL import Image

from classic.charts import chart, draw_lines, side_by_side
from classic.curves import Curve, with_heights
from classic.dynamic_programming import (
    best_return_with_clock,
    best_table_return,
    expected_return,
    greedy_policy,
    value_iteration,
)
from classic.notebook_controls import Answer, Panel, Show, budget, choice, draw_every, slider, switch
from classic.pictures import picture_of_state, picture_of_table_episode, picture_of_values
from classic.q_learning import Point, Settings, learn
from classic.q_learning_command import SETTINGS, exact_limits
from classic.q_table import Method, QTable, bootstrap_values, epsilon_greedy_actions, td_targets
from classic.schedules import Schedule
from classic.table_streams import TableStreams
from classic.tabular_model import Floats, TabularModel, tabular_model
from classic.what_is_rl import keys_of

LAKE = "FrozenLake-v1"


class SlowLearner:
    """Q-learning one step at a time, so that every number of an update can be read."""

    def __init__(self, env_id: str, seed: int) -> None:
        self._model = tabular_model(env_id)
        self._names = {action: name for name, action in keys_of(env_id).items()}
        self._seed = seed
        self.forget()

    def forget(self) -> None:
        """An empty table, the first state."""
        self._generator = np.random.default_rng(self._seed)
        self._streams = TableStreams(self._model, 1, self._generator)
        self.table = QTable((self._model.num_states, self._model.num_actions))
        self.text, self.num_steps = "the table is empty", 0

    def step(self, alpha: float, gamma: float, epsilon: float) -> None:
        """Act, see, learn; `text` says what happened."""
        state = self._streams.states.copy()
        action = epsilon_greedy_actions(self.table.q[state], epsilon, self._generator)
        moves = self._streams.step(action)
        future = bootstrap_values("q_learning", self.table.q[moves.next_states], action, epsilon)
        target = td_targets(moves.rewards, moves.terminated, future, gamma)
        old = float(self.table.q[state[0], action[0]])
        self.table.move_towards(state, action, target, alpha)
        new = float(self.table.q[state[0], action[0]])
        self.num_steps += 1
        bootstrap = "0 (it ended)" if moves.terminated[0] else f"{gamma:g} × {future[0]:.4f}"
        self.text = (
            f"step {self.num_steps}: in state {state[0]}, {self._names[int(action[0])]}, to state "
            f"{moves.next_states[0]}\n"
            f"Q ← {old:.4f} + {alpha:g} × ({moves.rewards[0]:g} + {bootstrap} − {old:.4f}) = {new:.4f}"
        )

    def answer(self) -> Answer:
        board = picture_of_state(self._model, int(self._streams.states[0]), "the agent")
        values = picture_of_values(self._model, self.table.q, "what it knows")
        return Answer(side_by_side(board, values), self.text)


def update_panel(seed: int = 0) -> Panel:
    """One Bellman update with the numbers filled in; then many."""
    learner = SlowLearner(LAKE, seed)
    controls = {
        "alpha": slider("alpha", 0.1, 0.01, 1.0, 0.01),
        "gamma": slider("gamma", 0.99, 0.5, 1.0, 0.01),
        "epsilon": slider("epsilon", 1.0, 0.0, 1.0, 0.05),
    }

    def steps(count: int) -> Any:
        def start(show: Show, **values: float) -> None:
            for _ in range(count):
                learner.step(**values)
            show(learner.answer())

        return start

    def forget(show: Show, **values: float) -> None:
        learner.forget()
        show(learner.answer())

    many = "2,000 steps"
    buttons = {"one step": steps(1), many: steps(2000), "forget": forget}
    panel = Panel(None, controls, buttons, pressed=[many])
    if panel.answer.picture.width == 1:  # nobody has pressed yet
        panel.show(learner.answer())
    return panel


def settings_panel(num_steps: int = 200_000, seed: int = 0) -> Panel:
    """Step size, discount and exploration: a whole training behind every move of a slider."""
    model = tabular_model(LAKE)
    settings = Settings(num_streams=256, num_steps=budget(num_steps, 25_600), num_evaluations=20)

    def answer(alpha: float, gamma: float, epsilon: float, decay: bool) -> Answer:
        size = Schedule(alpha, 0.0, "linear") if decay else Schedule(alpha)
        now = replace(settings, alpha=size, gamma=gamma, epsilon=Schedule(epsilon))
        result = learn(model, now, seed)
        picture = picture_of_learning(model, result.points, exact_limits(model, now))
        board = picture_of_values(model, result.q, "learned values")
        last = result.points[-1]
        text = (
            f"greedy policy, exactly: {last.greedy_return:.6f}; while exploring: {last.online_return:.4f}; "
            f"largest error of Q: {last.q_error:.3f}"
        )
        return Answer(side_by_side(board, picture), text)

    controls = {
        "alpha": slider("alpha", 0.1, 0.01, 1.0, 0.01),
        "gamma": slider("gamma", 0.99, 0.5, 0.999, 0.001),
        "epsilon": slider("epsilon", 0.5, 0.0, 1.0, 0.05),
        "decay": switch("alpha falls to 0", True),
    }
    return Panel(answer, controls)


def picture_of_learning(
    model: TabularModel, points: Sequence[Point], limits: dict[str, float], width: float = 5.2
) -> Image.Image:
    """Exact return of the greedy policy over training, with the limits as lines."""
    steps = [point.step for point in points]
    curves = {"greedy policy": Curve(steps, [[point.greedy_return for point in points]])}

    def draw(axes: Any) -> None:
        draw_lines(axes, curves, xlabel="environment steps", ylabel="mean return, exact", limits=with_heights(limits))

    return chart(draw, width=width, height=2.6)


def gamma_panel() -> Panel:
    """What the discount costs: the exact return of the best table for every gamma, below what any table can do."""
    boards: dict[str, tuple[TabularModel, Curve, dict[str, float]]] = {}

    def curve_of(env_id: str) -> tuple[TabularModel, Curve, dict[str, float]]:
        if env_id not in boards:
            model = tabular_model(env_id)
            gammas = np.round(np.linspace(0.90, 0.999, 45), 4).tolist()
            limits = {"best with a clock": best_return_with_clock(model), "best table": best_table_return(model)}
            boards[env_id] = (model, Curve(gammas, [[return_at(model, gamma) for gamma in gammas]]), limits)
        return boards[env_id]

    def answer(env_id: str, gamma: float) -> Answer:
        model, curve, limits = curve_of(env_id)
        here = return_at(model, gamma)

        def draw(axes: Any) -> None:
            axes.plot(gamma, here, "o", markersize=9, color="C0")
            labels = {"xlabel": "gamma", "ylabel": "chance to reach the goal"}
            draw_lines(axes, {"best table at this gamma": curve}, limits=with_heights(limits), **labels)

        board = picture_of_values(model, value_iteration(model, gamma), f"gamma {gamma:g}")
        start = float(model.start @ value_iteration(model, gamma).max(-1))
        text = f"chance to reach the goal {here:.6f}; discounted value of the start {start:.6f}: two different numbers"
        return Answer(side_by_side(board, chart(draw, width=4.6, height=2.6)), text)

    controls = {"env_id": choice("lake", [LAKE, "FrozenLake8x8-v1"]), "gamma": slider("gamma", 0.99, 0.9, 0.999, 0.001)}
    return Panel(answer, controls)


def return_at(model: TabularModel, gamma: float) -> float:
    """Exact mean return of the best table at this gamma."""
    return expected_return(model, greedy_policy(value_iteration(model, gamma, tolerance=1e-10)))


def cliff_panel(num_steps: int = 100_000, seed: int = 0) -> Panel:
    """Three methods at the edge of a cliff: which path, and what does it earn while exploring?"""
    model = tabular_model("CliffWalking-v1")

    def answer(method: Method, epsilon: float) -> Answer:
        steps = budget(num_steps, 20_000)
        settings = Settings(
            method=method,
            epsilon=Schedule(epsilon),
            alpha=Schedule(0.2, 0.0, "linear"),
            num_streams=16,
            num_steps=steps,
            num_evaluations=1,
        )
        result = learn(model, settings, seed)
        last = result.points[-1]
        text = f"greedy: {last.greedy_return:.2f}; while exploring with epsilon {epsilon:g}: {last.online_return:.2f}"
        return Answer(picture_of_values(model, result.q, f"{method}, {steps:,} steps"), text)

    methods = choice("method", get_args(Method))
    return Panel(answer, {"method": methods, "epsilon": slider("epsilon", 0.1, 0.0, 0.5, 0.01)})


class TaxiPanel(Panel):
    """Taxi-v4 behind a button, and the table that came out of it."""

    def __init__(self, num_steps: int, seed: int) -> None:
        self._model, self._seed = tabular_model("Taxi-v4"), seed
        self._settings = replace(SETTINGS["Taxi-v4"], num_steps=budget(num_steps, 25_600), num_evaluations=20)
        self.q: Floats | None = None
        super().__init__(None, {}, {"learn to drive a taxi": self._train})

    def _train(self, show: Show) -> None:
        points: list[Point] = []
        is_due = draw_every(self._settings.num_evaluations)
        limits = exact_limits(self._model, self._settings)

        def on_point(point: Point) -> None:
            points.append(point)
            if is_due(len(points)):
                text = f"{point.step:,} steps: exact mean return {point.greedy_return:.4f}"
                show(Answer(picture_of_learning(self._model, points, limits, width=7), text))

        self.q = learn(self._model, self._settings, self._seed, on_point).q

    def episode(self) -> list[Image.Image]:
        """Frames of an episode: of the learned table, or of an agent that knows nothing yet (its first 40 steps)."""
        generator = np.random.default_rng(self._seed)
        if self.q is None:
            policy = np.full((self._model.num_states, self._model.num_actions), 1 / self._model.num_actions)
            return picture_of_table_episode(self._model, policy, generator)[:40]
        return picture_of_table_episode(self._model, greedy_policy(self.q), generator)


def taxi_panel(num_steps: int = 3_000_000, seed: int = 0) -> TaxiPanel:
    """A training of some seconds, drawn while it runs."""
    return TaxiPanel(num_steps, seed)
