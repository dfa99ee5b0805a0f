"""The command of lesson 5: settings that work for each environment, seeds, the table, save and reload, SB3 beside it.

Left out: the algorithm (`classic.ppo`).

    python -m classic.ppo --seeds 10 --stop-at 475
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from classic.actor_critic import ActorCritic, load_policy, save_policy
from classic.against_sb3 import train_sb3
from classic.command_line import lesson_parser, positive_whole
from classic.environments import environment_options, specification
from classic.errors import LessonError
from classic.ppo import Point, Result, Settings, evaluation_seed, train
from classic.records import table_text, write_json
from classic.seeds import spread
from classic.vector_rollouts import VectorStreams, act_by_sign, make_vector, returns_of_first_episodes

SETTINGS = {
    "CartPole-v1": Settings(),
    "Pendulum-v1": Settings(
        num_steps=150_000,
        num_envs=8,
        rollout_length=256,
        minibatch_size=256,
        gamma=0.9,
        learning_rate=1e-3,
        reward_scale=0.1,
        num_evaluation_episodes=30,
        evaluate_every=8,
    ),
}
BY_HAND = (0.05, 0.1, 0.9, 0.3)  # weights of position, speed, angle and angular speed on CartPole
# Kind of an option by the kind of the field; `value_clip_range` may be None and is a number all the same.
KINDS: dict[Any, Callable[[str], Any]] = {int: positive_whole, float: float}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy."""
    args = parser().parse_args(arguments)
    # Matrices of 64 x 64 are too small to share: a second thread only waits for the first.
    torch.set_num_threads(1)
    options = environment_options(args.env_option)
    if args.max_episode_steps:
        options["max_episode_steps"] = args.max_episode_steps
    if args.load:
        policy = load_policy(args.load, env_id=args.env)
        report_saved(policy, args, options)
        return
    settings = settings_of(args)
    threshold = specification(args.env).reward_threshold
    if args.against_sb3 and (threshold is None or options):
        raise LessonError(
            f"--against-sb3 times the way to the threshold of the plain environment; {args.env} has the threshold "
            f"{threshold} and was given the options {options}: type --env CartPole-v1 without options"
        )
    seeds = list(range(args.seed, args.seed + args.seeds))
    ours, theirs = [], []
    for seed in seeds:  # alternating, so that a busy minute hits both
        ours.append(train_with_progress(args, settings, seed, options))
        if args.against_sb3:
            theirs.append(train_theirs(args, settings, seed))
    print(report(args.env, settings, seeds, ours, theirs, threshold, args.against_sb3))
    if args.json:
        write_json(args.json, record(args.env, settings, seeds, ours, theirs, threshold))
    if args.save:
        save_policy(args.save, ours[0].policy, env_id=args.env, lesson="ppo")
        print(f"saved seed {seeds[0]} at its best: python -m classic.ppo --env {args.env} --load {args.save}")
    if args.out:
        write_pictures(args.out, args.env, ours, theirs, threshold, options, seeds[0], settings.clip_range)


def parser() -> argparse.ArgumentParser:
    parser = lesson_parser("Lesson 5: PPO with the functions that align the language model.", env="CartPole-v1")
    parser.add_argument("--stop-at", type=float, help="stop a seed at the first evaluation with this mean return")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the first seed's best policy")
    parser.add_argument("--load", type=Path, metavar="FILE", help="test this policy instead of training")
    parser.add_argument("--episodes", type=positive_whole, default=100, help="for --load (default 100)")
    parser.add_argument("--against-sb3", choices=["course", "tuned"], help="train Stable-Baselines3's PPO beside ours")
    for field in fields(Settings):
        flag = f"--{field.name.replace('_', '-')}"
        if field.name == "anneal":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help="learning rate falls to 0")
        elif field.name != "num_steps":  # that is --steps
            parser.add_argument(flag, type=KINDS.get(field.type, float))
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings for the environment, with what was typed in place of them."""
    names = [field.name for field in fields(Settings) if field.name != "num_steps"]
    typed = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.steps:
        typed["num_steps"] = args.steps
    return replace(SETTINGS.get(args.env, Settings()), **typed)


def train_with_progress(args: argparse.Namespace, settings: Settings, seed: int, options: dict[str, Any]) -> Result:
    with tqdm(total=settings.num_steps, unit="step", unit_scale=True, desc=f"seed {seed}", disable=args.quiet) as bar:
        return train(
            args.env, settings, seed, options=options, stop_at=args.stop_at, on_point=lambda point: show(bar, point)
        )


def train_theirs(args: argparse.Namespace, settings: Settings, seed: int) -> list[Point]:
    with tqdm(total=settings.num_steps, unit="step", unit_scale=True, desc=f"SB3 {seed}", disable=args.quiet) as bar:
        return train_sb3(
            args.env,
            settings,
            seed,
            which=args.against_sb3,
            stop_at=args.stop_at,
            on_point=lambda point: show(bar, point),
        )


def show(bar: Any, point: Point) -> None:
    bar.update(point.step - bar.n)
    bar.set_postfix_str(f"mean return {point.mean_return:.1f}")


def first_at(points: list[Point], threshold: float) -> Point | None:
    return next((point for point in points if point.mean_return >= threshold), None)


def row_of(seed: int, who: str, points: list[Point], threshold: float | None) -> list[object]:
    reached = None if threshold is None else first_at(points, threshold)
    best = max(point.mean_return for point in points)
    ways: list[object] = ["never", "never"] if reached is None else [f"{reached.step:,}", f"{reached.seconds:.2f}"]
    last = points[-1]
    return [seed, who, last.mean_return, best, *ways, last.step, last.seconds, last.step / last.seconds]


def report(
    env_id: str,
    settings: Settings,
    seeds: list[int],
    ours: list[Result],
    theirs: list[list[Point]],
    threshold: float | None,
    which: str | None,
) -> str:
    """One line a seed and algorithm, the spread, and how many times faster the threshold was reached."""
    bar = f"{threshold:g}" if threshold is not None else "no threshold"
    columns = ["seed", "who", "last", "best", f"steps to {bar}", f"seconds to {bar}", "steps", "seconds", "steps/s"]
    rows = []
    for index, seed in enumerate(seeds):
        rows.append(row_of(seed, "ours", ours[index].points, threshold))
        if theirs:
            rows.append(row_of(seed, f"SB3 {which}", theirs[index], threshold))
    lines = [
        f"PPO on {env_id}: mean return of {settings.num_evaluation_episodes} episodes without chance in the actions",
        table_text(columns, rows),
    ]
    if len(seeds) > 1:
        lines.append(f"interquartile mean of last: {spread([run.points[-1].mean_return for run in ours])}")
    if env_id.startswith("CartPole"):
        lines.append(baseline_text(settings))
    if theirs and threshold is not None:
        lines.append(ratio_text(ours, theirs, threshold))
    return "\n".join(lines)


def baseline_text(settings: Settings) -> str:
    """The honest baseline: what four numbers by hand score in as many episodes."""
    env = make_vector("CartPole-v1", settings.num_evaluation_episodes)
    returns = returns_of_first_episodes(env, act_by_sign(BY_HAND), evaluation_seed(0))
    env.close()
    return f"for comparison, push right where {BY_HAND} times the observation is above 0: {returns.mean():.6g}"


def ratio_text(ours: list[Result], theirs: list[list[Point]], threshold: float) -> str:
    """Seconds to the threshold, SB3 over ours; where SB3 never got there, its whole time is a lower bound."""
    ratios, bound = [], ""
    for run, points in zip(ours, theirs, strict=True):
        mine, other = run.first_at(threshold), first_at(points, threshold)
        if mine is None:
            return f"ours did not reach {threshold:g} with every seed: no ratio"
        bound = bound if other else "at least "
        ratios.append((other or points[-1]).seconds / mine.seconds)
    speed = [
        (run.points[-1].step / run.points[-1].seconds) / (points[-1].step / points[-1].seconds)
        for run, points in zip(ours, theirs, strict=True)
    ]
    return (
        f"seconds to {threshold:g}, SB3 / ours: {bound}{np.median(ratios):.1f} (median over seeds); "
        f"steps per second, ours / SB3: {np.median(speed):.1f}"
    )


def record(
    env_id: str,
    settings: Settings,
    seeds: list[int],
    ours: list[Result],
    theirs: list[list[Point]],
    threshold: float | None,
) -> dict[str, Any]:
    """The JSON: settings, every seed with its curve, the spread."""
    runs = []
    for index, (seed, run) in enumerate(zip(seeds, ours, strict=True)):
        reached = None if threshold is None else run.first_at(threshold)
        runs.append(
            {
                "seed": seed,
                "last_return": run.points[-1].mean_return,
                "best_return": run.best.mean_return,
                "threshold": threshold,
                "steps_to_threshold": reached and reached.step,
                "seconds_to_threshold": reached and reached.seconds,
                "num_steps": run.num_steps,
                "seconds": run.seconds,
                "curve": [asdict(point) for point in run.points],
                "sb3_curve": [asdict(point) for point in theirs[index]] if theirs else None,
            }
        )
    last = spread([run.points[-1].mean_return for run in ours])._asdict()
    return {"lesson": "ppo", "env": env_id, "settings": asdict(settings), "seeds": runs, "last_return": last}


def report_saved(policy: ActorCritic, args: argparse.Namespace, options: dict[str, Any]) -> None:
    """Mean and deviation of episodes with the likeliest actions."""
    env = make_vector(args.env, args.episodes, **options)
    returns = returns_of_first_episodes(env, policy.best, evaluation_seed(args.seed))
    env.close()
    row = [args.episodes, float(returns.mean()), float(returns.std()), float(returns.min()), float(returns.max())]
    print(
        f"{args.load} on {args.env}\n"
        + table_text(["episodes", "mean return", "deviation", "lowest", "highest"], [row])
    )
    if args.json:
        write_json(args.json, {"lesson": "ppo", "env": args.env, "seed": args.seed, "returns": returns.tolist()})


def write_pictures(
    folder: Path,
    env_id: str,
    ours: list[Result],
    theirs: list[list[Point]],
    threshold: float | None,
    options: dict[str, Any],
    seed: int,
    clip_range: float,
) -> None:
    """The learning curve, the clipped objective, and a replay of the best policy where we have a drawing."""
    from classic.clip_picture import draw_clip_objective
    from classic.curves import draw_curves
    from classic.pictures import picture_of_cart_pole, picture_of_pendulum
    from classic.replays import write_replay

    curves = {"ours": curve_of([run.points for run in ours])}
    if theirs:
        curves["Stable-Baselines3"] = curve_of(theirs)
    limits = {} if threshold is None else {f"threshold {threshold:g}": threshold}
    title = f"PPO on {env_id}"
    draw_curves(folder / "curve.png", curves, title=title, ylabel="mean return of an episode", limits=limits)
    draw_clip_objective(folder / "clip_objective.png", clip_range)
    drawings = {"CartPole": picture_of_cart_pole, "Pendulum": picture_of_pendulum}
    picture = drawings.get(env_id.partition("-")[0])
    if picture is None:
        return
    env = make_vector(env_id, 1, **options)
    streams = VectorStreams(env, evaluation_seed(seed))
    frames = [picture(streams.observations[0], "step 0")]
    while not streams.episode_returns:
        streams.collect(ours[0].policy.best, 1)
        frames.append(picture(streams.observations[0], f"step {streams.num_steps}"))
    env.close()
    for name in ("replay.gif", "replay.html"):
        write_replay(folder / name, frames[::2], frames_per_second=25)
    print(f"wrote pictures to {folder}")


def curve_of(runs: list[list[Point]]) -> Any:
    """Runs may have stopped early: a curve stays at its last height."""
    from classic.curves import Curve

    longest = max(runs, key=len)
    heights = [[point.mean_return for point in points] for points in runs]
    return Curve([point.step for point in longest], [row + [row[-1]] * (len(longest) - len(row)) for row in heights])
