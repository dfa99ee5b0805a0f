"""Experiments as data: what is refused says what to type, and what it says to type works."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from pydantic import ValidationError
from transformers import get_scheduler

from rlhf_lab.config import Experiment, Pretraining, config_folder, load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.section import Schedule

CONFIGS = sorted(path for path in config_folder().glob("*.yaml"))


def typed(error: UserError) -> list[str]:
    """The settings that an error text says to type."""
    return re.findall(r"([a-z_.]+=[0-9.]+)", str(error).split("type ", 1)[1])


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_load_without_a_file() -> None:
    experiment = Experiment()
    assert experiment.name == "assistant"
    assert experiment.is_embedded
    assert experiment.run_folder == Path("runs/assistant")


def test_no_config_means_the_embedded_default() -> None:
    assert load_experiment() == load_experiment("assistant") == load_experiment(config_folder() / "assistant.yaml")
    assert load_experiment() == load_experiment("assistant.yaml")
    assert load_experiment().ppo.max_completion_length == 20, "the file was not read"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    experiment = load_experiment(path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert experiment.name == given.get("name", "assistant")
    assert experiment.ppo.num_updates >= 1


def test_overrides_reach_every_level() -> None:
    settings = ["name=strict", "seed=7", "ppo.kl_coef=0.25", "model.pretraining.num_rows=3", "model.config.n_layer=1"]
    experiment = load_experiment(None, settings)
    assert (experiment.name, experiment.seed, experiment.ppo.kl_coef) == ("strict", 7, 0.25)
    assert experiment.model.pretraining.num_rows == 3
    assert experiment.model.config == {**load_experiment().model.config, "n_layer": 1}, "neighbours have to stay"
    assert experiment.model.pretraining.batch_size == load_experiment().model.pretraining.batch_size
    assert experiment.run_folder == Path("runs/strict")


def test_the_last_of_two_overrides_wins() -> None:
    assert load_experiment(None, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("setting", "field", "expected"),
    [
        ("ppo.learning_rate=5e-4", "learning_rate", 0.0005),
        ("ppo.learning_rate=1E-6", "learning_rate", 0.000001),
        ("ppo.target_kl=6", "target_kl", 6.0),
        ("ppo.value_clip_range=null", "value_clip_range", None),
        ("ppo.whiten_rewards=true", "whiten_rewards", True),
        ("ppo.stop_tokens=[13, '</s>']", "stop_tokens", [13, "</s>"]),
        ("ppo.report_to=[tensorboard]", "report_to", ["tensorboard"]),
    ],
)
def test_values_of_overrides_are_yaml_of_the_fields_type(setting: str, field: str, expected: Any) -> None:
    found = getattr(load_experiment(None, [setting]).ppo, field)
    assert found == expected
    assert type(found) is type(expected)


def test_numbers_in_exponent_form_are_numbers_in_the_models_own_fields_too() -> None:
    """YAML 1.1 reads 5e-4 as text; where a field has no declared type, nobody after us would mend it."""
    found = load_experiment(None, ["model.config.initializer_range=5e-4"]).model.config["initializer_range"]
    assert found == 0.0005
    assert isinstance(found, float)


def test_an_exponent_in_a_file_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, "ppo: {learning_rate: 5e-4}\nmodel: {config: {initializer_range: 2e-2}}\n")
    experiment = load_experiment(path)
    assert (experiment.ppo.learning_rate, experiment.model.config["initializer_range"]) == (0.0005, 0.02)


@pytest.mark.parametrize(
    ("setting", "wrong", "meant"),
    [
        ("sede=1", "sede", "seed"),
        ("ppo.kl_coeff=0.1", "kl_coeff", "kl_coef"),
        ("reward.num_epoch=1", "num_epoch", "num_epochs"),
        ("model.pretraining.num_row=1", "num_row", "num_rows"),
    ],
)
def test_an_unknown_key_says_what_was_probably_meant(setting: str, wrong: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{wrong}': did you mean '{meant}'"):
        load_experiment(None, [setting])


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown key 'zzz'; known here: num_prompts, temperature"):
        load_experiment(None, ["evaluation.zzz=1"])


@pytest.mark.parametrize("section", ["sft", "reward", "ppo"])
def test_a_schedule_that_is_not_known_lists_the_known_ones(section: str) -> None:
    with pytest.raises(UserError, match=r"lr_scheduler_type='cosin': .*'linear', 'cosine'"):
        load_experiment(None, [f"{section}.lr_scheduler_type=cosin"])


@pytest.mark.parametrize("name", get_args(Schedule))
def test_every_known_schedule_is_one_of_transformers_that_needs_no_settings(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=5)
    optimizer.step()
    schedule.step()
    assert 0 <= schedule.get_last_lr()[0] <= 1


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"(?s)kl_coef.*clip_range"):
        PPOConfig(kl_coef=-1, clip_range=0)


def test_an_error_names_section_key_and_value() -> None:
    with pytest.raises(UserError, match=r"ppo: kl_coef=-1: .*greater than or equal to 0"):
        load_experiment(None, ["ppo.kl_coef=-1"])


@pytest.mark.parametrize("value", [".nan", ".inf", "0", "-3e-6", "fast", "null"])
def test_a_learning_rate_that_can_not_work_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="learning_rate"):
        load_experiment(None, [f"ppo.learning_rate={value}"])


def test_configs_are_frozen() -> None:
    experiment = Experiment()
    with pytest.raises(ValidationError, match="frozen"):
        experiment.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        experiment.ppo.kl_coef = 0.0
    with pytest.raises(ValidationError, match="frozen"):
        experiment.model.pretraining.num_rows = 1


def test_defaults_are_not_shared_between_experiments() -> None:
    first = Experiment()
    first.model.config["n_layer"] = 99
    assert Experiment().model.config == {}


@pytest.mark.parametrize(
    ("section", "whole", "part"),
    [
        ("ppo", {"rollout_batch_size": 100, "total_episodes": 100}, {"minibatch_size": 48}),
        ("ppo", {"rollout_batch_size": 7, "total_episodes": 7}, {"minibatch_size": 5}),
        ("sft", {"batch_size": 30}, {"micro_batch_size": 16}),
        ("reward", {"batch_size": 48}, {"micro_batch_size": 64}),
    ],
)
def test_sizes_that_do_not_divide_say_what_to_type_and_it_works(
    section: str, whole: dict[str, int], part: dict[str, int]
) -> None:
    overrides = [f"{section}.{key}={value}" for key, value in {**whole, **part}.items()]
    with pytest.raises(UserError) as caught:
        load_experiment(None, overrides)
    ((name, got),) = part.items()
    assert f"{name}={got} does not divide" in str(caught.value)
    (advice,) = typed(caught.value)
    assert advice.split("=")[0].endswith(name)
    qualified = advice if "." in advice else f"{section}.{advice}"
    load_experiment(None, [*overrides, qualified])


def test_the_advised_size_is_the_largest_that_divides() -> None:
    with pytest.raises(UserError, match=r"minibatch_size=48 does not divide rollout_batch_size=100; type \S+=25$"):
        PPOConfig(rollout_batch_size=100, minibatch_size=48)


def test_fewer_episodes_than_one_rollout_are_refused_with_the_number_to_type() -> None:
    with pytest.raises(UserError, match="total_episodes=10 is less than one rollout of 16") as caught:
        PPOConfig(total_episodes=10, rollout_batch_size=16, minibatch_size=16)
    assert typed(caught.value) == ["total_episodes=16"]
    assert PPOConfig(total_episodes=16, rollout_batch_size=16, minibatch_size=16).num_updates == 1


def test_a_last_rollout_that_would_not_be_full_is_left_out() -> None:
    assert PPOConfig(total_episodes=50, rollout_batch_size=16, minibatch_size=8).num_updates == 3


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"top_k": 50}, "type top_k=0 top_p=1.0"),
        ({"top_p": 0.9}, "type top_k=0 top_p=1.0"),
        ({"min_p": 0.1}, "lower temperature instead"),
        ({"hub_model_id": "me/mine"}, "needs push_to_hub=true"),
        ({"untruncated_score": -1.0}, "need a truncate_token"),
    ],
)
def test_flags_that_are_not_honoured_are_refused(values: dict[str, Any], advice: str) -> None:
    with pytest.raises(UserError, match=re.escape(advice)):
        PPOConfig(**values)


@pytest.mark.parametrize("name", ["a/b", "../up", "/etc", "", ".", ".."])
def test_a_name_that_is_no_plain_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="plain folder name; type name=my_run"):
        Experiment(name=name)


def test_ppo_config_stands_alone() -> None:
    args = PPOConfig(output_dir="here", learning_rate=1e-5, rollout_batch_size=8, minibatch_size=4, total_episodes=8)
    assert (args.output_dir, args.num_updates, args.kl_estimator) == ("here", 1, "k1")
    with pytest.raises(UserError, match="did you mean 'clip_range'"):
        PPOConfig(clip_rnge=0.2)


def test_a_section_object_and_its_plain_values_are_the_same_experiment() -> None:
    assert Experiment(ppo=PPOConfig(kl_coef=0.3)) == Experiment(ppo={"kl_coef": 0.3})


def test_an_experiment_survives_its_own_config_file(tmp_path: Path) -> None:
    experiment = load_experiment(None, ["ppo.learning_rate=3e-6", "ppo.stop_tokens=[3, a]", "data.heldout=12"])
    path = written(tmp_path, yaml.safe_dump(experiment.model_dump(), sort_keys=False))
    assert load_experiment(path) == experiment


@pytest.mark.parametrize("text", ["ppo: [1", "ppo: {kl_coef: 0.1", "\tppo: 1", "a: b: c"])
def test_broken_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=r"mine\.yaml is not valid YAML"):
        load_experiment(path)


@pytest.mark.parametrize(("text", "kind"), [("- 1\n- 2\n", "list"), ("words\n", "str")])
def test_yaml_without_sections_says_what_it_holds(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(UserError, match=f"holds a {kind}; needed: sections such as `ppo:`"):
        load_experiment(written(tmp_path, text))


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_experiment(written(tmp_path, "")) == Experiment()


def test_keys_that_are_no_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key '2'"):
        load_experiment(written(tmp_path, "2: 3\n"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_experiment(path)


def test_a_missing_file_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"no config file 'asistant'; give the path of a YAML file or one of: .*assist"):
        load_experiment("asistant")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("=3", "type section.key=value, for example ppo.kl_coef=0.1"),
        ("ppo.kl_coef", "is no override; type section.key=value"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ("ppo.stop_tokens=[1", "the value is not valid YAML"),
    ],
)
def test_overrides_that_are_none_say_how_they_look(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_experiment(None, [setting])


def test_pretraining_knows_its_own_mistakes() -> None:
    with pytest.raises(UserError, match="num_rows=0"):
        Pretraining(num_rows=0)


@pytest.mark.parametrize("setting", ["ppo.seed=3", "ppo.output_dir=elsewhere"])
def test_what_the_experiment_decides_is_refused_in_the_section(setting: str) -> None:
    """It would be overwritten in silence."""
    with pytest.raises(UserError, match=r"seed=\.\.\. and runs_dir"):
        load_experiment("assistant", [setting])
    assert load_experiment("assistant", ["seed=3", "ppo.seed=3"]).seed == 3


def test_a_shared_base_can_not_score_while_it_samples() -> None:
    """Said before the first stage, not after hours, when PPO is set up."""
    with pytest.raises(UserError, match=r"overlap_chunks=2: with model.share_base=true .*type ppo.overlap_chunks=1"):
        load_experiment(overrides=["model.share_base=true", "ppo.overlap_chunks=2"])
