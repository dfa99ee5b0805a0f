"""Scorers: functions and reward models behind one call, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab.errors import UserError
from rlhf_lab.stages.scoring import Finished, RewardModel, make_scorers, score_all
from rlhf_lab.training.records import read_jsonl, read_metrics
from tests.tiny_ppo import (
    EOS,
    PAD,
    TOKENS,
    A,
    first_rollout,
    share_of_a,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)

CPU = torch.device("cpu")
OTHER_TOKENS = ["</s>", "<pad>", *reversed("abcdefgh"), "x", "y", "z"]


def finished(**changes: Any) -> Finished:
    """Three completions of different lengths, the second without EOS."""
    values = {
        "prompts": ["ab", "c", "dea"],
        "prompt_ids": [[2, 3], [4], [5, 6, 2]],
        "completion_ids": [[2, 3, EOS], [4, 4, 4, 4], [EOS]],
        "texts": ["ab", "cccc", ""],
        "stopped": [True, False, True],
        "columns": {"level": [1, 2, 3]},
    }
    return Finished(**{**values, **changes})


def scorers(*sources: Any, tokenizers: Any = ()) -> Any:
    return make_scorers(list(sources), tokenizers, tiny_tokenizer(), CPU)


# --- functions ---------------------------------------------------------------------------------------------------


def test_b44_f01_a_function_is_called_as_trl_calls_it() -> None:
    seen: dict[str, Any] = {}

    def watch(**kwargs: Any) -> list[float]:
        seen.update(kwargs)
        return [1, 2.5, 3]

    scores = score_all(scorers(watch), finished(trainer_state="the state"))
    assert scores.totals == [1.0, 2.5, 3.0]
    assert scores.by_source == [[1.0], [2.5], [3.0]]
    assert seen == {
        "prompts": ["ab", "c", "dea"],
        "completions": ["ab", "cccc", ""],
        "completion_ids": [[2, 3, EOS], [4, 4, 4, 4], [EOS]],
        "level": [1, 2, 3],
        "trainer_state": "the state",
    }


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_a_function_may_return_any_row_of_numbers(kind: Any) -> None:
    totals = score_all(scorers(lambda **kwargs: kind([1.0, -2.0, 0.5])), finished()).totals
    assert totals == [1.0, -2.0, 0.5]


def test_a_callable_object_is_a_function() -> None:
    class Length:
        def __call__(self, completion_ids: list[list[int]], **kwargs: Any) -> list[int]:
            return [len(row) for row in completion_ids]

    judges = scorers(Length())
    assert score_all(judges, finished()).totals == [3, 4, 1]
    assert [judge.name for judge in judges] == ["Length"]


def test_f02_several_rewards_add_up_and_none_means_no_opinion() -> None:
    def first(**kwargs: Any) -> list[float | None]:
        return [1.0, None, None]

    def second(**kwargs: Any) -> list[float | None]:
        return [10.0, 20.0, None]

    scores = score_all(scorers(first, second), finished())
    assert scores.totals == [11.0, 20.0, 0.0]
    assert scores.by_source == [[1.0, 10.0], [None, 20.0], [None, None]]
    assert score_all(scorers(first, second), finished(), [3.0, -0.5]).totals == [-2.0, -10.0, 0.0]


def test_f02_two_functions_of_one_name_are_both_counted() -> None:
    judges = scorers(lambda **k: [1, 1, 1], lambda **k: [2, 2, 2])
    assert score_all(judges, finished()).totals == [3, 3, 3]
    assert len({judge.name for judge in judges}) == 2


def test_f02_weights_means_and_deviations_reach_the_log(tmp_path: Path) -> None:
    def length(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [float(len(row)) for row in completion_ids]

    def sometimes(completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
        return [2.0 if row[0] == A else None for row in completion_ids]

    trainer = tiny_trainer(tmp_path, reward=[length, sometimes], reward_weights=[0.5, -1.0])
    rollout = first_rollout(trainer)
    lengths = rollout.completion_mask.sum(1).float()
    starts_with_a = rollout.completion_ids[:, 0] == A
    assert torch.allclose(rollout.scores, 0.5 * lengths - 2.0 * starts_with_a)
    found = trainer.describe(rollout, trainer.estimate_targets(rollout))
    assert found["rewards/length/mean"] == pytest.approx(float(lengths.mean()))
    assert found["rewards/length/std"] == pytest.approx(float(lengths.std(correction=0)))
    assert ("rewards/sometimes/mean" in found) == bool(starts_with_a.any())
    assert found.get("rewards/sometimes/mean", 2.0) == 2.0
    with pytest.raises(UserError, match="3 reward_weights for 2 reward_funcs; give one for each"):
        tiny_trainer(tmp_path / "other", reward=[length, sometimes], reward_weights=[1, 2, 3])


def test_f02_async_functions_wait_for_each_other_and_work_in_a_running_loop() -> None:
    met = []

    def partner(name: str) -> Any:
        async def judge(completions: list[str], **kwargs: Any) -> list[float]:
            met.append(name)
            for _ in range(1000):
                if len(met) == 2:  # each has to have started before any can end
                    return [float(len(text)) for text in completions]
                await asyncio.sleep(0.001)
            raise TimeoutError

        return judge

    judges = scorers(partner("one"), partner("two"), lambda completions, **k: [1.0] * len(completions))
    assert score_all(judges, finished()).totals == [5.0, 9.0, 1.0]

    async def notebook() -> list[float]:
        met.clear()
        return score_all(judges, finished()).totals

    assert asyncio.run(notebook()) == [5.0, 9.0, 1.0]


def test_f02_an_async_function_is_checked_like_any_other() -> None:
    async def judge(**kwargs: Any) -> list[float]:
        return [1.0]

    with pytest.raises(UserError, match="'judge' returned 1 scores for 3 completions"):
        score_all(scorers(judge), finished())


def test_trainer_state_goes_to_functions_that_take_it() -> None:
    def plain(prompts: Any, completions: Any, completion_ids: Any, level: Any) -> list[float]:
        return [0.0, 0.0, 0.0]

    assert score_all(scorers(plain), finished(trainer_state=1)).totals == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["prompts", "completions", "completion_ids", "trainer_state"])
def test_a_column_can_not_take_the_place_of_what_is_scored(tmp_path: Path, name: str) -> None:
    rows = Dataset.from_dict({"prompt": ["ab", "c"] * 8, name: ["made up"] * 16})
    trainer = tiny_trainer(tmp_path, rows=rows)
    with pytest.raises(UserError, match=f"a column '{name}', .* rename it: dataset.rename_column.'{name}', "):
        trainer.train()
    tiny_trainer(tmp_path / "model", reward=tiny_scalar_model(), rows=rows, total_episodes=8).train()


def test_what_a_function_does_to_its_arguments_stays_with_it(tmp_path: Path) -> None:
    def careless(prompts: Any, completions: Any, completion_ids: Any, notes: Any) -> list[float]:
        for row in [*prompts, *completion_ids, *notes, *map(list, completions)]:
            row.clear()
        return [0.0] * len(completion_ids)

    seen: dict[str, Any] = {}

    def watch(**kwargs: Any) -> list[float]:
        seen.update(kwargs)
        return [0.0, 0.0, 0.0]

    prompts = [[{"role": "user", "content": letter}] for letter in "abc"]
    given = finished(prompts=prompts, columns={"notes": [["x"], ["y"], ["z"]]})
    score_all(scorers(careless, watch, tiny_scalar_model()), given)
    assert [prompt[0]["content"] for prompt in seen["prompts"]] == ["a", "b", "c"]
    assert seen["completion_ids"] == [[2, 3, EOS], [4, 4, 4, 4], [EOS]]
    assert seen["notes"] == [["x"], ["y"], ["z"]]


def without_kwargs(completions: Any) -> list[float]:
    return [0.0] * len(completions)


def wants_answers(completions: Any, answer: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (without_kwargs, "'without_kwargs' does not take 'prompts', 'completion_ids', 'level'.*add ..kwargs"),
        (wants_answers, "'wants_answers' needs 'answer', .* no column .*; they are 'level'"),
    ],
)
def test_a_function_that_can_not_be_called_so_is_refused(function: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        score_all(scorers(function), finished())


def test_an_error_inside_a_function_is_its_own() -> None:
    def broken(**kwargs: Any) -> list[float]:
        raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        score_all(scorers(broken), finished())


def test_a_class_is_refused_where_an_instance_is_meant() -> None:
    class Judge:
        def __call__(self, **kwargs: Any) -> list[float]:
            return [0.0, 0.0, 0.0]

    with pytest.raises(UserError, match=r"reward_funcs holds the class Judge; .* type Judge\(\)"):
        scorers(Judge)


@pytest.mark.parametrize("answer", [[1e39, 1.0, 1.0], [1.0, -1e20, 1.0], [[1e39, 1.0, 1.0], 1.0, 1.0]])
def test_a_reward_too_large_for_float32_is_refused_at_its_source(answer: Any) -> None:
    def judge(**kwargs: Any) -> Any:
        return answer

    with pytest.raises(UserError, match=r"'judge' returned -?1e.* scale it down"):
        score_all(scorers(judge), finished())


def test_weights_are_finite_and_do_not_make_scores_too_large(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reward_weights holds nan; give finite numbers"):
        tiny_trainer(tmp_path, reward_weights=[float("nan")])
    with pytest.raises(UserError, match=r"weighted rewards of completion 0 .*1e\+39; .*reward_weights"):
        score_all(scorers(lambda **k: [1.0, 1.0, 1.0]), finished(), [1e39])
    with pytest.raises(UserError, match=r"weighted rewards of completion 1 .*-3e\+20; .*reward_weights"):
        score_all(scorers(lambda **k: [0.0, [3.0, 0.0, 0.0, 0.0], 0.0]), finished(), [-1e20])


def test_trainer_state_moves_on_as_training_does(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(completions: Any, trainer_state: Any, **kwargs: Any) -> list[float]:
        seen.append(trainer_state.global_step)
        return [0.0] * len(completions)

    evaluation = {"eval_dataset": Dataset.from_dict({"prompt": ["ab", "c"]})}
    tiny_trainer(tmp_path, reward=watch, eval_steps=2, arguments=evaluation).train()
    assert seen == [0, 0, 1, 2, 2, 3, 4], "the number of updates done: before updates 1 to 4, in evaluations 0, 2, 4"


def test_a_score_of_0_and_a_token_of_id_0_are_options_too(tmp_path: Path) -> None:
    lengths: list[int] = []

    def judge(completion_ids: Any, **kwargs: Any) -> list[float]:
        lengths.extend(map(len, completion_ids))
        return [5.0] * len(completion_ids)

    settings = {"stop_tokens": [], "truncate_token": EOS, "untruncated_score": 0.0}
    rollout = first_rollout(tiny_trainer(tmp_path, reward=judge, **settings))
    firsts = [row.index(EOS) if EOS in row else None for row in rollout.completion_ids.tolist()]
    assert None in firsts
    assert rollout.scores.tolist() == [0.0 if first is None else 5.0 for first in firsts]
    assert lengths == [6 if first is None else first + 1 for first in firsts]


# --- rewards of tokens -------------------------------------------------------------------------------------------


def of_tokens(completion_ids: list[list[int]], **kwargs: Any) -> list[Any]:
    """One reward for each token of most completions, one number for those of one token."""
    return [[float(token == A) for token in row] if len(row) > 1 else 0.25 for row in completion_ids]


def test_f13_a_function_may_return_a_reward_for_every_token() -> None:
    scores = score_all(scorers(of_tokens, lambda **k: [1.0, 1.0, None]), finished(), [2.0, 1.0])
    assert scores.of_tokens == [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], []]
    assert scores.totals == [1.0, 1.0, 0.5]
    assert scores.by_source == [[1.0, 1.0], [0.0, 1.0], [0.25, None]]


def test_f13_rewards_of_tokens_land_on_their_tokens(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, reward=of_tokens, kl_coef=0.0, missing_eos_penalty=0.0)
    rollout = first_rollout(trainer)
    long = rollout.completion_mask.sum(1) > 1
    assert long.any()
    assert not long.all()
    expected = ((rollout.completion_ids == A) & rollout.completion_mask).float()
    targets = trainer.estimate_targets(rollout)
    assert torch.equal(targets.rewards[long], expected[long])
    assert torch.equal(targets.shaped_scores[long], expected[long].sum(1)), "the logged score counts them"
    assert torch.equal(targets.rewards[~long].sum(1), torch.full_like(targets.shaped_scores[~long], 0.25))


def test_f13_rewards_of_tokens_raise_what_they_reward(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, reward=of_tokens, total_episodes=8 * 40, kl_coef=0.0)
    trainer.train()
    scores = [line["objective/scores"] for line in read_metrics(tmp_path)]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 1.0


def one_for_each_token(completion_ids: list[list[int]], **kwargs: Any) -> list[Any]:
    return [[1.0] * len(row) for row in completion_ids]


def test_f13_an_evaluation_adds_up_the_rewards_of_tokens(tmp_path: Path) -> None:
    evaluation = {"eval_dataset": Dataset.from_dict({"prompt": ["ab", "c", "dea"]})}
    trainer = tiny_trainer(tmp_path, reward=one_for_each_token, eval_steps=4, arguments=evaluation)
    trainer.train()
    lines = [line for line in read_metrics(tmp_path) if "eval_scores" in line]
    assert [line["eval_scores"] for line in lines] == [pytest.approx(line["eval_length"]) for line in lines]
    samples = read_jsonl(tmp_path / "samples" / "update-000000.jsonl")
    assert sum(row["score"] for row in samples) / 3 == pytest.approx(lines[0]["eval_length"])
    assert trainer.life.state.best_metric == max(line["eval_length"] for line in lines)


@pytest.mark.parametrize("instead", [-1.0, 0.0])
def test_f13_untruncated_score_stands_in_for_rewards_of_tokens_too(tmp_path: Path, instead: float) -> None:
    settings = {"truncate_token": A, "untruncated_score": instead}
    rollout = first_rollout(tiny_trainer(tmp_path, reward=one_for_each_token, **settings))
    has_a = ((rollout.completion_ids == A) & rollout.completion_mask).any(1)
    assert has_a.any()
    assert not has_a.all()
    gained = rollout.scores + rollout.token_scores.sum(1)
    assert torch.equal(gained[~has_a], torch.full_like(gained[~has_a], instead))
    assert (gained[has_a] >= 1).all()


def test_f13_the_wrong_number_of_rewards_is_refused() -> None:
    def judge(**kwargs: Any) -> list[Any]:
        return [[1.0, 0.0, 0.0], [1.0, 2.0], 1.0]

    with pytest.raises(UserError, match="'judge' returned 2 rewards for a completion of 4 tokens; return one for each"):
        score_all(scorers(judge), finished())


def test_f02_completions_on_which_nobody_has_an_opinion_can_be_trained_on(tmp_path: Path) -> None:
    evaluation = {"eval_dataset": Dataset.from_dict({"prompt": ["ab", "c"]})}
    trainer = tiny_trainer(
        tmp_path, reward=lambda completions, **k: [None] * len(completions), eval_steps=2, arguments=evaluation
    )
    trainer.train()
    assert trainer.evaluate()["eval_scores"] == 0.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1.0, 2.0], "returned 2 scores for 3 completions"),
        ([1.0, float("nan"), 2.0], "returned nan; return finite numbers or None"),
        ([1.0, float("inf"), 2.0], "returned inf"),
        ([1.0, "good", 2.0], "returned 'good'"),
        ([1.0, "2.0", 2.0], "returned '2.0'"),
        ([[1.0, float("nan"), 1.0], 1.0, 2.0], "returned nan"),
        ([1.0, object(), 2.0], "returned <object"),
        ("abc", "returned a str"),
        (1.0, "returned a float"),
        (None, "returned a NoneType"),
        ({"a": 1, "b": 2, "c": 3}, "returned a dict"),
    ],
)
def test_answers_that_are_no_scores_are_refused_by_name(answer: Any, words: str) -> None:
    def judge(**kwargs: Any) -> Any:
        return answer

    with pytest.raises(UserError, match=f"reward function 'judge' {words}"):
        score_all(scorers(judge), finished())


# --- reward models -----------------------------------------------------------------------------------------------


def plain_score(model: Any, ids: list[int]) -> float:
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits)


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_b22_a_reward_model_scores_as_a_plain_call_does(pad: int) -> None:
    model = tiny_scalar_model(pad_token_id=pad).eval()
    totals = score_all(scorers(model), finished()).totals
    rows = [[2, 3, 2, 3, EOS], [4, 4, 4, 4, 4], [5, 6, 2, EOS]]
    assert totals == pytest.approx([plain_score(model, row) for row in rows], abs=1e-5)


def test_b21_f03_a_reward_model_with_another_tokenizer_reads_the_text() -> None:
    other = tiny_tokenizer(tokens=OTHER_TOKENS)
    model = tiny_scalar_model(vocab_size=len(OTHER_TOKENS)).eval()
    (scorer,) = scorers(model, tokenizers=[other])
    assert isinstance(scorer, RewardModel)
    assert not scorer.reads_ids
    totals = score_all([scorer], finished()).totals
    texts = ["abab</s>", "ccccc", "dea</s>"]
    expected = [plain_score(model, other(text)["input_ids"]) for text in texts]
    assert totals == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx([plain_score(model, [TOKENS.index(c) for c in "abab"] + [EOS])] * 3)


@pytest.mark.parametrize("settings", [{}, {"truncate_token": "c"}, {"max_prompt_length": 2}])
def test_b21_by_reading_or_by_ids_a_reward_model_sees_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    """One more word in the vocabulary makes it another tokenizer, with the same ids for the same text."""
    model = tiny_scalar_model(vocab_size=len(TOKENS) + 1, initializer_range=1.0)
    tokenizers = [tiny_tokenizer(), tiny_tokenizer(tokens=[*TOKENS, "x"])]
    arguments = {"reward_processing_classes": tokenizers}
    trainer = tiny_trainer(tmp_path, reward=[model, model], arguments=arguments, **settings)
    assert [scorer.reads_ids for scorer in trainer.scorers] == [True, False]
    rollout = first_rollout(trainer)
    rows = rollout.completion_ids.tolist()
    # a pad that was sampled has no text
    same = [row for row, ids in enumerate(rows) if PAD not in ids[: int(rollout.completion_mask[row].sum())]]
    assert len(same) > 3
    found = rollout.source_scores[same]
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-5)


QUESTION = [{"role": "user", "content": "ab"}]
TURNS = "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}</s>{% endfor %}"
POLICY_TURNS = TURNS + "{% if add_generation_prompt %}a{% endif %}"


@pytest.mark.parametrize("has_template", [True, False])
def test_b21_a_conversation_is_read_through_the_reward_models_own_template(has_template: bool) -> None:
    policys, own = tiny_tokenizer(), tiny_tokenizer(tokens=[*OTHER_TOKENS, "u"])
    policys.chat_template = POLICY_TURNS.replace("{{ m['role'][0] }}", "h")
    own.chat_template = TURNS if has_template else None
    model = tiny_scalar_model(vocab_size=len(OTHER_TOKENS) + 1, initializer_range=1.0).eval()
    judges = make_scorers(model, [own], policys, CPU)
    ids = [policys.encode("hab</s>a")] * 2
    given = finished(
        prompts=[QUESTION] * 2,
        prompt_ids=ids,
        texts=["ef", "ef"],
        completion_ids=[[6, 7, EOS], [6, 7]],
        stopped=[True, False],
        columns={},
    )
    before = "uab</s>a" if has_template else "hab</s>a"
    expected = [plain_score(model, own(before + said)["input_ids"]) for said in ("ef</s>", "ef")]
    assert score_all(judges, given).totals == pytest.approx(expected, abs=1e-5)
    assert expected[0] != pytest.approx(expected[1])


def test_b21_the_tokenizer_in_a_reward_models_folder_is_its_own(tmp_path: Path) -> None:
    tiny_scalar_model(vocab_size=len(OTHER_TOKENS)).save_pretrained(tmp_path)
    tiny_tokenizer(tokens=OTHER_TOKENS).save_pretrained(tmp_path)
    (scorer,) = scorers(str(tmp_path))
    assert isinstance(scorer, RewardModel)
    assert not scorer.reads_ids


def test_a_reward_model_with_the_same_tokenizer_reads_the_sampled_ids(tmp_path: Path) -> None:
    tiny_scalar_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (scorer,) = scorers(tmp_path)
    assert isinstance(scorer, RewardModel)
    assert scorer.reads_ids


def test_b35_a_reward_model_without_a_pad_token_gets_one_with_room_for_it() -> None:
    model = tiny_scalar_model(pad_token_id=None).eval()
    expected = [plain_score(model, [2, 3, 2, 3, EOS]), plain_score(model, [5, 6, 2, EOS])]
    totals = score_all(scorers(model, tokenizers=[tiny_tokenizer(pad=None)]), finished()).totals
    assert [totals[0], totals[2]] == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_is_frozen_and_without_dropout() -> None:
    model = tiny_scalar_model(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    (scorer,) = scorers(model)
    assert scorer(finished()) == scorer(finished())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_models_and_functions_mix() -> None:
    model = tiny_scalar_model().eval()
    both = score_all(scorers(model, share_of_a), finished()).totals
    alone = score_all(scorers(model), finished()).totals
    assert both == pytest.approx([alone[0] + 1 / 3, alone[1], alone[2]])


@pytest.mark.parametrize("source", [tiny_scalar_model(num_labels=2), tiny_policy()])
def test_a_model_without_one_label_is_refused(source: Any) -> None:
    with pytest.raises(UserError, match=r"has 2 labels; needed: .* num_labels=1"):
        scorers(source)


def test_b20_what_is_neither_function_nor_model_is_refused() -> None:
    with pytest.raises(UserError, match="reward_funcs holds a int"):
        scorers(3)


def test_a_tokenizer_for_each_reward_or_for_none() -> None:
    with pytest.raises(UserError, match="2 reward_processing_classes for 1 reward_funcs"):
        scorers(share_of_a, tokenizers=[None, None])
    scorers(share_of_a, tiny_scalar_model(), tokenizers=[None, tiny_tokenizer()])


def test_a_reward_model_of_another_vocabulary_needs_its_tokenizer() -> None:
    with pytest.raises(UserError, match="reward_processing_classes"):
        scorers(tiny_scalar_model(vocab_size=5))


def test_an_unknown_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reward model"):
        scorers(str(tmp_path / "nothing"))


def test_a_score_counts_letters_as_it_should() -> None:
    """The reward of the other tests, by hand."""
    assert share_of_a([[A, 3, EOS], [4], [A, A]]) == [1 / 3, 0.0, 1.0]


def test_a_reward_model_with_nan_in_its_weights_is_refused() -> None:
    model = tiny_scalar_model()
    model.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"reward model .* gave nan to 'ab' and 2 more"):
        score_all(scorers(model), finished())


def test_b20_a_plain_module_is_refused_and_an_empty_list_too() -> None:
    with pytest.raises(UserError, match="reward_funcs holds a Linear, which can not be called with prompts"):
        scorers(torch.nn.Linear(2, 1))
    with pytest.raises(UserError, match="reward_funcs is empty"):
        scorers()
