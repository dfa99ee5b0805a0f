"""generate() and step(): PPO for own loops and environments, without a data set."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from rlhf_lab import PPOConfig, PPOTrainer
from rlhf_lab.errors import UserError
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import (
    EOS,
    PAD,
    TOKENS,
    A,
    B,
    all_weights,
    largest_difference,
    metrics_of,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)

PROMPT_IDS = [torch.tensor([A, B]), torch.tensor([B]), torch.tensor([5, 6, A]), torch.tensor([7])] * 2


def own_trainer(folder: Path, **settings: Any) -> PPOTrainer:
    """Without a data set and without a reward that is asked."""
    sizes = {"total_episodes": 32, "rollout_batch_size": 8, "minibatch_size": 4, "micro_batch_size": 4}
    lengths = {"max_completion_length": 6, "max_prompt_length": 8, "learning_rate": 1e-2, "num_ppo_epochs": 2}
    return PPOTrainer(
        tiny_policy(),
        lambda **kwargs: pytest.fail("step() brings its own scores"),
        args=PPOConfig(output_dir=str(folder), **{**sizes, **lengths, **settings}),
        processing_class=tiny_tokenizer(),
        value_model=tiny_scalar_model(seed=3),
    )


def share_of_a(completions: list[torch.Tensor]) -> list[float]:
    return [float((row == A).float().mean()) for row in completions]


def one_update(trainer: PPOTrainer) -> dict[str, float]:
    completions = trainer.generate(PROMPT_IDS)
    return trainer.step(PROMPT_IDS, completions, share_of_a(completions))


def test_f11_generate_and_step_train_without_a_data_set(tmp_path: Path) -> None:
    trainer = own_trainer(tmp_path, total_episodes=8 * 60, kl_coef=0.0)
    found = [one_update(trainer) for _ in range(60)]
    scores = [metrics["objective/scores"] for metrics in found]
    assert sum(scores[-10:]) / 10 > sum(scores[:10]) / 10 + 0.3
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 61)), "logged as by train()"


def test_f11_generate_gives_tensors_of_ids_with_their_stop_token(tmp_path: Path) -> None:
    completions = own_trainer(tmp_path).generate(PROMPT_IDS)
    assert all(isinstance(row, torch.Tensor) and row.dim() == 1 and row.dtype == torch.int64 for row in completions)
    assert any(int(row[-1]) == EOS for row in completions)
    assert all(EOS not in row[:-1].tolist() for row in completions)


def test_two_calls_draw_other_numbers_and_a_seed_the_same(tmp_path: Path) -> None:
    trainer, again = own_trainer(tmp_path / "one"), own_trainer(tmp_path / "two")

    def said(**kwargs: Any) -> list[list[int]]:
        return [row.tolist() for row in trainer.generate(PROMPT_IDS, **kwargs)]

    first, second = said(), said()
    assert first != second
    assert [row.tolist() for row in again.generate(PROMPT_IDS)] == first, "a repeated run draws them again"
    assert said(seed=3) == said(seed=3)


def test_f11_step_is_the_update_that_train_would_do(tmp_path: Path) -> None:
    """The same rollout, scored by a function and handed to step(), moves the weights alike."""
    trained = tiny_trainer(tmp_path / "train", total_episodes=8)
    batch = next(trained.prompt_batches())
    trained.update_number = 0
    completions = trained.complete(batch.ids, trained._uniforms(batch, stream=1, num_rows=8), 1.0).rows()
    trained.train()
    own = own_trainer(tmp_path / "own", total_episodes=8)
    own.step(batch.ids, completions, [row.count(A) / len(row) for row in completions])
    assert largest_difference(all_weights(trained), all_weights(own)) < 1e-6
    of_train, of_own = metrics_of(tmp_path / "train")[0], metrics_of(tmp_path / "own")[0]
    assert {k: v for k, v in of_train.items() if k in of_own and k != "epoch"} == pytest.approx(
        {k: v for k, v in of_own.items() if k != "epoch"}, abs=1e-5
    )


def test_f13_step_takes_a_score_for_every_token(tmp_path: Path) -> None:
    trainer = own_trainer(tmp_path, kl_coef=0.0)
    completions = trainer.generate(PROMPT_IDS)
    rewards = [(row == A).float() for row in completions]
    found = trainer.step(PROMPT_IDS, completions, rewards)
    assert found["objective/scores"] == pytest.approx(sum(float(row.sum()) for row in rewards) / 8)


def test_b13_an_own_loop_resumes_exactly(tmp_path: Path) -> None:
    straight = own_trainer(tmp_path / "straight")
    for _ in range(4):
        one_update(straight)
    first = own_trainer(tmp_path / "cut", save_steps=2)
    for _ in range(2):
        one_update(first)
    second = own_trainer(tmp_path / "cut", save_steps=2)
    second.resume()
    for _ in range(2):
        one_update(second)
    assert largest_difference(all_weights(straight), all_weights(second)) == 0
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "cut")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": PROMPT_IDS[:4]}, "step.. got 4 prompts and 8 completions; one update takes rollout_batch_size=8"),
        ({"scores": [1.0] * 7}, "step.. got 7 scores for 8 completions; give one for each"),
        ({"scores": [1.0] * 7 + [float("nan")]}, "score of completion 7 is nan; give finite numbers"),
        ({"scores": [1.0] * 7 + [[1.0, 2.0, 3.0]]}, "completion 7 has 2 tokens and 3 scores; give one, or one a token"),
        ({"completions": [[A, EOS]] * 7 + [[]]}, "completion 7 has no tokens"),
        (
            {"completions": [[A, EOS]] * 7 + [[A] * 7]},
            "completion 7 has 7 tokens; cut it, or type max_completion_length=7",
        ),
        ({"prompts": [[A] * 9] * 8}, "prompt 0 has 9 tokens; cut it, or type max_prompt_length=9"),
        ({"completions": [[len(TOKENS)]] * 8}, "completion 0 holds the id 10, the policy knows 0 to 9"),
        ({"prompts": [[-1]] * 8}, "prompt 0 holds the id -1"),
        ({"prompts": ["ab"] * 8}, r"prompt 0 is text; .* type tokenizer\(text\)\['input_ids'\]"),
        ({"prompts": [torch.tensor([[A, B]])] * 8}, r"prompt 0 is a row of rows; .* type row\[0\]"),
        ({"prompts": [[2.7]] * 8}, "prompt 0 holds 2.7; ids are whole numbers"),
        ({"completions": [torch.tensor([2.0, 3.0])] * 8}, r"completion 0 holds 2.0; .* type row.long\(\)"),
        ({"prompts": [A] * 8}, r"prompt 0 is 2; give a row of ids, such as \[5, 6, 7\]"),
        ({"prompts": torch.tensor(A)}, r"prompts are tensor\(2\); give a list with one row of ids for each"),
        (
            {"prompts": {"input_ids": [[A]] * 8}},
            "prompts are {'input_ids': .*; give a list with one row of ids for each",
        ),
        ({"prompts": [[PAD, A]] * 8}, "prompt 0 begins with the pad token 1; give it without padding"),
        ({"prompts": [[A, PAD]] * 8}, "prompt 0 ends with the pad token 1; give it without padding"),
        ({"completions": [[A, EOS, PAD, PAD]] * 8}, r"completion 0 goes on after the stop token 0; .* type row\[:2\]"),
        ({"completions": [[A, EOS, B]] * 8}, r"completion 0 goes on after the stop token 0; .* type row\[:2\]"),
        ({"completions": [[A, B, PAD, PAD]] * 8}, r"completion 0 ends with the pad token 1; .* type row\[:2\]"),
        ({"scores": [None] * 8}, "score of completion 0 is None; give a number, or one for each of its tokens"),
        ({"scores": ["1.0"] * 8}, "score of completion 0 is '1.0'; give a number"),
        ({"scores": [{}] * 8}, "score of completion 0 is {}; give a number"),
        ({"scores": [[[1.0, 2.0]]] * 8}, r"score of completion 0 is \[\[1.0, 2.0\]\]; give a number"),
        ({"scores": 1.0}, r"step\(\) was given the scores 1.0; give a list with one for each of 8 completions"),
        ({"scores": torch.tensor(1.0)}, r"step\(\) was given the scores tensor\(1.\); give a list"),
        ({"scores": torch.ones(8, 1)}, r"scores have the shape \(8, 1\); .* type scores.squeeze\(1\)"),
        ({"scores": [1e39] * 8}, r"score of completion 0 is 1e\+39; .* scale it down"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_moves(tmp_path: Path, change: Any, words: str) -> None:
    trainer = own_trainer(tmp_path)
    before = all_weights(trainer)
    given = {"prompts": PROMPT_IDS, "completions": [[A, EOS]] * 8, "scores": [1.0] * 8, **change}
    with pytest.raises(UserError, match=words):
        trainer.step(given["prompts"], given["completions"], given["scores"])
    assert largest_difference(before, all_weights(trainer)) == 0
    trainer.step(PROMPT_IDS, [[A, EOS]] * 8, [1.0] * 8)
    assert trainer.update_number == 1


def test_steps_beyond_the_schedule_are_refused(tmp_path: Path) -> None:
    trainer = own_trainer(tmp_path, total_episodes=8)
    one_update(trainer)
    with pytest.raises(UserError, match="all 1 updates of total_episodes=8 are done"):
        one_update(trainer)


def test_a_prompt_and_a_completion_that_exceed_the_context_are_refused(tmp_path: Path) -> None:
    trainer = own_trainer(tmp_path, max_prompt_length=30, max_completion_length=30)
    with pytest.raises(UserError, match="prompt 7 and its completion have 34 tokens, the model's context holds 32"):
        trainer.step([[A]] * 7 + [[A] * 20], [[B] * 14] * 8, [1.0] * 8)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("ab", r"was given text; .* type generate\(\['ab'\]\)"),
        (
            [{"role": "user", "content": "ab"}],
            r"was given the messages of one prompt; .* type generate\(\[messages\]\)",
        ),
        ([5, 6], r"prompt 0 is 5; give a row of ids"),
        (torch.tensor([5, 6]), "prompt 0 is .*5.*; give a row of ids"),
        (["ab", [2, 3]], "prompts are text and ids mixed; give all as text, or all as ids"),
        ([None], "prompt 0 is None; give a row of ids"),
        ([[]], "prompt 0 has no tokens"),
        ([], "was given no prompts"),
        ({"input_ids": [[2]]}, r"was given a dict; .* type generate\(tokens\['input_ids'\]\)"),
        (iter([[2]]), "was given a list_iterator; give a list of prompts"),
    ],
)
def test_generate_refuses_what_is_no_list_of_prompts(tmp_path: Path, prompts: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        own_trainer(tmp_path).generate(prompts)


def test_step_takes_rows_in_any_usual_form(tmp_path: Path) -> None:
    """Lists, tensors, arrays and whole tensors of rows of one length give the same update."""
    forms: list[Any] = [
        ([[A, B]] * 8, [[B, EOS]] * 8, [0.5] * 8),
        (torch.tensor([[A, B]] * 8), torch.tensor([[B, EOS]] * 8), torch.full((8,), 0.5)),
        ([numpy.array([A, B])] * 8, [(B, EOS)] * 8, numpy.full(8, 0.5)),
        ([[torch.tensor(A), torch.tensor(B)]] * 8, [[B, EOS]] * 8, [torch.tensor(0.5, requires_grad=True)] * 8),
    ]
    trainers = [own_trainer(tmp_path / str(number)) for number in range(len(forms))]
    for trainer, form in zip(trainers, forms, strict=True):
        trainer.step(*form)
    assert [largest_difference(all_weights(trainers[0]), all_weights(trainer)) for trainer in trainers] == [0.0] * 4


def test_one_score_of_a_completion_of_one_token_may_stand_in_a_row(tmp_path: Path) -> None:
    found = own_trainer(tmp_path).step(PROMPT_IDS, [[EOS]] * 8, torch.full((8, 1), 0.5))
    assert found["objective/scores"] == 0.5


def test_what_generate_drew_is_taken_back_even_with_the_pad_token_in_it(tmp_path: Path) -> None:
    """The policy has a probability for every token; a full-length completion may end in any of them."""
    trainer = own_trainer(tmp_path)
    trainer.step(PROMPT_IDS, [[A, PAD, B, EOS], [A, B, A, B, A, PAD]] * 4, [1.0] * 8)
    assert trainer.update_number == 1
