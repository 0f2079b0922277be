"""Tags pictures with the graphs of this folder: onnxruntime, Pillow and numpy are all it needs.

python tag.py PICTURE …     prints what is in each picture, as JSON
python tag.py FOLDER        writes PICTURE.txt beside every picture that has none
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from onnx_tagger import VARIANTS, OnnxTagger

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")


def caption(tagger: OnnxTagger, found: dict) -> str:
    """Characters, unless none of the known is likelier, and tags, with ", " between them."""
    is_unknown = tagger.axes is not None and found["unknown"] > 0.5
    known = [] if is_unknown else found["characters"]
    names = [entry["label"] for entry in known if entry["score"] >= tagger.character_threshold]
    return ", ".join([*names, *(entry["label"] for entry in found["tags"])])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", help="pictures, or folders of them")
    parser.add_argument("--variant", choices=VARIANTS[1:], default="", help="of the graphs; default float32")
    parser.add_argument("--tag_threshold", type=float, help="score in [0, 1]; default that of the model")
    args = parser.parse_args(argv)
    tagger, failed = OnnxTagger(Path(__file__).parent, args.variant), 0
    folders = [path for path in map(Path, args.pictures) if path.is_dir()]
    paths = [path for path in map(Path, args.pictures) if not path.is_dir()]
    beside = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    paths += [path for path in beside if not path.with_suffix(".txt").exists()]

    def read(path: Path):
        try:
            return tagger.pixels(path)
        except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
            return error

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), 16):
            chosen = paths[start : start + 16]
            pixels = dict(zip(chosen, pool.map(read, chosen), strict=True))
            for path in [path for path in chosen if isinstance(pixels[path], Exception)]:
                print(f"not done: {path}: {pixels.pop(path)}", file=sys.stderr)
                failed += 1
            outputs = tagger.run(np.stack([*pixels.values()])) if pixels else {}
            found = tagger.post_process(outputs, tag_threshold=args.tag_threshold) if pixels else []
            for path, result in zip(pixels, found, strict=True):
                if path in beside:
                    unfinished = path.with_name(f".{path.stem[:200]}.tmp")
                    unfinished.write_text(caption(tagger, result) + "\n", encoding="utf-8")
                    unfinished.replace(path.with_suffix(".txt"))
                else:
                    print(json.dumps({"file": str(path)} | result, ensure_ascii=False))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
