"""The command of lesson 5: settings that work for each environment, the clip objective, SB3's PPO beside ours.

Left out: the algorithm (`classic.ppo`), and what lessons 3 to 5 share (`classic.agent_command` and its neighbours).

    python -m classic.ppo --seeds 10 --stop-at 475
"""

from collections.abc import Sequence

from classic.actor_critic import ActorCritic
from classic.agent_command import agent_parser, options_of, race, report_saved, seeds_of, settings_of
from classic.agent_report import baseline_text, record, report
from classic.environments import specification
from classic.ppo import Settings, train
from classic.records import write_json
from classic.saved_policies import load_policy, save_policy
from classic.training_runs import one_thread

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy."""
    parser = agent_parser("Lesson 5: PPO with the functions that align the language model.", Settings, algorithm="PPO")
    args = parser.parse_args(arguments)
    one_thread()
    options = options_of(args)
    if args.load:
        policy = load_policy(args.load, ActorCritic, env_id=args.env, lesson="ppo")
        report_saved(policy, args, options, lesson="ppo")
        return
    threshold = specification(args.env).reward_threshold
    settings = settings_of(args, SETTINGS.get(args.env, Settings()))
    num_episodes = settings.num_evaluation_episodes
    ours, theirs = race(
        args,
        lambda seed, show: train(args.env, settings, seed, options=options, stop_at=args.stop_at, on_point=show),
        num_steps=settings.num_steps,
        num_evaluation_episodes=num_episodes,
        algorithm="PPO",
        options=options,
    )
    seeds, title = seeds_of(args), f"PPO on {args.env}"
    print(report(title, seeds, ours, theirs, threshold=threshold, num_evaluation_episodes=num_episodes))
    if args.env.startswith("CartPole"):
        print(baseline_text(num_episodes))
    if args.json:
        write_json(args.json, record("ppo", args.env, settings, seeds, ours, theirs, threshold))
    if args.save:
        save_policy(args.save, ours[0].policy, env_id=args.env, lesson="ppo")
        print(f"saved: python -m classic.ppo --env {args.env} --load {args.save}")
    if args.out:
        from classic.agent_pictures import write_agent_replay, write_learning_curve
        from classic.clip_picture import draw_clip_objective

        runs = {"ours": [run.points for run in ours], **{f"SB3 {which}": points for which, points in theirs.items()}}
        write_learning_curve(args.out / "curve.png", title, runs, threshold)
        draw_clip_objective(args.out / "clip_objective.png", settings.clip_range)
        write_agent_replay(args.out, args.env, ours[0].policy, args.seed, options)
        print(f"wrote pictures to {args.out}")
