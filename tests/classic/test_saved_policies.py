"""A policy's way to disk and back, and what is refused on the way."""

from pathlib import Path

import numpy as np
import pytest
import torch

from classic import ppo_command
from classic.actor_critic import ActorCritic
from classic.errors import LessonError
from classic.q_network import QNetwork
from classic.saved_policies import load_policy, save_policy
from tests.full_disk import files_of_at_most

SEEN = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def networks() -> list[ActorCritic | QNetwork]:
    torch.manual_seed(0)
    return [ActorCritic(4, 3), ActorCritic(4, 2, continuous=True), QNetwork(4, 3, hidden=16)]


@pytest.mark.parametrize("index", range(3))
def test_a_saved_policy_acts_the_same_to_the_last_bit(tmp_path: Path, index: int) -> None:
    policy = networks()[index]
    save_policy(tmp_path / "deep" / "policy.pt", policy, env_id="CartPole-v1", lesson="ppo")
    again = load_policy(tmp_path / "deep" / "policy.pt", type(policy), env_id="CartPole-v1", lesson="ppo")
    assert np.array_equal(again.best(SEEN), policy.best(SEEN))
    mine, other = policy.state_dict(), again.state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_policy_of_another_environment_is_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pt", networks()[0], env_id="CartPole-v1", lesson="ppo")
    with pytest.raises(LessonError, match=r"holds a policy of CartPole-v1.*type --env CartPole-v1"):
        load_policy(tmp_path / "policy.pt", ActorCritic, env_id="Acrobot-v1", lesson="ppo")


def test_a_policy_of_another_lesson_is_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pt", networks()[0], env_id="CartPole-v1", lesson="ppo")
    with pytest.raises(LessonError, match=r"of the lesson ppo.*type python -m classic\.ppo --env CartPole-v1 --load"):
        load_policy(tmp_path / "policy.pt", QNetwork, env_id="CartPole-v1", lesson="dqn")


@pytest.mark.parametrize(
    ("policy", "env_id", "told"),
    [
        (ActorCritic(5, 2), "CartPole-v1", "networks with num_inputs 5; CartPole-v1 needs num_inputs 4"),
        (ActorCritic(4, 3), "CartPole-v1", "num_actions 3; CartPole-v1 needs num_actions 2"),
        (ActorCritic(3, 1), "Pendulum-v1", "continuous False; Pendulum-v1 needs continuous True"),
    ],
)
def test_networks_of_another_shape_are_refused(policy: ActorCritic, env_id: str, told: str, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pt", policy, env_id=env_id, lesson="ppo")
    with pytest.raises(LessonError, match=told):
        ppo_command.main(["--env", env_id, "--load", str(tmp_path / "policy.pt"), "--episodes", "2"])


@pytest.mark.parametrize("shape", [{"num_inputs": 4}, {"width": 4}, [4, 2], {"num_inputs": 9, "num_actions": 2}])
def test_weights_that_do_not_fit_their_shape_are_refused(shape: object, tmp_path: Path) -> None:
    policy = ActorCritic(4, 2)
    saved = {"lesson": "ppo", "env": "CartPole-v1", "shape": shape, "weights": policy.state_dict()}
    torch.save(saved, tmp_path / "policy.pt")
    with pytest.raises(LessonError, match=r"do not fit their shape.*make one with python -m classic\.ppo"):
        load_policy(tmp_path / "policy.pt", ActorCritic, env_id="CartPole-v1", lesson="ppo")


def test_a_full_disk_leaves_the_policy_that_was_there(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pt", QNetwork(4, 2, hidden=8), env_id="CartPole-v1", lesson="dqn")
    before = (tmp_path / "policy.pt").read_bytes()
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        save_policy(tmp_path / "policy.pt", QNetwork(4, 2, hidden=64), env_id="CartPole-v1", lesson="dqn")
    assert (tmp_path / "policy.pt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["policy.pt"]


def test_the_policy_is_safe_before_anything_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a JSON that can not be written nor a picture that can not be drawn costs it."""
    seen: list[str] = []

    def fail(path: Path, *_: object, **__: object) -> None:
        seen.extend(file.name for file in tmp_path.iterdir())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("classic.agent_command.write_json", fail)
    monkeypatch.setattr("classic.clip_picture.draw_curves", fail)
    files = ["--save", str(tmp_path / "policy.pt"), "--json", str(tmp_path / "x.json"), "--out", str(tmp_path)]
    with pytest.raises(
        LessonError, match=r"x\.json \(No space left on device\), pictures to .* and 1 of 3 were written"
    ):
        ppo_command.main(["--steps", "2048", "--num-evaluation-episodes", "4", "--quiet", *files])
    assert seen == ["policy.pt", "policy.pt"]


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LessonError, match=r"there is no saved policy.*python -m classic\.dqn"):
        load_policy(tmp_path / "nothing.pt", QNetwork, env_id="CartPole-v1", lesson="dqn")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(LessonError, match="is not a policy that these lessons saved"):
        load_policy(tmp_path / "text.pt", ActorCritic, env_id="CartPole-v1", lesson="ppo")
