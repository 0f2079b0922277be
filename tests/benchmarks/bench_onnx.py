"""Latency of the ONNX graphs against PyTorch, on the CPU: a ratio in one run.

    mfdn export --model mfdn --output mfdn_onnx --int8 --fp16
    python tests/benchmarks/bench_onnx.py --model mfdn --onnx mfdn_onnx --output bench_onnx.json

The reference (1.00) is PyTorch with as many threads. Variants take turns; figures are medians.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from rounds import measure
from transformers import AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).parents[2]))

import modeling_mfdn  # noqa: F401, E402  registers the model
from modeling_mfdn.publishing.onnx_export import example_inputs, open_graph, run_graph  # noqa: E402


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    model = AutoModelForImageClassification.from_pretrained(args.model).eval()
    results: dict = {"threads": torch.get_num_threads(), "graphs": {}}
    for graph in ("model", "model_with_tags"):
        for batch_size in args.batch_sizes:
            inputs = example_inputs(model, batch_size, graph != "model")
            variants = {"PyTorch": lambda inputs=inputs: run_model(model, inputs)}
            for suffix in ("", "_int8", "_fp16"):
                name = f"{graph}{suffix}"
                if Path(args.onnx, f"{name}.onnx").exists():
                    session = open_graph(Path(args.onnx, f"{name}.onnx"))
                    title = f"ONNX {suffix[1:]}".strip()
                    variants[title] = lambda session=session, inputs=inputs: run_graph(session, inputs)
            results["graphs"][f"{graph}, batch of {batch_size}"] = measure(variants, args.rounds)
    for title, values in results["graphs"].items():
        row = "   ".join(f"{name} {v['ratio']:.2f} ({1000 * v['seconds']:.1f} ms)" for name, v in values.items())
        print(f"{title}: {row}")
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


@torch.inference_mode()
def run_model(model, inputs):
    return model(**dict(zip(("pixel_values", "input_ids", "attention_mask"), inputs, strict=False)))


if __name__ == "__main__":
    main()
