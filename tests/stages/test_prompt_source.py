"""Prompts for PPO: what is read, what is refused, and which update gets which prompts."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rlhf_lab import PPOConfig
from rlhf_lab.errors import UserError
from rlhf_lab.stages.prompt_source import PromptBatch, PromptSource
from tests.tiny_ppo import EOS, PROMPTS, A, metrics_of, tiny_tokenizer, tiny_trainer

TEMPLATE = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}a{% endif %}"


def chatty_tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def source(rows: dict[str, Any], name: str = "train_dataset", tokenizer: Any = None, **settings: Any) -> PromptSource:
    args = PPOConfig(**{"rollout_batch_size": 2, "minibatch_size": 2, "max_prompt_length": 3, **settings})
    made = PromptSource.of(Dataset.from_dict(rows), tokenizer or tiny_tokenizer(), args, name)
    assert made is not None
    return made


def messages(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_b23_f04_text_and_messages_become_ids() -> None:
    assert source({"prompt": ["ab", "c"]}).ids == [[A, 3], [4]]
    assert source({"prompt": messages("b", "c")}, tokenizer=chatty_tokenizer()).ids == [[3, EOS, A], [4, EOS, A]]


def test_b37_messages_without_a_chat_template_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.chat_template=FILE"):
        source({"prompt": messages("b", "c")})


def test_long_prompts_keep_their_end_and_are_counted() -> None:
    made = source({"prompt": ["abcdef", "c"]})
    assert made.ids == [[5, 6, 7], [4]]
    assert made.num_long == 1
    args = PPOConfig(max_prompt_length=3)
    assert PromptBatch.of(["abcdef"], tiny_tokenizer(), args).ids == [[5, 6, 7]]


def test_b23_other_columns_travel_with_their_prompt() -> None:
    made = source({"prompt": ["a", "b", "c", "d"], "answer": ["A", "B", "C", "D"], "level": [1, 2, 3, 4]})
    for seed in (0, None):
        batch = made.batch([3, 0, 2], seed=seed)
        assert [answer.lower() for answer in batch.columns["answer"]] == batch.prompts
        assert ["abcd"[level - 1] for level in batch.columns["level"]] == batch.prompts
        assert batch.ids == [["abcd".index(prompt) + A] for prompt in batch.prompts]
        assert set(batch.columns) == {"answer", "level"}


def test_every_epoch_holds_every_prompt_once_in_an_order_of_its_own() -> None:
    made = source({"prompt": PROMPTS})
    epochs = [made.batch(range(12 * e, 12 * e + 12), seed=0).prompts for e in range(3)]
    assert all(sorted(epoch) == sorted(PROMPTS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [PROMPTS, *epochs]}) == 4


def test_a_batch_may_cross_the_end_of_an_epoch() -> None:
    made = source({"prompt": PROMPTS})
    whole = made.batch(range(24), seed=1).prompts
    assert made.batch(range(9, 15), seed=1).prompts == whole[9:15]


def test_b34_the_order_belongs_to_the_seed_alone() -> None:
    one, same = source({"prompt": PROMPTS}), source({"prompt": PROMPTS})
    same.batch(range(30), seed=5)  # what was asked before does not matter
    assert one.batch(range(12), seed=0).prompts == same.batch(range(12), seed=0).prompts
    assert one.batch(range(12), seed=0).prompts != one.batch(range(12), seed=1).prompts


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"text": ["a", "b"]}, "has the columns .* PPO needs a column 'prompt'"),
        ({"prompt": ["a"]}, "has 1 prompts, one rollout takes 2"),
        ({"prompt": ["a", ""]}, "has 1 empty prompts, the first in row 2"),
        ({"prompt": ["a", None]}, "has 1 empty prompts, the first in row 2"),
    ],
)
def test_b25_rows_that_can_not_work_are_refused(rows: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"train_dataset {words}"):
        source(rows)


def test_an_empty_evaluation_set_is_refused() -> None:
    with pytest.raises(UserError, match="eval_dataset has no rows"):
        source({"prompt": []}, name="eval_dataset")
    assert len(source({"prompt": ["a"]}, name="eval_dataset")) == 1, "one prompt is enough to evaluate"


def test_without_a_data_set_there_is_no_source() -> None:
    assert PromptSource.of(None, tiny_tokenizer(), PPOConfig(), "train_dataset") is None


def test_b23_messages_and_columns_reach_reward_functions(tmp_path: Path) -> None:
    """In TRL's form: a completion after messages is an assistant's message."""
    seen: list[dict[str, Any]] = []

    def watch(prompts: Any, completions: Any, completion_ids: Any, level: Any, **kwargs: Any) -> list[float]:
        assert set(kwargs) == {"trainer_state"}
        seen.extend(
            {"prompt": p, "completion": c, "level": n} for p, c, n in zip(prompts, completions, level, strict=True)
        )
        return [0.0] * len(prompts)

    rows = Dataset.from_dict({"prompt": messages(*PROMPTS[:8]), "level": list(range(8))})
    tiny_trainer(tmp_path, reward=watch, rows=rows, arguments={"processing_class": chatty_tokenizer()}).train()
    assert len(metrics_of(tmp_path)) == 4
    assert len(seen) == 32
    for row in seen:
        assert row["prompt"] == [{"role": "user", "content": PROMPTS[row["level"]]}]
        assert [message["role"] for message in row["completion"]] == ["assistant"]
