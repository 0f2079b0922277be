"""Whether programs that run WD taggers read `mfdn export --layout wd` as it is, and say what the pipeline says.

    python -m venv imgutils && imgutils/bin/pip install dghs-imgutils onnxruntime "numpy<2"
    python -m venv wd14 && wd14/bin/pip install wd14-tagger-api "numpy<2"
    python tests/benchmarks/compare_wd_clients.py --model mfdn --pictures mini_booru/512px \
        --imgutils imgutils/bin/python --wd14_tagger_api wd14/bin/python --output compare_wd_clients.json

Both are unchanged, and load SmilingWolf's repositories from a Hub on 127.0.0.1 that holds our files under these names.
They see every picture twice: as it is, which they resize by their own filters, and at the size of the model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from hub_server import Repository, running_hub  # noqa: E402
from transformers import AutoModelForImageClassification  # noqa: E402

from modeling_mfdn import MFDNPipeline, MFDNProcessor  # noqa: E402
from modeling_mfdn.pictures_mfdn import load_rgb, pad_to_square  # noqa: E402
from modeling_mfdn.publishing.onnx_export import export_folder  # noqa: E402
from modeling_mfdn.publishing.wd_layout import export_wd  # noqa: E402
from modeling_mfdn.tagging.picture_folder import find_pictures  # noqa: E402

CLIENTS = {
    "imgutils": """
import importlib.metadata, json, sys
from imgutils.tagging import get_wd14_tags
said = {}
for path in sys.argv[1:]:
    rating, general, character = get_wd14_tags(path, model_name="ViT_v3", general_threshold=-1, character_threshold=-1)
    said[path] = {**general, **character}
print(json.dumps([importlib.metadata.version("dghs-imgutils"), said]))
""",
    "wd14_tagger_api": """
import importlib.metadata, json, sys
from wd14_tagger_api.wd14_tagger import ImageTagger
tagger = ImageTagger("wd-v1-4-moat-tagger.v2", threshold=-1, device="cpu")
said = {path: {tag: float(score) for tag, score in tagger.image_interrogate(path).items()} for path in sys.argv[1:]}
print(json.dumps([importlib.metadata.version("wd14-tagger-api"), said]))
""",
}


def scores_of_pipeline(tagger: MFDNPipeline, path: str) -> dict[str, float]:
    """All scores of a picture by name."""
    found = tagger(path, top_k=len(tagger.processor.character_names), tag_threshold=0.0)
    return {row["label"]: row["score"] for kind in ("tags", "characters") for row in found[kind]}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--number", type=int, default=20)
    for client in CLIENTS:
        parser.add_argument(f"--{client}", help="the Python of an environment that has it")
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    model = AutoModelForImageClassification.from_pretrained(args.model).eval()
    tagger = MFDNPipeline(model=model, processor=MFDNProcessor.from_pretrained(args.model))
    results: dict = {"model": Path(args.model).name, "onnxruntime": version("onnxruntime"), "clients": {}}
    with tempfile.TemporaryDirectory() as work, running_hub() as hub:
        folders = {name: Path(work, name) for name in ("plain", "embeddings")}
        for name, folder in folders.items():
            with_embedding = name == "embeddings"
            export_folder(str(folder), False, lambda out, flag=with_embedding: export_wd(args.model, out, None, flag))
        files = {name: {path.name: path.read_bytes() for path in folder.iterdir()} for name, folder in folders.items()}
        v3, moat = "SmilingWolf/wd-vit-tagger-v3", "SmilingWolf/wd-v1-4-moat-tagger-v2"
        uploads = {
            v3: files["plain"],
            moat: files["plain"],
            "deepghs/wd14_tagger_with_embeddings": {f"{v3}/model.onnx": files["embeddings"]["model.onnx"]},
        }
        for name, content in uploads.items():
            hub.repositories["model", name] = Repository()
            hub.repositories["model", name].commit(content)
        paths = find_pictures(Path(args.pictures), True)[0]
        paths = paths[:: max(1, len(paths) // args.number)][: args.number]
        small = []
        for number, path in enumerate(paths):
            size = model.config.image_size
            image = pad_to_square(load_rgb(path)).resize((size, size), tagger.processor.image_processor.resample)
            small.append(str(Path(work, f"{number}.png")))
            image.save(small[-1])
        kinds = {"as_they_are": [str(path.resolve()) for path in paths], "at_the_size_of_the_model": small}
        wanted = {path: scores_of_pipeline(tagger, path) for kind in kinds.values() for path in kind}
        for client, program in CLIENTS.items():
            if not (python := getattr(args, client)):
                continue
            environment = {"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url, "HF_HOME": str(Path(work, client))}
            command = [python, "-c", program, *wanted]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=work)
            if done.returncode:
                raise RuntimeError(f"{client} failed:\n{done.stderr[-3000:]}")
            number, said = json.loads(done.stdout.splitlines()[-1])
            figures = {"version": number, "pictures": len(paths)}
            for kind, chosen in kinds.items():
                differences = [
                    abs(score - wanted[path][name]) for path in chosen for name, score in said[path].items()
                ]
                figures[kind] = {"scores": len(differences), "largest_difference": max(differences)}
            results["clients"][client] = figures
            print(client, json.dumps(figures))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
