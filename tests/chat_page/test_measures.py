"""Numbers of tokens and answers against plain transformers, and texts of tokens against the text of the whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_lab.chat_models import STAGES, load_models
from rlhf_lab.chat_page.answers import Models
from rlhf_lab.chat_page.measures import load_judges, measure, pieces
from rlhf_lab.models.language import load_tokenizer
from tests.chat_page.small_run import loaded, small_run

TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def parts(run: Path) -> Any:
    return loaded(run)


def log_probs(folder: Path, prompt: list[int], answer: list[int]) -> Tensor:
    """(T,) by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)[range(len(answer)), answer]


def test_every_number_is_what_plain_transformers_says(run: Path, parts: Any) -> None:
    models, judges = parts
    asked = models.ask("What is 3 plus 4?")
    answers = [([9, 20, 31], True), ([7, 300, 55, 41, 12], False), ([5], True)]
    found = measure(models, judges, asked, answers, temperature=TEMPERATURE)
    for (ids, ended), measures in zip(answers, found, strict=True):
        ppo, sft = (log_probs(run / stage, asked.ids, ids) for stage in ("ppo", "sft"))
        assert [token.ppo for token in measures.tokens] == pytest.approx(ppo.tolist(), abs=2e-4)
        assert [token.sft for token in measures.tokens] == pytest.approx(sft.tolist(), abs=2e-4)
        assert [token.log_ratio for token in measures.tokens] == pytest.approx((ppo - sft).tolist(), abs=2e-4)
        assert measures.log_ratio == pytest.approx(float((ppo - sft).sum()), abs=1e-3)
        assert measures.ended is ended
        whole = torch.tensor([asked.ids + ids])
        critic = AutoModelForSequenceClassification.from_pretrained(run / "ppo" / "value_model").eval()
        reward = AutoModelForSequenceClassification.from_pretrained(run / "reward").eval()
        with torch.no_grad():
            states = critic.score(critic.transformer(whole).last_hidden_state)[0, len(asked.ids) - 1 : -1, 0]
            score = reward(whole).logits[0, 0]
        assert [token.value for token in measures.tokens] == pytest.approx(states.tolist(), abs=2e-4)
        assert measures.score == pytest.approx(float(score), abs=2e-4)
    assert abs(found[0].log_ratio or 0) > 0.1, "these models do differ"


def test_a_model_against_itself_has_moved_nowhere(run: Path, parts: Any) -> None:
    models, judges = parts
    same = models.policies | {"ppo": models.policies["sft"]}
    untrained = type(models)(models.folder, models.experiment, models.tokenizer, same, {})
    (found,) = measure(untrained, judges, models.ask("Why?"), [([9, 20, 31], True)], temperature=1.0)
    assert found.log_ratio == 0.0
    assert {token.log_ratio for token in found.tokens} == {0.0}


def test_texts_of_tokens_make_up_the_text_of_the_whole(run: Path) -> None:
    tokenizer = load_tokenizer(str(run / "sft"))
    text = " Zürich 🙂 naïve\n\ttab  two spaces"
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    found = pieces(tokenizer, ids)
    assert "".join(found) == text + tokenizer.eos_token
    assert len(found) == len(ids)
    assert "" in found, "bytes of one character in several tokens"
    assert not any("\ufffd" in piece for piece in found)


def test_bytes_that_never_become_a_character_are_shown_for_what_they_are(run: Path) -> None:
    tokenizer = load_tokenizer(str(run / "sft"))
    ids = tokenizer("🙂")["input_ids"][:-1]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids) != ""


def test_the_same_seed_gives_the_same_answers_and_another_one_others(parts: Any) -> None:
    models = Models(*parts)
    asked = models.models.ask("Why?")

    def texts(seed: int, temperature: float = 1.0) -> list[str]:
        return [one.text for one in models.answers(asked, temperature=temperature, seed=seed)]

    assert texts(1) == texts(1) != texts(2)
    assert texts(1, 0.01) == texts(2, 0.01), "nearly greedy: the seed hardly matters"
    assert len(set(texts(1))) == 3


def test_each_model_answers_with_its_own_draws(parts: Any) -> None:
    """With shared draws, two models that hardly differ would say the same, and there would be nothing to compare."""
    models, judges = parts
    alike = type(models)(
        models.folder, models.experiment, models.tokenizer, dict.fromkeys(STAGES, models.policies["sft"]), {}
    )
    written = Models(alike, judges).answers(alike.ask("Why?"), temperature=1.0, seed=3)
    assert len({one.text for one in written}) == 3


def test_what_is_not_there_is_said_and_the_rest_goes_on(run: Path, tmp_path: Path) -> None:
    folder = small_run(tmp_path / "bare")
    (folder / "base" / "model.safetensors").unlink()
    (folder / "reward" / "config.json").unlink()
    (folder / "ppo" / "value_model" / "config.json").unlink()
    models = load_models(folder, tuple(STAGES))
    judges = load_judges(models)
    assert set(models.missing) == {"base"}
    assert set(judges.missing) == {"reward model", "critic"}
    (found,) = measure(models, judges, models.ask("Why?"), [([9, 20], True)], temperature=1.0)
    assert found.score is None
    assert {token.value for token in found.tokens} == {None}
    assert found.log_ratio is not None


def test_a_run_that_began_from_random_weights_has_no_base(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "random", "model.name_or_path=gpt2", "model.init=random")
    assert "model.init=random" in load_models(folder, tuple(STAGES)).missing["base"]


def test_a_question_that_is_too_long_keeps_its_end(parts: Any) -> None:
    models, _ = parts
    asked = models.ask("word " * 2000 + "the end?")
    assert len(asked.ids) == models.experiment.ppo.max_prompt_length
    assert models.tokenizer.decode(asked.ids).endswith("the end?\n")
    assert f"the models read the last {len(asked.ids)}" in asked.cut
    assert models.ask("short?").cut == ""
