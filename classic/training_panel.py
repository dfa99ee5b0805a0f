"""The panel of a training: lessons 3 to 5 start theirs with a button and watch it live, Stable-Baselines3's beside it.

Every run stays on the chart under its own name, so that settings can be compared by pressing again.

Left out: the trainings (`classic.dqn`, `classic.policy_gradient`, `classic.ppo`).

    jupyter lab classic/notebooks/05_ppo.ipynb
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from classic.against_sb3 import PRESETS, train_sb3
from classic.agent_pictures import DRAWINGS, draw_figure
from classic.agent_report import BY_HAND
from classic.charts import chart, draw_lines, stacked
from classic.curves import Curve
from classic.environments import specification
from classic.notebook_controls import Answer, Panel, Show, budget, mode
from classic.training_runs import Point, Policy, Result, evaluation_seed, one_thread
from classic.vector_rollouts import Act, VectorStreams, act_by_sign, make_vector, returns_of_first_episodes

POLE = "CartPole-v1"
OURS, THEIRS = "train ours", "train Stable-Baselines3"
THEIR_NAME = "Stable-Baselines3, tuned"
NUM_EPISODES = 30  # of one evaluation; a notebook is in a hurry
NUM_PICTURES = 12  # of one training
Train = Callable[[Mapping[str, Any], Callable[[Point], None]], Result[Any]]
DrawMore = Callable[[Any, Sequence[Point]], None]


class TrainingPanel(Panel):
    """Two buttons and one chart.

    Args:
        train: takes the controls' values and what to call at each evaluation; gives the result.
        name_of: the controls' values to the name of the run on the chart.
        controls: see `Panel`.
        algorithm: Stable-Baselines3's class.
        their_steps: its budget, short of what its tuned settings are meant for.
        evaluate_every: its steps between evaluations: ours.
        num_steps: ours, for how often to draw.
        seed: of both.
        env_id: of both.
        draw_more: other charts from the points of our latest run: one beside the first, or several below it.
    """

    def __init__(
        self,
        train: Train,
        name_of: Callable[[Mapping[str, Any]], str],
        controls: Mapping[str, Any],
        *,
        algorithm: str,
        their_steps: int,
        evaluate_every: int,
        num_steps: int,
        seed: int = 0,
        env_id: str = POLE,
        draw_more: Sequence[DrawMore] = (),
    ) -> None:
        self._train, self._name_of, self._draw_more = train, name_of, draw_more
        self._algorithm, self._their_steps, self._num_steps = algorithm, their_steps, num_steps
        self._evaluate_every = evaluate_every
        self._seed, self._env_id = seed, env_id
        self._curves: dict[str, Curve] = {}
        self._limits = limits_of(env_id)
        self._shown: list[Point] = []
        self.result: Result[Any] | None = None
        self._start = Answer(self._picture(), f"press “{OURS}”; every run stays on the chart")
        buttons = {OURS: self._ours, **({THEIRS: self._theirs} if env_id == POLE else {})}
        super().__init__(None, controls, buttons)

    def refresh(self) -> None:
        """The chart as it stands: controls count when a button is pressed."""
        if not self._curves:
            self.show(self._start)

    def _ours(self, show: Show, **values: Any) -> None:
        one_thread()
        name = self._name_of(values)
        points: list[Point] = []

        def on_point(point: Point) -> None:
            points.append(point)
            self._shown = points
            self._draw(show, name, points, self._num_steps)

        self.result = self._train(values, on_point)
        self._draw(show, name, points, 0)

    def _theirs(self, show: Show, **values: Any) -> None:
        one_thread()
        points: list[Point] = []
        steps = budget(self._their_steps, 1)

        def on_point(point: Point) -> None:
            points.append(point)
            self._draw(show, THEIR_NAME, points, steps)

        train_sb3(
            self._env_id,
            self._seed,
            algorithm=self._algorithm,
            preset=PRESETS[self._algorithm]["tuned"],
            num_steps=steps,
            evaluate_every=self._evaluate_every,
            num_evaluation_episodes=NUM_EPISODES,
            stop_at=self._limits.get("the most there is"),
            on_point=on_point,
        )
        self._draw(show, THEIR_NAME, points, 0)

    def _draw(self, show: Show, name: str, points: Sequence[Point], num_steps: int) -> None:
        """Draw where a twelfth of the training has gone by, so that drawing takes less time than training."""
        self._curves[name] = Curve([point.step for point in points], [[point.mean_return for point in points]])
        last, every = points[-1], num_steps // budget(NUM_PICTURES, 2)
        before = points[-2].step if len(points) > 1 else -1
        if every and last.step // every == before // every:
            return
        # A recorded notebook keeps no seconds, so that the same code gives the same file.
        speed = "" if mode() else f", {last.steps_per_second:,.0f} steps a second"
        show(Answer(self._picture(), f"{name}: {last.step:,} steps, mean return {last.mean_return:.1f}{speed}"))

    def _picture(self) -> Image.Image:
        def returns(axes: Any) -> None:
            draw_lines(axes, self._curves, xlabel="environment steps", ylabel="mean return", limits=self._limits)

        def others(*all_axes: Any) -> None:
            for axes, draw in zip(all_axes, self._draw_more, strict=True):
                draw(axes, self._shown)

        def both(first: Any, *rest: Any) -> None:
            returns(first)
            others(*rest)

        num_others = len(self._draw_more)
        if num_others < 2:
            return chart(both, columns=1 + num_others, width=9.6 if num_others else 7.2)
        row = chart(others, columns=num_others, width=9.6, height=2.2)
        return stacked(chart(returns, width=9.6, height=3.2), row)

    def episode(self, every: int = 5) -> list[Image.Image]:
        """Frames of an episode: of the trained policy, or before training of the four numbers by hand."""
        if self.result is None:
            return episode_frames(self._env_id, act_by_sign(BY_HAND), self._seed, "by hand", every)
        policy: Policy = self.result.policy
        return episode_frames(self._env_id, policy.best, self._seed, "trained", every)


def figure_chart(name: str, num_actions: int | None = None) -> DrawMore:
    """One of `classic.agent_pictures.FIGURES` as a chart of a panel."""
    return lambda axes, points: draw_figure(axes, [points], name, num_actions)


def limits_of(env_id: str) -> dict[str, float]:
    """Lines across the chart: for the pole the most there is, the threshold, and what four numbers by hand score."""
    if env_id != POLE:
        return {}
    threshold = specification(env_id).reward_threshold
    return {"the most there is": 500.0, "threshold": threshold, "four numbers by hand": mean_return_by_hand()}


def mean_return_by_hand(num_episodes: int = NUM_EPISODES) -> float:
    """The honest baseline: push right where four numbers times the observation are above 0."""
    env = make_vector(POLE, num_episodes)
    returns = returns_of_first_episodes(env, act_by_sign(BY_HAND), evaluation_seed(0))
    env.close()
    return float(returns.mean())


def episode_frames(env_id: str, act: Act, seed: int, name: str, every: int) -> list[Image.Image]:
    """Every few frames of one episode, and the last."""
    picture = DRAWINGS[env_id.partition("-")[0]]
    env = make_vector(env_id, 1)
    streams = VectorStreams(env, evaluation_seed(seed))
    frames = [picture(streams.observations[0], f"{name}, step 0")]
    while not streams.episode_returns:
        streams.collect(act, 1)
        if streams.num_steps % every == 0 or streams.episode_returns:
            frames.append(picture(streams.observations[0], f"{name}, step {streams.num_steps}"))
    env.close()
    return frames
