"""Generation engines against `model.generate`: the same work in one run, alternating, fixed length, random weights.

    python scripts/benchmark_generation.py                       4-layer models of widths 128 and 256, on this CPU
    python scripts/benchmark_generation.py --width 768 --layers 12 --vocab 50257 --batch 512 --prompt 64 --new 24

Prints one JSON object a width: seconds of every engine (median), milliseconds of a decode step, the ratio to
`generate`, and the step that arithmetic (measured matrix product) and memory traffic (measured copy) would allow.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.generation.stops import Stops
from rlhf_lab.models.language import use_fused_gelu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=8)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", nargs="+", default=["eager", "lean"])
    args = parser.parse_args()
    for width in args.width:
        print(json.dumps(measure(args, width)), flush=True)


def measure(args: argparse.Namespace, width: int) -> dict[str, object]:
    """All engines on one model; each round runs every engine once, so that a noisy minute hits all of them."""
    torch.manual_seed(0)
    sizes = {"n_layer": args.layers, "n_embd": width, "n_head": width // 32, "vocab_size": args.vocab}
    config = GPT2Config(**sizes, n_positions=args.prompt + args.new, bos_token_id=0, eos_token_id=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = GPT2LMHeadModel(config).eval().to(device)  # as transformers makes it
    ours = GPT2LMHeadModel(config).eval().to(device)
    ours.load_state_dict(plain.state_dict())
    use_fused_gelu(ours)
    prompts = torch.randint(1, args.vocab, (args.batch, args.prompt))
    runs: dict[str, Callable[[], object]] = {"generate": lambda: generate(plain, prompts.to(device), args.new)}
    uniforms = draw_uniforms(args.batch, args.new, seed=0, stream=0)
    for engine in args.engines:
        runs[engine] = lambda engine=engine: sample_completions(
            ours,
            prompts.tolist(),
            uniforms,
            temperature=1.0,
            stops=Stops(),
            pad_token_id=0,
            batch_size=args.batch,
            engine=engine,
        )
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name, run in runs.items():
            taken = timed(run)
            if number:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "width": width,
        "batch": args.batch,
        "prompt": args.prompt,
        "new_tokens": args.new,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "times_generate": {name: round(medians["generate"] / value, 2) for name, value in medians.items()},
        "milliseconds_a_step": {name: round(1e3 * value / args.new, 3) for name, value in medians.items()},
        "limit_milliseconds_a_step": limits(plain, args),
    }


@torch.no_grad()
def generate(model: GPT2LMHeadModel, ids: torch.Tensor, new: int) -> torch.Tensor:
    length = {"max_new_tokens": new, "min_new_tokens": new}
    mask = torch.ones_like(ids)
    return model.generate(ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0, pad_token_id=0, **length)


def timed(run: Callable[[], object]) -> float:
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def limits(model: GPT2LMHeadModel, args: argparse.Namespace) -> dict[str, float]:
    """What one decode step takes at the measured speed of a large matrix product, and of a large copy."""
    device = model.lm_head.weight.device
    square = torch.randn(2048, 2048, device=device)
    flops = 2 * 2048**3 / min(timed(lambda: square @ square) for _ in range(10))
    block = torch.empty(2**26, device=device)
    target = torch.empty_like(block)
    bandwidth = 2 * block.numel() * 4 / min(timed(lambda: target.copy_(block)) for _ in range(10))
    config = model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if "wpe" not in name)
    columns = args.prompt + args.new / 2
    attention = 4 * config.n_layer * config.n_embd * columns * args.batch
    cache = 2 * 4 * config.n_layer * config.n_embd * columns * args.batch
    return {
        "arithmetic": round(1e3 * (2 * weights * args.batch + attention) / flops, 4),
        "memory": round(1e3 * (4 * weights + cache) / bandwidth, 4),
    }


if __name__ == "__main__":
    main()
