"""The command of lesson 5: settings that work for each environment, the clip objective, SB3's PPO beside ours.

Left out: the algorithm (`classic.ppo`), and what lessons 3 to 5 share (`classic.agent_command` and its neighbours).

    python -m classic.ppo --seeds 10 --stop-at 475
"""

from collections.abc import Sequence
from pathlib import Path

from classic.actor_critic import ActorCritic
from classic.agent_command import (
    Lesson,
    agent_parser,
    judge_saved,
    options_of,
    race,
    require_honoured,
    settings_of,
    write_files,
)
from classic.agent_report import report
from classic.command_line import read_arguments
from classic.ppo import Settings, train
from classic.stopped_runs import told_at_the_end

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
        evaluate_every=15_000,
    ),
}


LESSON = Lesson("ppo", "PPO", ActorCritic, train)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy."""
    parser = agent_parser("Lesson 5: PPO with the functions that align the language model.", Settings, LESSON)
    args = read_arguments(parser, arguments)
    require_honoured(args)
    if args.load:
        judge_saved(LESSON, args)
        return
    settings = settings_of(args, SETTINGS.get(args.env, Settings()))
    runs = race(LESSON, args, settings, f"PPO on {args.env}")
    print(report(runs))

    def draw(folder: Path) -> None:
        from classic.agent_pictures import write_agent_pictures
        from classic.clip_picture import draw_clip_objective

        draw_clip_objective(folder / "clip_objective.png", settings.clip_range)
        write_agent_pictures(folder, runs, options_of(args))

    with told_at_the_end(LESSON.name, args, len(runs.seeds), diverged=runs.diverged):
        write_files(LESSON, args, runs, draw)
