"""Models that share weights: a critic on the policy's trunk, and four adapters on one frozen base."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlhf_lab.errors import UserError
from rlhf_lab.models.adapters import REFERENCE, SharedBase, give_adapter, load_adapted_scalar, take_adapter
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores, shift_into_weights, token_values
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import (
    PAD,
    A,
    B,
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    tiny_policy,
    tiny_tokenizer,
    tiny_trainer,
    weights,
)

IDS = torch.tensor([[A, B, A, 5], [B, A, 6, 7]])
TEXTS = [[A, B, A], [B], [5, 6, 7, A]]


def lora(**fields: Any) -> LoraConfig:
    given = {"r": 2, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    return LoraConfig(**{**given, **fields})


def shake(model: torch.nn.Module, seed: int) -> None:
    """Adapters as training leaves them: not zero."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)


# --- a head on the policy's trunk --------------------------------------------------------------------------------


def shared_trunk(folder: Path, **settings: Any) -> Any:
    return tiny_trainer(folder, share_value_trunk=True, arguments={"value_model": None}, **settings)


def test_f06_a_shared_trunk_trains_both_and_holds_about_half_the_memory(tmp_path: Path) -> None:
    shared, separate = shared_trunk(tmp_path / "shared", vf_coef=1.0), tiny_trainer(tmp_path / "separate")

    def trained(trainer: Any) -> int:
        return sum(p.numel() for group in trainer.optimization.optimizer.param_groups for p in group["params"])

    assert trained(shared) < 0.55 * trained(separate)
    before = all_weights(shared)
    shared.train()
    after = all_weights(shared)
    assert not torch.equal(before["critic.score.weight"], after["critic.score.weight"])
    assert not torch.equal(before["transformer.wte.weight"], after["transformer.wte.weight"])
    explained = [line["val/explained_variance"] for line in read_metrics(tmp_path / "shared")]
    assert explained[-1] is not None


def test_f06_the_values_of_a_shared_trunk_are_its_head_on_the_last_hidden_state(tmp_path: Path) -> None:
    trainer = shared_trunk(tmp_path)
    torch.nn.init.normal_(trainer.models.critic.score.weight)
    rollout = first_rollout(trainer)
    row = int(rollout.completion_mask.sum(1).argmax())
    length, start = int(rollout.completion_mask[row].sum()), int(rollout.prompt_lengths[row]) - 1
    with torch.no_grad():
        hidden = trainer.models.policy.transformer(rollout.ids[row : row + 1]).last_hidden_state[0]
    expected = trainer.models.critic.score(hidden[start : start + length])[:, 0]
    assert torch.allclose(rollout.values[row, :length], expected, atol=1e-5)


def test_f06_a_shared_trunk_needs_one_forward_where_a_separate_critic_needs_two(tmp_path: Path) -> None:
    counts = {}
    for name, make in (("shared", shared_trunk), ("separate", tiny_trainer)):
        trainer = make(tmp_path / name, total_episodes=8)
        rollout = first_rollout(trainer)
        targets = trainer.estimate_targets(rollout)
        calls: list[str] = []
        for model in {trainer.models.policy, trainer.models.critic}:
            for module in model.modules():
                if type(module).__name__ == "GPT2Model":
                    module.register_forward_hook(lambda *args, calls=calls: calls.append("trunk"))
        trainer.step_on(rollout, targets, torch.arange(4))
        counts[name] = len(calls)
    assert counts == {"shared": 1, "separate": 2}


def test_f06_b14_a_shared_trunk_is_saved_resumed_and_loads_with_plain_transformers(tmp_path: Path) -> None:
    straight = shared_trunk(tmp_path / "straight")
    straight.train()
    shared_trunk(tmp_path / "cut", save_steps=2, total_episodes=32).train()
    for folder in (tmp_path / "cut").glob("checkpoint-4"):
        shutil.rmtree(folder)
    resumed = shared_trunk(tmp_path / "cut", save_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(all_weights(straight), all_weights(resumed)) == 0
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cut" / "checkpoint-4" / "value_model")
    policy = resumed.models.policy.eval()
    with torch.no_grad():
        expected = resumed.models.critic(policy.transformer(IDS).last_hidden_state)
        assert torch.allclose(token_values(critic.eval(), IDS), expected, atol=1e-5)


def test_f25_critic_warm_up_on_a_shared_trunk_moves_the_head_only(tmp_path: Path) -> None:
    trainer = shared_trunk(tmp_path, critic_warmup_updates=4)
    before = all_weights(trainer)
    trainer.train()
    after = all_weights(trainer)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["critic.score.weight"]


def test_a_value_model_beside_a_shared_trunk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes the critic a head on the policy; leave value_model out"):
        tiny_trainer(tmp_path, share_value_trunk=True)


# --- adapters ----------------------------------------------------------------------------------------------------


def test_f26_the_reference_of_a_trained_adapter_is_a_clone_not_a_second_base(tmp_path: Path) -> None:
    policy = get_peft_model(tiny_policy(), lora())
    shake(policy, seed=4)
    trainer = tiny_trainer(tmp_path, policy)
    assert trainer.models.frozen is None
    assert set(trainer.models.policy.peft_config) == {"default", REFERENCE}
    assert all(p.requires_grad == (".default." in name) for name, p in policy.named_parameters() if "lora_" in name)


def test_f26_a_named_adapter_is_the_reference(tmp_path: Path) -> None:
    policy = get_peft_model(tiny_policy(), lora())
    policy.add_adapter(REFERENCE, lora())
    shake(policy, seed=4)  # draws other numbers for the two adapters
    trainer = tiny_trainer(tmp_path, policy)
    with torch.no_grad():
        of_policy = policy(IDS).logits
        policy.set_adapter(REFERENCE)
        expected = policy(IDS).logits
        policy.set_adapter("default")
        with trainer.models.reference() as reference:
            assert torch.allclose(reference(IDS).logits, expected, atol=1e-6)
        assert torch.equal(policy(IDS).logits, of_policy), "the policy's own adapter is on again"
    assert not torch.allclose(of_policy, expected, atol=1e-2)


def test_an_adapter_of_any_name_is_saved_where_plain_transformers_looks(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    policy = get_peft_model(base, lora(), adapter_name="mine")
    shake(policy, seed=4)
    trainer = tiny_trainer(tmp_path / "run", policy)
    trainer.save_model()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run").eval()
    with torch.no_grad():
        assert torch.allclose(loaded(IDS).logits, policy(IDS).logits, atol=1e-5)


@pytest.fixture
def adapters(tmp_path: Path) -> dict[str, Path]:
    """Folders of a base, a policy's adapter and a reward model's adapter with its head."""
    tiny_policy().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora())
    shake(policy, seed=4)
    policy.save_pretrained(tmp_path / "policy")
    scalar = load_scalar_model(tmp_path / "base", tiny_tokenizer())
    give_adapter(scalar, tmp_path / "policy")
    shake(scalar, seed=5)
    scalar.config.score_shift = 0.75
    take_adapter(scalar, tmp_path / "reward")
    return {name: tmp_path / name for name in ("base", "policy", "reward")}


def shared_of(adapters: dict[str, Path]) -> SharedBase:
    return SharedBase.load(
        adapters["base"], tiny_tokenizer(), policy=adapters["policy"], reward_model=adapters["reward"]
    )


def shared_trainer(folder: Path, adapters: dict[str, Path], **settings: Any) -> Any:
    shared = shared_of(adapters)
    return tiny_trainer(
        folder, shared.policy, shared.reward_model, arguments={"value_model": shared.critic}, **settings
    )


def test_share_base_keeps_one_base_for_four_models(adapters: dict[str, Path], tmp_path: Path) -> None:
    shared = shared_of(adapters)
    bases = {p.data_ptr() for n, p in shared.policy.named_parameters() if "lora_" not in n}
    size = sum(p.numel() for p in tiny_policy().parameters())
    assert sum(p.numel() for n, p in shared.policy.named_parameters() if "lora_" not in n) == size
    trainer = shared_trainer(tmp_path / "run", adapters)
    models = trainer.models
    everything = {
        p.data_ptr(): p.numel()
        for module in (models.policy, models.critic, models.frozen, trainer.scorers[0].model)
        if module is not None
        for n, p in module.named_parameters()
        if "lora_" not in n and "score" not in n
    }
    assert sum(everything.values()) == size
    assert len(everything) == len(bases)
    assert f"one base of {size:,} parameters" in shared.memory()


def test_share_base_models_are_those_of_their_adapters(adapters: dict[str, Path]) -> None:
    shared = shared_of(adapters)
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(adapters["base"]), adapters["policy"]).eval()
    scalar = load_scalar_model(adapters["base"], tiny_tokenizer())
    give_adapter(scalar, adapters["policy"])
    with torch.no_grad():
        assert torch.allclose(shared.policy.eval()(IDS).logits, alone(IDS).logits, atol=1e-5)
    plain = tiny_reward_of(adapters)
    assert torch.allclose(sequence_scores(shared.reward_model, TEXTS), sequence_scores(plain, TEXTS), atol=1e-5)
    assert torch.allclose(token_values(shared.critic, IDS), token_values(plain, IDS), atol=1e-5)


def test_share_base_a_saved_critic_reads_the_same_on_a_base_of_its_own(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    shared = shared_of(adapters)
    torch.manual_seed(6)
    for parameter in (*shared.critic.adapter_parameters(), shared.critic.score.weight):
        torch.nn.init.normal_(parameter, std=0.3)
    shared.critic.config.score_shift = -0.25
    shared.critic.save_pretrained(tmp_path / "value_model")
    alone = load_adapted_scalar(load_scalar_model(adapters["base"], tiny_tokenizer()), tmp_path / "value_model")
    with torch.no_grad():
        expected = token_values(shared.critic, IDS)
        assert torch.allclose(token_values(alone, IDS), expected, atol=1e-5)
        assert not torch.allclose(token_values(shared.reward_model, IDS), expected, atol=1e-2)


def tiny_reward_of(adapters: dict[str, Path]) -> Any:
    """The reward model as a plain model: base, merged adapter, head, shift."""
    scalar = load_scalar_model(adapters["base"], tiny_tokenizer())
    give_adapter(scalar, adapters["policy"])
    shake(scalar, seed=5)
    from safetensors.torch import load_file

    from rlhf_lab.models.adapters import HEAD

    scalar.score.weight.data.copy_(load_file(adapters["reward"] / HEAD)["weight"])
    scalar.config.score_shift = 0.75
    merged = take_adapter(scalar, adapters["reward"].parent / "again")
    before = sequence_scores(merged, TEXTS)
    shift_into_weights(merged)
    assert merged.config.score_shift == 0.0
    assert torch.allclose(sequence_scores(merged, TEXTS), before, atol=1e-5), "plain transformers knows the shift"
    return merged


def test_share_base_trains_policy_and_critic_and_nothing_else(adapters: dict[str, Path], tmp_path: Path) -> None:
    trainer = shared_trainer(tmp_path / "run", adapters)
    scores = sequence_scores(trainer.scorers[0].model, TEXTS)
    before = all_weights(trainer)
    trainer.train()
    after = all_weights(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".default." in n or ".critic." in n or n == "critic.score.weight" for n in moved)
    assert any(".default." in name for name in moved)
    assert any(".critic." in name for name in moved)
    assert torch.equal(sequence_scores(trainer.scorers[0].model, TEXTS), scores)
    first = metrics_of(tmp_path / "run")[0]
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-5)


def test_share_base_equals_four_models(adapters: dict[str, Path], tmp_path: Path) -> None:
    """Policy and reference as PEFT models of their own, reward model and critic as merged ones, all alike."""
    policy = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(adapters["base"]), adapters["policy"], is_trainable=True
    )
    reward = tiny_reward_of(adapters)
    settings = {"critic_warmup_updates": 0, "total_episodes": 8, "learning_rate": 1e-25}
    tiny_trainer(tmp_path / "four", policy, reward, arguments={"value_model": None}, **settings).train()
    shared_trainer(tmp_path / "one", adapters, **settings).train()
    one, four = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "four")
    for line in (*one, *four):  # the critic of four is trained whole, and reward models are called after their folder
        for name in [n for n in line if n == "grad_norm" or n.startswith("rewards/")]:
            del line[name]
    assert largest_metric_difference(one, four) < 1e-5


def test_share_base_resumes_exactly(adapters: dict[str, Path], tmp_path: Path) -> None:
    straight = shared_trainer(tmp_path / "straight", adapters)
    straight.train()
    shared_trainer(tmp_path / "cut", adapters, save_steps=2, save_total_limit=5).train()
    resumed = shared_trainer(tmp_path / "again", adapters)
    resumed.train(resume_from_checkpoint=tmp_path / "cut" / "checkpoint-2")
    assert largest_difference(all_weights(straight), all_weights(resumed)) == 0


def test_share_base_warm_up_leaves_the_policys_adapter(adapters: dict[str, Path], tmp_path: Path) -> None:
    trainer = shared_trainer(tmp_path / "run", adapters, critic_warmup_updates=4)
    before = all_weights(trainer)
    trainer.train()
    after = all_weights(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(".default." in name for name in moved)


def test_share_base_with_gradient_checkpointing_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"type gradient_checkpointing=false, or model.share_base=false"):
        shared_trainer(tmp_path / "run", adapters, gradient_checkpointing=True)


def test_share_base_with_torch_compile_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"type torch_compile=false, or model.share_base=false"):
        shared_trainer(tmp_path / "run", adapters, torch_compile=True)


def test_a_policy_without_trained_weights_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    policy = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(adapters["base"]), adapters["policy"])
    with pytest.raises(UserError, match=r"no weights that are trained; load its adapter with .*is_trainable=True"):
        tiny_trainer(tmp_path / "run", policy)


# --- a quantised base --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_f05_a_quantised_base_trains_its_adapters(tmp_path: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 10, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": PAD}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=32)).save_pretrained(tmp_path / "base")

    def quantised() -> Any:
        config = BitsAndBytesConfig(**{bits: True})
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=config)

    adapters = {"peft_config": LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")}
    if bits == "load_in_4bit" and not torch.cuda.is_available():
        with pytest.raises(UserError, match="passes no gradient through those on a CPU: nothing would be learnt"):
            tiny_trainer(tmp_path / "run", quantised(), arguments=adapters)
        return
    trainer = tiny_trainer(tmp_path / "run", quantised(), arguments=adapters)
    before = weights(trainer.models.policy)
    trainer.train()
    after = weights(trainer.models.policy)
    assert all("lora_" in name for name, p in trainer.models.policy.named_parameters() if p.requires_grad)
    assert any("lora_" in name for name in before if not torch.equal(before[name], after[name]))
    assert metrics_of(tmp_path / "run")[0]["objective/kl"] == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(UserError, match="a quantised policy can not be trained itself; pass peft_config=LoraConfig"):
        tiny_trainer(tmp_path / "full", quantised())


def test_share_base_can_not_score_while_the_policy_samples(adapters: dict[str, Path], tmp_path: Path) -> None:
    """Both would switch the adapters of one base."""
    with pytest.raises(UserError, match=r"overlap_chunks=2 needs a reward model with layers of its own.*=1"):
        shared_trainer(tmp_path / "run", adapters, overlap_chunks=2)
