"""The command of lesson 1: the table of agents, or the keyboard; JSON, a picture and a replay.

Left out: the loop itself (`classic.what_is_rl`).

    python -m classic.what_is_rl --env Taxi-v4
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from classic.command_line import lesson_parser, positive_whole
from classic.dynamic_programming import greedy_policy, value_iteration
from classic.environment_options import environment_options
from classic.environments import make_environment
from classic.errors import LessonError
from classic.keyboard import read_keys
from classic.records import table_text, write_json
from classic.tabular_model import TabularModel, tabular_model
from classic.what_is_rl import (
    SUPERVISED_AND_REINFORCEMENT,
    agents_of,
    drive,
    keys_of,
    returns_of_playing,
    sampling_interval,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Let the agents play, or you."""
    parser = lesson_parser("Lesson 1: what reinforcement learning is, with you at the wheel.", env="FrozenLake-v1")
    parser.add_argument("--episodes", type=positive_whole, default=300, help="played by each agent (default 300)")
    parser.add_argument("--play", action="store_true", help="you drive: arrow keys or WASD, q to stop")
    args = parser.parse_args(arguments)
    if args.steps or args.seeds > 1:
        raise LessonError("lesson 1 counts episodes and plays with one seed: type --episodes 300 --seed 0")
    options = environment_options(args.env_option)
    model = tabular_model(args.env, max_episode_steps=args.max_episode_steps, **options)
    env = make_environment(
        args.env, max_episode_steps=args.max_episode_steps, render_mode="ansi" if args.play else None, **options
    )
    if args.play:
        play_yourself(env, model, args.seed)
        return
    rows = rows_of_agents(env, model, args.episodes, args.seed, quiet=args.quiet)
    print(table_text(["", "supervised learning", "reinforcement learning"], SUPERVISED_AND_REINFORCEMENT))
    print(f"\n{model.env_id}: mean return of an episode, exact and in {args.episodes} episodes of playing")
    columns = ["agent", "exact", "played", "from", "to"]
    print(table_text(columns, rows))
    if args.json:
        agents = [dict(zip(columns, row, strict=True)) for row in rows]
        write_json(args.json, {"lesson": "what_is_rl", "env": args.env, "seed": args.seed, "agents": agents})
    if args.out:
        write_pictures(args.out, model, args.seed)


def rows_of_agents(env: Any, model: TabularModel, num_episodes: int, seed: int, *, quiet: bool) -> list[list[Any]]:
    """Name, exact mean return, mean of playing, and the interval of 95 % around it."""
    agents = agents_of(model, env)
    # Without a time limit, a random walk over the cliff takes thousands of steps; its exact value is enough.
    skipped = {"random"} if model.max_episode_steps is None else set()
    rows: list[list[Any]] = []
    for name, (agent, exact) in tqdm(agents.items(), desc="playing", disable=quiet):
        if name in skipped:
            rows.append([name, exact, "not played", "", ""])
            continue
        returns = returns_of_playing(env, agent, num_episodes, seed)
        rows.append([name, exact, float(returns.mean()), *sampling_interval(returns)])
    return rows


def play_yourself(env: Any, model: TabularModel, seed: int) -> None:
    """The board as text, one key at a time."""
    actions = keys_of(model.env_id)
    extra = ", p picks up, o drops off" if "p" in actions else ""
    print(f"{model.env_id}: arrow keys or WASD{extra}, q stops")
    for text in drive(env, read_keys(), actions, seed):
        print(text, flush=True)


def write_pictures(folder: Path, model: TabularModel, seed: int) -> None:
    """The best table as a picture (grid worlds), and one of its episodes as GIF and HTML."""
    from classic.pictures import picture_of_table_episode, picture_of_values
    from classic.replays import write_replay

    folder.mkdir(parents=True, exist_ok=True)
    best = value_iteration(model, 0.99)
    if not model.env_id.startswith("Taxi"):
        picture_of_values(model, best, "value (green) and best action").save(folder / "values.png")
    frames = picture_of_table_episode(model, greedy_policy(best), np.random.default_rng(seed))
    for name in ("replay.gif", "replay.html"):
        write_replay(folder / name, frames, frames_per_second=4)
    print(f"wrote pictures to {folder}")
