"""A policy's way to disk and back, and what is refused on the way."""

from pathlib import Path

import numpy as np
import pytest
import torch

from classic.actor_critic import ActorCritic
from classic.errors import LessonError
from classic.q_network import QNetwork
from classic.saved_policies import load_policy, save_policy

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


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LessonError, match=r"there is no saved policy.*python -m classic\.dqn"):
        load_policy(tmp_path / "nothing.pt", QNetwork, env_id="CartPole-v1", lesson="dqn")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(LessonError, match="is not a policy that these lessons saved"):
        load_policy(tmp_path / "text.pt", ActorCritic, env_id="CartPole-v1", lesson="ppo")
