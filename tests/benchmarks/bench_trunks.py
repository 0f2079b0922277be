"""What MFDN costs beside the ViT that it is made of: a training step (forward, backward, update) at real sizes.

    python tests/benchmarks/bench_trunks.py --output bench_trunks.json
    python tests/benchmarks/bench_trunks.py --device cuda --bf16 --batch_sizes 64 32 8 --output bench_trunks_gpu.json

The reference (1.00) is the plain ViT of the same trunk, with its character head. MFDN is measured at POINTS of the
curriculum (Eq. 7, held at 1 from half of the run on), whose mean stands for a whole run. All take turns within a
round; figures are medians of ratios. Memory is the peak of a process of its own that makes two steps.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_step import make_batch
from rounds import measure

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.data.hidden_tags import hide_tags
from modeling_mfdn.training.recipes import MODEL_SIZES
from modeling_mfdn.training.schedules import mask_ratio

POINTS = 4
SYSTEMS = {
    "ViT": {"modality": "image"},
    "MFDN": {},
    "MFDN, one tag query": {"single_tag_query": True},
}


class Training:
    """A model with its optimizer and a batch; a call is one step, each at the next point of the curriculum."""

    def __init__(self, system: str, args: argparse.Namespace, checkpointing: bool = False):
        sizes = {"num_tags": args.num_tags, "num_labels": args.num_labels, "image_size": args.image_size}
        self.config = MFDNConfig(**MODEL_SIZES[args.model_size] | sizes | SYSTEMS[system])
        self.model = MFDNModel(self.config).to(args.device).train()
        self.model.set_attn_implementation(args.attn_implementation)
        if checkpointing:
            self.model.gradient_checkpointing_enable()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        batch = make_batch(self.config, args.batch_size, args.tags_per_post)
        self.batch = {name: tensor.to(args.device) for name, tensor in batch.items()}
        self.ratios = [mask_ratio(2 * point + 1, 2 * POINTS) for point in range(POINTS)]
        self.autocast = torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16)
        self.is_cuda = torch.device(args.device).type == "cuda"
        if args.compile:
            self.model.compile()

    def step(self, ratio: float) -> None:
        batch = dict(self.batch)
        if self.config.modality == "image":
            del batch["input_ids"], batch["attention_mask"]
        else:
            batch["input_ids"], batch["tag_labels"] = hide_tags(batch["input_ids"], ratio, self.config)
        with self.autocast:
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.is_cuda:
            torch.cuda.synchronize()

    def __call__(self) -> None:
        """A step at every point."""
        for ratio in self.ratios:
            self.step(ratio)


def times(args: argparse.Namespace) -> dict:
    """Ratios to the ViT and milliseconds a picture, of one model size and image size."""
    trainings = {name: Training(name, args) for name in SYSTEMS}
    figures = measure(trainings, args.rounds)
    for entry in figures.values():
        entry["ms_a_picture"] = round(1000 * entry.pop("seconds") / POINTS / args.batch_size, 1)
    return figures


def memory(args: argparse.Namespace) -> float:
    """Peak memory in GB of a process that makes two steps with nothing hidden, the most that MFDN computes."""
    training = Training(args.system, args, args.checkpointing)
    for _ in range(2):
        training.step(0.0)
    if training.is_cuda:
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model_sizes", nargs="+", choices=list(MODEL_SIZES), default=["base", "large"])
    add("--image_sizes", nargs="+", type=int, default=[128, 224, 448])
    add("--num_tags", type=int, default=25_404, help="tag vocabulary (default: the paper's)")
    add("--num_labels", type=int, default=14_413, help="characters (default: the paper's)")
    add("--batch_sizes", nargs="+", type=int, default=[8, 4, 1], help="posts a step, of each image size")
    add("--tags_per_post", type=int, default=24, help="(default: 24, the paper's mean)")
    add("--rounds", type=int, default=2)
    add("--device", default="cpu")
    add("--bf16", action="store_true", help="autocast to bfloat16")
    add("--compile", action="store_true", help="torch.compile")
    add("--attn_implementation", default="sdpa")
    add("--no_memory", action="store_true", help="measure time alone")
    add("--output", help="write the figures to this JSON file; one that is there is added to")
    for name in ("--model_size", "--system", "--stage"):  # of a child
        add(name, help=argparse.SUPPRESS)
    for name in ("--image_size", "--batch_size"):
        add(name, type=int, help=argparse.SUPPRESS)
    add("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    return parser


def child(argv: list[str], *flags: str) -> dict | float:
    command = [sys.executable, __file__, *argv, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    if args.stage:
        torch.manual_seed(0)
        print(json.dumps(times(args) if args.stage == "times" else memory(args)))
        return
    if len(args.batch_sizes) != len(args.image_sizes):
        raise SystemExit(
            f"--batch_sizes {args.batch_sizes}: expected one for each of --image_sizes {args.image_sizes}."
        )
    path = Path(args.output) if args.output else None
    results = json.loads(path.read_text()) if path and path.is_file() else {}
    device = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    asked = ("num_tags", "num_labels", "tags_per_post", "bf16", "compile", "attn_implementation")
    results |= {"device": device, **{name: getattr(args, name) for name in asked}}
    sizes = results.setdefault("sizes", {})
    for model_size in args.model_sizes:
        for image_size, batch_size in zip(args.image_sizes, args.batch_sizes, strict=True):
            sizes_of_child = {"model_size": model_size, "image_size": image_size, "batch_size": batch_size}
            of_child = [word for name, value in sizes_of_child.items() for word in (f"--{name}", str(value))]
            figures = child(argv, *of_child, "--stage", "times")
            for system in [] if args.no_memory else ("ViT", "MFDN"):
                for name, flags in (("memory_gb", []), ("memory_gb_checkpointing", ["--checkpointing"])):
                    peak = child(argv, *of_child, "--stage", "memory", "--system", system, *flags)
                    figures[system][name] = round(peak, 2)
            sizes[f"{model_size} {image_size}"] = {"batch_size": batch_size, "rounds": args.rounds, "systems": figures}
            for system, entry in figures.items():
                print(f"{model_size} {image_size} {system}: {entry}", flush=True)
            if path:
                path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
