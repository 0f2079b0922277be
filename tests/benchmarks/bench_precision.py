"""What bfloat16 and the attention's implementation do to a training step, as ratios in one run.

    python tests/benchmarks/bench_precision.py --model_size tiny --output bench_precision.json

The reference (1.00) is float32 with sdpa, which is what `train_mfdn.py` does without further flags.
Variants take turns.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_step import make_batch, training_step
from rounds import report_steps

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.training.recipes import MODEL_SIZES

VARIANTS = ((False, "sdpa"), (False, "eager"), (True, "sdpa"), (True, "eager"))


def step(model: MFDNModel, batch: dict, bf16: bool, attention: str) -> None:
    model.set_attn_implementation(attention)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        training_step(model, batch, 0.5)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_size", choices=list(MODEL_SIZES), default="tiny")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = MFDNModel(MFDNConfig(**MODEL_SIZES[args.model_size], num_tags=793, num_labels=43)).train()
    batch = make_batch(model.config, args.batch_size, 24)
    steps = {
        f"{'bfloat16' if bf16 else 'float32'}, {attention}": lambda b=bf16, a=attention: step(model, batch, b, a)
        for bf16, attention in VARIANTS
    }
    return report_steps(args, steps, cpu=torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()
