"""The commands of lessons 3 to 5: they train, say what came out, write it, and test what was saved."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from classic import dqn_command, policy_gradient_command, ppo_command
from classic.actor_critic import ActorCritic
from classic.q_network import QNetwork
from classic.saved_policies import fresh_seed, load_policy
from classic.training_runs import evaluation_seed
from classic.vector_rollouts import make_vector, returns_of_first_episodes

Main = Callable[[Sequence[str] | None], None]
EVERYBODY = {"curve.png", "replay.gif", "replay.html"}
NETWORKS: dict[str, type[ActorCritic | QNetwork]] = {
    "dqn": QNetwork,
    "policy_gradient": ActorCritic,
    "ppo": ActorCritic,
}
SHORT = ["--num-evaluation-episodes", "10", "--quiet"]
# Lesson, what is typed, settings that must have arrived; a picture, words and a measurement of its own.
LESSONS = [
    pytest.param(
        dqn_command.main,
        "dqn",
        ["--no-double", "--steps", "2000", "--learning-starts", "200", "--hidden", "32", "--evaluate-every", "1000"],
        {"num_steps": 2000, "double": False, "hidden": 32},
        "forgetting.png",
        "is it forgetting?",
        lambda written: "doomed_q" in written["seeds"][0]["curve"][-1]["metrics"],
        id="dqn",
    ),
    pytest.param(
        policy_gradient_command.main,
        "policy_gradient",
        ["--method", "baseline", "--gradient-variance", "--steps", "6000", "--evaluate-every", "2000"],
        {"num_steps": 6000, "method": "baseline", "num_critic_steps": 10},
        "gradients.png",
        "of reinforce's",
        lambda written: written["gradient_variance"]["reinforce"]["variance"] > 0,
        id="policy_gradient",
    ),
    pytest.param(
        ppo_command.main,
        "ppo",
        ["--steps", "4096"],
        {"num_steps": 4096},
        "clip_objective.png",
        "interquartile mean of ours",
        lambda written: "clip_fraction" in written["seeds"][0]["curve"][-1]["metrics"],
        id="ppo",
    ),
]


def test_another_time_limit_has_another_baseline_and_no_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    ppo_command.main(["--steps", "2048", "--max-episode-steps", "50", "--json", str(file), *SHORT])
    shown = capsys.readouterr().out
    assert "above 0: 50" in shown.splitlines()[-1]
    assert "475" not in shown
    written = json.loads(file.read_text())
    assert written["options"] == {"max_episode_steps": 50}
    assert written["seeds"][0]["threshold"] is None


@pytest.mark.parametrize(("main", "name", "typed", "settings", "picture", "words", "measured"), LESSONS)
def test_it_trains_writes_saves_and_reloads(
    main: Main,
    name: str,
    typed: list[str],
    settings: dict[str, object],
    picture: str,
    words: str,
    measured: Callable[[dict[str, Any]], bool],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ["--json", str(tmp_path / "run.json"), "--save", str(tmp_path / "run.pt"), "--out", str(tmp_path)]
    main(["--seed", "2", "--seeds", "2", *typed, *SHORT, *files])
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["lesson"] == name
    assert [run["seed"] for run in written["seeds"]] == [2, 3]
    assert measured(written)
    assert settings.items() <= written["settings"].items()
    assert EVERYBODY | {picture} <= {file.name for file in tmp_path.iterdir()}
    assert (tmp_path / "diagnostics.png").is_file() == (name != "dqn")  # whose monitor is another
    shown = capsys.readouterr().out
    assert words in shown
    assert "interquartile mean of ours" in shown
    assert f"python -m classic.{name} --env CartPole-v1 --load {tmp_path / 'run.pt'}" in shown
    main(
        ["--seed", "2", "--load", str(tmp_path / "run.pt"), "--episodes", "10", "--json", str(tmp_path / "saved.json")]
    )
    returns = json.loads((tmp_path / "saved.json").read_text())["returns"]
    assert f"{sum(returns) / 10:.6g}" in capsys.readouterr().out.splitlines()[-1]
    policy = load_policy(tmp_path / "run.pt", NETWORKS[name], env_id="CartPole-v1", lesson=name)
    env = make_vector("CartPole-v1", 10)
    # The saved weights are those of the best evaluation, and the test is not the one that chose them.
    chosen_on = returns_of_first_episodes(env, policy.best, evaluation_seed(2))
    assert chosen_on.mean() == pytest.approx(written["seeds"][0]["best_return"])
    assert returns == returns_of_first_episodes(env, policy.best, fresh_seed(2)).tolist()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_saved_policy_is_judged_where_nothing_was_trained_or_chosen(env_id: str) -> None:
    """Start states: Pendulum's streams are seeded one by one, with numbers that follow each other."""
    env = make_vector(env_id, 100)
    fresh = {tuple(row) for seed in (0, 1) for row in env.reset(seed=fresh_seed(seed))[0].tolist()}
    for seed in (0, 1, 2):
        for used in (seed, evaluation_seed(seed)):
            assert fresh.isdisjoint(tuple(row) for row in env.reset(seed=used)[0].tolist())
    env.close()


def test_what_torch_imports_for_its_first_optimizer_is_on_nobodys_clock() -> None:
    """Stable-Baselines3 trains second in the process, and would have that second for nothing."""
    program = """
import sys
from dataclasses import replace
from classic import ppo_command

def train(*args, **how):
    sys.exit(0 if "torch._dynamo" in sys.modules else "not imported yet")

ppo_command.LESSON = replace(ppo_command.LESSON, train=train)
ppo_command.main(["--steps", "4096", "--quiet"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
