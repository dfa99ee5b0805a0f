"""Speed of PPO on random models, alone or beside TRL 1.12.0, the last release with a PPO of its own.

    python scripts/benchmark_ppo.py                         4-layer, 256-wide GPT-2 on this CPU
    python scripts/benchmark_ppo.py --stops                 the same, stopping after a third of the width
    python scripts/benchmark_ppo.py --bf16                  the same in bf16, for a CPU that multiplies it
    python scripts/benchmark_ppo.py --preset gpt2_124m      one GPU, bf16
    python scripts/benchmark_ppo.py --overlap 4             beside the same, scored while more is sampled
    python scripts/benchmark_ppo.py --overlap 4 --waits 5   with one more reward function, as slow as a server
    pip install --no-deps --target trl112 trl==1.12.0
    python scripts/benchmark_ppo.py --baseline trl112       TRL in its own process, on the same models, alternating

Each measurement is a process of its own that makes `--updates` updates after one that warms up; both sides take one
optimizer step an epoch, fixed length unless `--stops`, temperature 1, separate critic and reward model, no evaluation
or saving. Ours also clips gradients. Prints one JSON object: episodes and tokens a second (medians over all updates),
seconds of phases, peak memory, the share of the measured matrix product's speed, and the ratio.
"""

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES = ("layers", "width", "heads", "vocab", "batch", "prompt", "new", "micro")
PRESETS: dict[str, dict[str, int]] = {
    "cpu": dict(zip(SHAPES, (4, 256, 8, 1000, 64, 8, 32, 32), strict=True)),
    "gpt2_124m": dict(zip(SHAPES, (12, 768, 12, 50257, 512, 64, 24, 128), strict=True)),
}
EPOCHS, EOS, PAD = 4, 0, 1
BIAS = 20.0
STOP_RATE = 0.1  # of the average state at every token; completions of 32 then end after a third, as measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--baseline", metavar="DIR", help="folder that holds trl 1.12.0")
    parser.add_argument("--stops", action="store_true", help="a policy that ends its completions by EOS")
    parser.add_argument("--bf16", action="store_true", help="both in bf16, TRL's default; a GPU preset always is")
    parser.add_argument("--micro", type=int, help="rows that ours takes at once (default: the preset's); TRL takes all")
    parser.add_argument("--batch", type=int, help="rows of a rollout and of a step (default: the preset's)")
    parser.add_argument("--overlap", type=int, metavar="CHUNKS", help="beside it, ours with ppo.overlap_chunks=CHUNKS")
    parser.add_argument("--waits", type=float, default=0.0, help="ms a completion that one more reward function waits")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    PRESETS[args.preset] |= {"batch": args.batch} if args.batch else {}
    if args.waits and args.baseline:
        parser.error("--waits is for --overlap: TRL 1.12.0 takes no function beside its reward model")
    if args.worker:
        print("RESULT " + json.dumps(WORKERS[args.worker](args, Path(args.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_models(args, Path(folder))
        sides = ["ours", *(["overlapped"] if args.overlap else []), *(["trl"] if args.baseline else [])]
        measured: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side in sides:
                measured[side].append(in_own_process(args, side, folder))
        print(json.dumps(summary(args, measured), indent=2))


def make_models(args: argparse.Namespace, folder: Path) -> None:
    """Policy, reward model and tokenizer, so that both sides start from the same weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

    size = PRESETS[args.preset]
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=size["layers"],
        n_embd=size["width"],
        n_head=size["heads"],
        vocab_size=size["vocab"],
        n_positions=size["prompt"] + size["new"],
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        num_labels=1,
    )
    policy = GPT2LMHeadModel(config)
    if args.stops:  # along the last norm's bias EOS has the logit that makes its probability STOP_RATE
        with torch.no_grad():
            direction = torch.nn.functional.normalize(torch.randn(size["width"]), dim=0)
            policy.transformer.ln_f.bias.copy_(BIAS * direction)  # far above what the states vary along it
            others = policy.transformer.wte.weight[EOS + 1 :] @ policy.transformer.ln_f.bias
            logit = math.log(STOP_RATE / (1 - STOP_RATE)) + float(others.logsumexp(0))
            policy.transformer.wte.weight[EOS] = logit / BIAS * direction
    policy.save_pretrained(folder / "policy")
    GPT2ForSequenceClassification(config).save_pretrained(folder / "reward")
    # Special tokens are found inside words, too: "t1" would be found in "t17".
    words = {"<eos>": EOS, "<pad>": PAD, **{f"t{number}": number for number in range(2, size["vocab"])}}
    plain = Tokenizer(models.WordLevel(words, unk_token="t2"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", pad_token="<pad>")
    for name in ("policy", "reward"):
        tokenizer.save_pretrained(folder / name)


def in_bf16(args: argparse.Namespace) -> bool:
    return args.bf16 or args.preset != "cpu"


def prompts(args: argparse.Namespace) -> list[list[int]]:
    import random

    size, rng = PRESETS[args.preset], random.Random(0)
    number = size["batch"] * (args.updates + 1)
    return [[rng.randrange(2, size["vocab"]) for _ in range(size["prompt"])] for _ in range(number)]


def in_own_process(args: argparse.Namespace, side: str, folder: str) -> dict[str, Any]:
    """Start this file again as a worker. TRL 1.12.0 comes first on its path, our current TRL on ours."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    first = [str(Path(args.baseline).resolve())] if side == "trl" else []
    command = [sys.executable, __file__, "--worker", side, "--folder", folder, "--preset", args.preset]
    command += ["--updates", str(args.updates), *(["--stops"] if args.stops else [])]
    command += ["--micro", str(args.micro)] if args.micro else []
    command += ["--batch", str(args.batch)] if args.batch else []
    command += ["--bf16"] if args.bf16 else []
    command += ["--waits", str(args.waits)] if args.waits else []
    command += ["--overlap", str(args.overlap)] if args.overlap else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*first, *paths]), "HF_HUB_OFFLINE": "1"}
    if in_bf16(args):
        environment["ACCELERATE_MIXED_PRECISION"] = "bf16"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"the {side} side failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(lines[0].removeprefix("RESULT ")))


def run_ours(args: argparse.Namespace, folder: Path, chunks: int = 1) -> dict[str, Any]:
    """PPOTrainer of this package."""
    from datasets import Dataset

    from rlhf_lab import PPOConfig, PPOTrainer
    from rlhf_lab.training.records import read_metrics

    size = PRESETS[args.preset]
    texts = [" ".join(f"t{token}" for token in row) for row in prompts(args)]
    config = PPOConfig(
        output_dir=str(folder / "ours"),
        total_episodes=size["batch"] * (args.updates + 1),
        rollout_batch_size=size["batch"],
        minibatch_size=size["batch"],
        micro_batch_size=args.micro or size["micro"],
        num_ppo_epochs=EPOCHS,
        max_prompt_length=size["prompt"],
        max_completion_length=size["new"],
        stop_tokens=None if args.stops else [],
        bf16=in_bf16(args),
        overlap_chunks=chunks,
    )

    def server(completions: list[str], **others: Any) -> list[float]:
        time.sleep(len(completions) * args.waits / 1000)
        return [0.0] * len(completions)

    sources = [str(folder / "reward"), *([server] if args.waits else [])]
    trainer = PPOTrainer(str(folder / "policy"), sources, config, train_dataset=Dataset.from_dict({"prompt": texts}))
    start = memory()
    trainer.train()
    lines = read_metrics(folder / "ours")[1:]
    return {
        "seconds": [line["rollout_seconds"] + line["update_seconds"] for line in lines],
        "rollout_seconds": statistics.median(line["rollout_seconds"] for line in lines),
        "update_seconds": statistics.median(line["update_seconds"] for line in lines),
        "length": statistics.mean(line["completion_length"] for line in lines),
        **peak(start),
    }


def run_trl(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """PPOTrainer of trl 1.12.0."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    size = PRESETS[args.preset]
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    config = PPOConfig(
        output_dir=str(folder / "trl"),
        total_episodes=size["batch"] * (args.updates + 1),
        per_device_train_batch_size=size["batch"],
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        response_length=size["new"],
        stop_token="eos" if args.stops else None,
        temperature=1.0,
        num_sample_generations=0,
        learning_rate=3e-6,
        bf16=in_bf16(args),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    dtype = torch.float32
    scalar = [AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=dtype) for _ in range(2)]
    policies = [AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=dtype) for _ in range(2)]
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policies[0],
        ref_model=policies[1],
        reward_model=scalar[0],
        value_model=scalar[1],
        train_dataset=Dataset.from_dict({"input_ids": prompts(args)}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts(args)[:1]}),
    )
    times = [time.perf_counter()]
    log = trainer.log

    def note(metrics: dict[str, float], *rest: Any, **named: Any) -> None:
        if "objective/kl" in metrics:  # once an update
            times.append(time.perf_counter())
        log(metrics, *rest, **named)

    trainer.log = note
    start = memory()
    trainer.train()
    seconds = [after - before for before, after in itertools.pairwise(times[1:])]
    return {"seconds": seconds, **peak(start)}


def run_overlapped(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same, each chunk of a rollout scored while the next is sampled."""
    return run_ours(args, folder, args.overlap)


WORKERS = {"ours": run_ours, "overlapped": run_overlapped, "trl": run_trl}


def memory() -> float:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(start: float) -> dict[str, float]:
    import torch

    found = {"peak_megabytes": memory(), "peak_megabytes_above_loaded_models": memory() - start}
    if torch.cuda.is_available():
        found["peak_gpu_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def summary(args: argparse.Namespace, measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over all updates of all rounds, and ratios of them."""
    size = PRESETS[args.preset]
    seconds = {
        side: statistics.median(taken for run in runs for taken in run["seconds"]) for side, runs in measured.items()
    }
    length = statistics.mean(run["length"] for run in measured["ours"])
    report: dict[str, Any] = {
        "preset": args.preset,
        **size,
        "epochs": EPOCHS,
        "bf16": in_bf16(args),
        "mean_completion": round(length, 2),
    }
    report["device"] = device()
    for side, runs in measured.items():
        report[side] = {
            "episodes_per_second": round(size["batch"] / seconds[side], 2),
            "tokens_per_second": round(size["batch"] * length / seconds[side], 1),
            **{key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0] if _is_shown(key)},
        }
    if not args.stops:
        share = arithmetic(size) / seconds["ours"] / matrix_product(args)
        report["ours"]["share_of_matrix_product"] = round(share, 3)
    if "overlapped" in measured:
        report["times_without_overlap"] = round(seconds["ours"] / seconds["overlapped"], 2)
    if "trl" in measured:
        report["times_trl"] = round(seconds["trl"] / seconds["ours"], 2)
        for key in (key for key in measured["trl"][0] if key.startswith("peak")):
            report[f"{key}_of_trl"] = round(report["ours"][key] / max(1e-9, report["trl"][key]), 2)
    return report


def _is_shown(key: str) -> bool:
    return key.startswith("peak") or key.endswith("_seconds")


def arithmetic(size: dict[str, int]) -> float:
    """Floating point operations of one update: 2 a weight and token forward, 4 backward; heads on completions only."""
    tokens = size["batch"] * (size["prompt"] + size["new"])
    trunk = 12 * size["layers"] * size["width"] ** 2
    head = size["width"] * size["vocab"]
    completions = size["batch"] * size["new"]
    # forward: sampling, policy, reference, critic, reward model; both ways: policy and critic in every epoch
    trunks = 2 * tokens * trunk * 5 + 6 * tokens * trunk * 2 * EPOCHS
    heads = 2 * completions * head * 3 + 6 * completions * head * EPOCHS
    return float(trunks + heads)


def matrix_product(args: argparse.Namespace) -> float:
    """Measured floating point operations a second of a large matrix product."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if in_bf16(args) else torch.float32
    square = torch.randn(
        4096 if device == "cuda" else 2048, 4096 if device == "cuda" else 2048, device=device, dtype=dtype
    )
    best = math.inf
    for _ in range(10):
        started = time.perf_counter()
        product = square @ square
        float(product[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2.0 * square.shape[0] ** 3 / best


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
