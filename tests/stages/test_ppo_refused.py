"""What PPO refuses, with what it got, what it needs and what to type."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from rlhf_lab import PPOConfig, PPOTrainer
from rlhf_lab.errors import UserError
from rlhf_lab.stages.ppo_setup import agree_on
from rlhf_lab.training.run import refuse_untested
from tests.tiny_ppo import (
    EOS,
    PAD,
    TOKENS,
    share_of_a,
    tiny_config,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("num_train_epochs", "total_episodes"),
        ("max_steps", "total_episodes"),
        ("response_length", "max_completion_length"),
        ("per_device_train_batch_size", "rollout_batch_size"),
        ("num_mini_batches", "minibatch_size"),
        ("cliprange", "clip_range"),
        ("lam", "gae_lambda"),
        ("init_kl_coef", "kl_coef"),
        ("ppo_epochs", "num_ppo_epochs"),
        ("dataloader_num_workers", "encoded once"),
        ("data_seed", "seed"),
        ("repetition_penalty", "distribution"),
        ("use_vllm", "generation_engine"),
    ],
)
def test_b39_f10_names_of_other_libraries_are_refused_with_the_name_here(old: str, words: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{old}': .*{words}"):
        PPOConfig(**{old: 1})


def test_every_new_name_that_is_advised_exists() -> None:
    from rlhf_lab.ppo_config import RENAMED

    assert not set(RENAMED) & set(PPOConfig.model_fields), "a name can not be both today's and yesterday's"


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("data_collator", "ids of your own go to generate"),
        ("reward_model", "pass reward_funcs"),
        ("tokenizer", "pass processing_class"),
        ("config", "pass args=PPOConfig"),
    ],
)
def test_b40_arguments_of_trls_trainer_are_refused_with_todays(tmp_path: Path, old: str, words: str) -> None:
    with pytest.raises(UserError, match=f"PPOTrainer has no argument '{old}': .*{words}"):
        PPOTrainer(tiny_policy(), share_of_a, PPOConfig(output_dir=str(tmp_path)), **{old: object()})
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        PPOTrainer(tiny_policy(), share_of_a, PPOConfig(output_dir=str(tmp_path)), colour=1)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_b20_b36_what_nobody_tested_is_refused_unless_asked_for(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator: Any = type("Accelerator", (), {"distributed_type": kind})
    with pytest.raises(UserError, match=f"configured for {kind.value}, which is not tested .* RLHF_LAB_UNTESTED=1"):
        refuse_untested(accelerator)
    monkeypatch.setenv("RLHF_LAB_UNTESTED", "1")
    refuse_untested(accelerator)


def test_f19_an_encoder_decoder_policy_is_refused(tmp_path: Path) -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(UserError, match="encoder-decoder model; PPO here needs a causal language model"):
        tiny_trainer(tmp_path, model)


def test_a_recurrent_policy_is_refused(tmp_path: Path) -> None:
    ids = {"vocab_size": len(TOKENS), "eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": PAD}
    model = MambaForCausalLM(MambaConfig(**ids, hidden_size=8, state_size=4, num_hidden_layers=1))
    with pytest.raises(UserError, match=r"MambaForCausalLM is recurrent: .* needs a model with attention"):
        tiny_trainer(tmp_path, model)


def test_f20_a_vision_language_policy_is_refused(tmp_path: Path) -> None:
    model = tiny_policy()
    model.config.vision_config = GPT2Config()
    with pytest.raises(UserError, match="reads images; PPO here needs a text-only causal language model"):
        tiny_trainer(tmp_path, model)


def test_a_reward_model_with_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 2 labels; needed: .* num_labels=1"):
        tiny_trainer(tmp_path, reward=GPT2ForSequenceClassification(tiny_config(num_labels=2, pad_token_id=PAD)))


def test_a_tokenizer_without_pad_and_eos_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(pad=None)
    tokenizer.eos_token = None
    model = tiny_policy()
    model.generation_config.eos_token_id = None
    with pytest.raises(UserError, match="no EOS token, so completions could not end; set eos_token"):
        tiny_trainer(tmp_path, model, arguments={"processing_class": tokenizer})


def test_a_reference_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    reference = tiny_policy(vocab_size=len(TOKENS) + 5)
    with pytest.raises(UserError, match="ref_model has a vocabulary of 15 tokens, the policy one of 10"):
        tiny_trainer(tmp_path, arguments={"ref_model": reference})


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=4).train()
    other = tiny_trainer(tmp_path, tiny_policy(n_embd=8), save_steps=4)
    with pytest.raises(UserError, match=r"checkpoint-4 was made with another model and reference.*model= is the model"):
        other.train(resume_from_checkpoint=True)


def test_processes_with_different_settings_are_refused() -> None:
    class Run:
        def gather_objects(self, mine: str) -> list[str]:
            return [mine, mine.replace('"kl_coef": 0.05', '"kl_coef": 0.1')]

    with pytest.raises(UserError, match=r"kl_coef is 0.05 on process 0 and 0.1 on 1"):
        agree_on(PPOConfig(), Run())  # type: ignore[arg-type]

    class Equal:
        def gather_objects(self, mine: str) -> list[str]:
            return [mine, mine]

    agree_on(PPOConfig(), Equal())  # type: ignore[arg-type]


def test_stop_tokens_are_ids_of_the_vocabulary(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, stop_tokens=[EOS, "c"])
    assert trainer.stops.token_ids == (EOS, 4)
    with pytest.raises(UserError, match="token 99 is no id of this tokenizer"):
        tiny_trainer(tmp_path, stop_tokens=[99])
    assert torch.is_tensor(trainer.generate([torch.tensor([3])])[0])


def test_a_smaller_reference_vocabulary_is_refused_too(tmp_path: Path) -> None:
    reference = tiny_policy(vocab_size=len(TOKENS))
    with pytest.raises(UserError, match="ref_model has a vocabulary of 10 tokens, the policy one of 12"):
        tiny_trainer(tmp_path, tiny_policy(vocab_size=12), arguments={"ref_model": reference})


@pytest.mark.parametrize("use", ["reward", "value_model"])
def test_a_folder_with_two_labels_says_so(tmp_path: Path, use: str) -> None:
    GPT2ForSequenceClassification(tiny_config(num_labels=2, pad_token_id=PAD)).save_pretrained(tmp_path / "two")
    tiny_tokenizer().save_pretrained(tmp_path / "two")
    folder = str(tmp_path / "two")
    given: dict[str, Any] = {"reward": folder} if use == "reward" else {"arguments": {"value_model": folder}}
    with pytest.raises(UserError, match="two has 2 labels; needed: one"):
        tiny_trainer(tmp_path / "run", **given)


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    """Its fresh head would be noise, and PPO would train on it."""
    tiny_policy().save_pretrained(tmp_path / "sft")
    tiny_tokenizer().save_pretrained(tmp_path / "sft")
    with pytest.raises(UserError, match="sft has no score head, so its scores would be random"):
        tiny_trainer(tmp_path / "run", reward=str(tmp_path / "sft"))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    many = tiny_tokenizer(tokens=[*TOKENS, *(f"w{number}" for number in range(500))])
    with pytest.raises(UserError, match="the tokenizer knows 510 tokens and GPT2LMHeadModel 10"):
        tiny_trainer(tmp_path, arguments={"processing_class": many})


def test_a_critic_or_reference_that_reads_less_is_refused_at_once(tmp_path: Path) -> None:
    for arguments, name in (
        ({"value_model": tiny_scalar_model(n_positions=8)}, "the critic"),
        ({"ref_model": tiny_policy(n_positions=8)}, "ref_model"),
    ):
        with pytest.raises(UserError, match=f"{name} reads 8; lower max_prompt_length"):
            tiny_trainer(tmp_path, arguments=arguments)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_kl": 6.0, "kl_coef": 0.0}, "kl_coef=0 stays 0"),
        ({"missing_eos_penalty": 1.0, "stop_tokens": []}, "missing_eos_penalty=0"),
        ({"critic_warmup_updates": 5}, "more than all 4 updates"),
        ({"eval_steps": 1}, "pass eval_dataset="),
        ({"stop_tokens": ["z"]}, "'z' is not in this tokenizer's vocabulary"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny_trainer(tmp_path, **settings)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train_dataset": [{"prompt": "a"}]}, r"train_dataset is a list; needed: a datasets\.Dataset"),
        ({"args": {"output_dir": "x"}}, r"args is a dict; pass args=PPOConfig\(\.\.\.\), .*PPOConfig\(\*\*args\)"),
        ({"peft_config": {"r": 4}}, r"pass LoraConfig\(\*\*peft_config\)"),
    ],
)
def test_arguments_of_a_near_type_say_what_to_pass(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PPOTrainer(tiny_policy(), share_of_a, processing_class=tiny_tokenizer(), **given)


def test_b38_the_critic_starts_from_a_reward_model_whose_pad_is_eos(tmp_path: Path) -> None:
    """GPT-2's tokenizers: both get a pad token of their own here, which the reward model's embeddings lack."""
    tokens = [token for token in TOKENS if token != "<pad>"]
    for name, model in (("sft", tiny_policy(vocab_size=9)), ("rm", tiny_scalar_model(seed=7, vocab_size=9))):
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer(pad="</s>", tokens=tokens).save_pretrained(tmp_path / name)
    trainer = tiny_trainer(
        tmp_path / "run",
        str(tmp_path / "sft"),
        str(tmp_path / "rm"),
        arguments={"processing_class": None, "value_model": None},
    )
    scores = GPT2ForSequenceClassification.from_pretrained(tmp_path / "rm").score.weight
    assert torch.equal(trainer.models.critic.score.weight, scores)
    trainer.train()


def test_a_reward_model_of_another_tokenizer_does_not_become_the_critic(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "sft")
    tiny_tokenizer().save_pretrained(tmp_path / "sft")
    tiny_scalar_model(seed=7, vocab_size=20).save_pretrained(tmp_path / "rm")
    tiny_tokenizer(tokens=["</s>", "<pad>", *"hgfedcba"]).save_pretrained(tmp_path / "rm")
    trainer = tiny_trainer(
        tmp_path / "run",
        str(tmp_path / "sft"),
        str(tmp_path / "rm"),
        arguments={"processing_class": None, "value_model": None},
    )
    assert trainer.models.critic.config.vocab_size == len(TOKENS)


def test_every_trainer_compares_the_settings_of_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(args: PPOConfig, run: Any) -> None:
        raise UserError(f"compared {args.kl_coef}")

    monkeypatch.setattr("rlhf_lab.stages.ppo.agree_on", refuse)
    with pytest.raises(UserError, match=r"compared 0\.3"):
        tiny_trainer(tmp_path, kl_coef=0.3)


def test_a_reward_model_that_reads_less_says_so(tmp_path: Path) -> None:
    short = tiny_scalar_model(n_positions=4)
    with pytest.raises(UserError, match=r"a text to score has \d+ tokens, and the reward model reads 4; lower"):
        tiny_trainer(tmp_path, reward=short).train()


def test_prompts_that_the_trainer_alone_cuts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_trainer(tmp_path, max_prompt_length=3).train()
    assert "8 prompts have more than 3 tokens; their start is cut" in capsys.readouterr().out
