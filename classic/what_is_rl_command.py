"""The command of lesson 1: the table of agents over seeds, or the keyboard; JSON, curves, a picture and a replay.

Left out: the loop itself (`classic.what_is_rl`).

    python -m classic.what_is_rl --env Taxi-v4 --seeds 5
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from classic.command_line import lesson_parser, positive_whole, read_arguments, refuse_ignored, write_each
from classic.dynamic_programming import greedy_policy, value_iteration
from classic.environment_options import environment_options
from classic.environments import make_environment
from classic.keyboard import read_keys
from classic.records import table_text, write_json, write_picture
from classic.seeds import spread
from classic.stopped_runs import each_seed, seeds_of, told_at_the_end
from classic.tabular_model import TabularModel, tabular_model
from classic.what_is_rl import (
    SUPERVISED_AND_REINFORCEMENT,
    Agent,
    Played,
    agents_of,
    drive,
    interval_of,
    keys_of,
    play_on,
)

COLUMNS = ["agent", "exact", "played", "from", "to"]
NUM_EPISODES = 300


def main(arguments: Sequence[str] | None = None) -> None:
    """Let the agents play, or you."""
    args = read_arguments(parser(), arguments)
    require_honoured(args)
    options = environment_options(args.env_option)
    model = tabular_model(args.env, max_episode_steps=args.max_episode_steps, **options)
    env = make_environment(
        args.env, max_episode_steps=args.max_episode_steps, render_mode="ansi" if args.play else None, **options
    )
    if args.play:
        play_yourself(env, model, args.seed)
        return
    agents, seeds = agents_of(model, env), seeds_of(args)
    budget = {"num_steps": args.steps} if args.steps else {"num_episodes": args.episodes or NUM_EPISODES}
    played = play_with_progress(env, model, agents, seeds, budget, quiet=args.quiet)
    rows = rows_of(agents, played)
    print(table_text(["", "supervised learning", "reinforcement learning"], SUPERVISED_AND_REINFORCEMENT))
    print(f"\n{model.env_id}: {legend_of(budget, len(played))}")
    print(table_text(COLUMNS, rows))
    writers: dict[str, Callable[[], object]] = {}
    if args.json:
        found = {"lesson": "what_is_rl", "env": args.env, "seed": args.seed, **budget}
        writers[str(args.json)] = lambda: write_json(args.json, {**found, **record(rows, seeds, played)})
    if args.out:
        curves = f"the curve to {args.out}"
        writers[curves] = lambda: draw_running_means(args.out, model, agents, played, by_steps=bool(args.steps))
        writers[f"pictures to {args.out}"] = lambda: write_pictures(args.out, model, args.seed)
    with told_at_the_end("what_is_rl", args, len(played)):
        write_each(writers)


def parser() -> argparse.ArgumentParser:
    parser = lesson_parser("Lesson 1: what reinforcement learning is, with you at the wheel.", env="FrozenLake-v1")
    parser.add_argument(
        "--episodes", type=positive_whole, help=f"played by each agent with each seed (default {NUM_EPISODES})"
    )
    parser.add_argument("--play", action="store_true", help="you drive: arrow keys or WASD, q to stop")
    return parser


def require_honoured(args: argparse.Namespace) -> None:
    """Raise LessonError where something was typed that the rest leaves without effect."""
    if args.play:
        ignored = [
            name for name in args.typed if name not in {"env", "env_option", "max_episode_steps", "seed", "play"}
        ]
        refuse_ignored(args, "--play", ignored, "hands the wheel to you")
    if args.steps:
        why = "lets each agent begin episodes until so many steps are spent, however many that are"
        refuse_ignored(args, f"--steps {args.steps}", ["episodes"], why)


def play_with_progress(
    env: Any,
    model: TabularModel,
    agents: dict[str, tuple[Agent, float]],
    seeds: Sequence[int],
    budget: dict[str, int],
    *,
    quiet: bool,
) -> list[dict[str, Played]]:
    """For each seed, name of the agent to its episodes; after Ctrl-C the seeds that were finished."""
    # Without a time limit, a random walk over the cliff takes thousands of steps; its exact value is enough.
    playing = [name for name in agents if name != "random" or model.max_episode_steps is not None]
    with tqdm(total=len(seeds) * len(playing), desc="playing", disable=quiet) as bar:

        def one(name: str, seed: int) -> Played:
            found = play_on(env, agents[name][0], seed, **budget)
            bar.update()
            return found

        return each_seed(seeds, lambda seed: {name: one(name, seed) for name in playing})


def rows_of_agents(env: Any, model: TabularModel, num_episodes: int, seed: int, *, quiet: bool) -> list[list[Any]]:
    """The table of one seed: see `rows_of`."""
    agents = agents_of(model, env)
    return rows_of(agents, play_with_progress(env, model, agents, [seed], {"num_episodes": num_episodes}, quiet=quiet))


def rows_of(agents: dict[str, tuple[Agent, float]], played: Sequence[dict[str, Played]]) -> list[list[Any]]:
    """Name, exact mean return, mean of playing, and the interval of 95 % around it.

    With one seed that is the interval of its episodes (`interval_of`); with several, `played` is the interquartile mean
    of their means, with the interval over seeds (`classic.seeds.spread`).
    """
    rows: list[list[Any]] = []
    for name, (_, exact) in agents.items():
        if name not in played[0]:
            rows.append([name, exact, "not played", "", ""])
            continue
        returns = [one[name].returns for one in played]
        middle = spread([float(one.mean()) for one in returns])
        low, high = interval_of(returns[0]) if len(returns) == 1 else (middle.low, middle.high)
        rows.append([name, exact, middle.interquartile_mean, low, high])
    return rows


def legend_of(budget: dict[str, int], num_seeds: int) -> str:
    """What the columns of the table are."""
    unit, number = next((name.removeprefix("num_"), number) for name, number in budget.items())
    amount = f"{number:,} {unit}" + (" or a little more, the last episode being played to its end" * (unit == "steps"))
    told = f"mean return of an episode, exact and in {amount}"
    if num_seeds > 1:
        return f"{told} with each of {num_seeds} seeds: their interquartile mean, and its interval of 95 % over seeds"
    return f"{told}, with its interval of 95 % (Wilson's where an episode pays 0 or 1; nan: one episode tells none)"


def record(rows: list[list[Any]], seeds: Sequence[int], played: Sequence[dict[str, Played]]) -> dict[str, Any]:
    """The JSON: the table, and the episodes of every seed."""
    return {
        "agents": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        "seeds": [
            {
                "seed": seed,
                "agents": {
                    name: {
                        "mean_return": float(one.returns.mean()),
                        "returns": one.returns.tolist(),
                        "lengths": one.lengths.tolist(),
                    }
                    for name, one in found.items()
                },
            }
            for seed, found in zip(seeds, played, strict=False)  # after Ctrl-C there are fewer
        ],
    }


def play_yourself(env: Any, model: TabularModel, seed: int) -> None:
    """The board as text, one key at a time."""
    actions = keys_of(model.env_id)
    extra = ", p picks up, o drops off" if "p" in actions else ""
    print(f"{model.env_id}: arrow keys or WASD{extra}, q stops")
    for text in drive(env, read_keys(), actions, seed):
        print(text, flush=True)


def draw_running_means(
    folder: Path,
    model: TabularModel,
    agents: dict[str, tuple[Agent, float]],
    played: Sequence[dict[str, Played]],
    *,
    by_steps: bool,
) -> None:
    """The mean return of the episodes so far, which wanders to the exact value: how long luck lasts."""
    from classic.curves import Curve, draw_curves

    curves = {}
    for name in played[0]:
        runs = [one[name] for one in played]
        ends = [one.lengths.cumsum() if by_steps else np.arange(len(one.lengths)) + 1 for one in runs]
        # From where every seed has an episode behind it; a seed whose budget is spent stays at its last mean.
        places = np.unique(np.linspace(max(end[0] for end in ends), max(end[-1] for end in ends), 300).astype(int))
        heights = [
            one.running_means()[np.searchsorted(end, places, side="right") - 1].tolist()
            for one, end in zip(runs, ends, strict=True)
        ]
        curves[name] = Curve(places.tolist(), heights)
    draw_curves(
        folder / "curve.png",
        curves,
        title=f"{model.env_id}: playing wanders to the exact mean return",
        ylabel="mean return of the episodes so far",
        xlabel="environment steps" if by_steps else "episodes",
        limits={f"exact, {name}: {agents[name][1]:.3f}": agents[name][1] for name in curves},
    )


def write_pictures(folder: Path, model: TabularModel, seed: int) -> None:
    """The best table as a picture (grid worlds), and one of its episodes as GIF and HTML."""
    from classic.pictures import picture_of_table_episode, picture_of_values
    from classic.replays import write_replay

    best = value_iteration(model, 0.99)
    if not model.env_id.startswith("Taxi"):
        write_picture(folder / "values.png", picture_of_values(model, best, "value (green) and best action").save)
    frames = picture_of_table_episode(model, greedy_policy(best), np.random.default_rng(seed))
    for name in ("replay.gif", "replay.html"):
        write_replay(folder / name, frames, frames_per_second=4)
    print(f"wrote pictures to {folder}")
