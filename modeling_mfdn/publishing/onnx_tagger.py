"""Characters and tags of pictures with the ONNX graphs of a folder: onnxruntime, Pillow and numpy are all it needs.

    python tag.py PICTURE …     prints what is in each picture, as JSON
    python tag.py FOLDER        writes PICTURE.txt beside every picture that has none

    from tag import OnnxTagger
    OnnxTagger(".")("picture.png", tags=["long_hair"])

`mfdn export` copies this file, as tag.py, and pictures_mfdn.py beside the graphs; `mfdn tag` and `mfdn serve` import
it. Pixels, scores and names are those of the PyTorch pipeline.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

try:
    from ..pictures_mfdn import load_rgb, pad_to_square
except ImportError:  # a copy, beside the graphs
    from pictures_mfdn import load_rgb, pad_to_square

VARIANTS = ("", "int8", "fp16")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
GALLERY_FILE = "gallery.safetensors"
GALLERY_FORMAT = "mfdn-gallery-1"
TYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64, "U8": np.uint8}
MAX_HEADER = 2**27
WITHOUT_STATISTICS = "This model has no character statistics, which taught characters are told by."


class OnnxTagger:
    """Pictures → characters, tags and "unknown", as `pipeline("character-tagging")` says them.

    Args:
        folder: what `mfdn export` wrote.
        variant: "" the float32 graphs, "int8" or "fp16" where the export made them.
        threads: of onnxruntime; 0 = as many as there are cores.

    Raises:
        ValueError, OSError: a sentence that says which file is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike, variant: str = "", threads: int = 0):
        self.folder, self.suffix, self.threads = Path(folder), f"_{variant}" if variant else "", threads
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        try:
            settings = json.loads((self.folder / "preprocess.json").read_text(encoding="utf-8"))
            self.image_size, self.white_square = settings["image_size"], settings["white_square"]
            self.resample = FILTERS[settings["resample"]]
            self.characters, self.tags, self.ratings = (settings[name] for name in ("characters", "tags", "ratings"))
            self.activation, self.character_threshold = (
                settings[f"character_{name}"] for name in ("activation", "threshold")
            )
            self.tag_threshold, self.tag_thresholds = settings["tag_threshold"], settings["tag_thresholds"]
            self.axes, self.temperature = settings["axes"], settings["temperature_applied"]
            self.tokens = {name: settings[f"{name}_token_id"] for name in ("cls", "sep", "pad")}
            self.first_tag_id, self.max_tag_tokens = settings["num_special_tokens"], settings["max_tag_tokens"]
            scale = np.float32(1 / settings.get("rescale_factor", 1 / 255))
            self.mean, self.std = (np.float32(settings[name])[:, None, None] * scale for name in ("mean", "std"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"Expected a folder of mfdn export, {folder} has no preprocess.json.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.folder / 'preprocess.json'} is damaged ({error}): export the model again."
            ) from None
        if not (self.folder / f"model{self.suffix}.onnx").is_file():
            raise FileNotFoundError(
                f"{folder} holds no model{self.suffix}.onnx: export it with --{variant or 'overwrite'}."
            )
        self.takes_tags = (self.folder / f"model_with_tags{self.suffix}.onnx").is_file()
        self.tag_labels = {tag: label for label, tag in enumerate(self.tags)}
        self.taught: list[str] = []
        self.means, self.counts = (
            np.zeros((0, len(self.axes["spread"]) if self.axes else 0), np.float32),
            np.zeros(0, np.float32),
        )
        if self.axes and (self.folder / GALLERY_FILE).is_file():
            self.load_gallery(self.folder / GALLERY_FILE)

    @property
    def has_statistics(self) -> bool:
        """Whether it can be taught, and says "unknown" for more than a low score."""
        return self.axes is not None

    @property
    def described(self) -> str:
        return f"device: {self.session('model').get_providers()[0].removesuffix('ExecutionProvider').lower()}, ONNX"

    def fingerprint(self) -> str:
        """Of the graphs, their settings and what was taught."""
        digest = hashlib.sha256()
        for name in ("preprocess.json", f"model{self.suffix}.onnx", f"model_with_tags{self.suffix}.onnx"):
            if (self.folder / name).is_file():
                with (self.folder / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        digest.update(json.dumps(self.taught).encode() + self.means.tobytes() + self.counts.tobytes())
        return digest.hexdigest()

    @property
    def character_names(self) -> list[str]:
        """Of the characters that are known, trained and then taught."""
        return list(dict.fromkeys([*self.characters, *self.taught]))

    def pixels(self, picture: str | os.PathLike | bytes | Image.Image) -> np.ndarray:
        """float32 [3, S, S] of a file, its bytes, or a picture of Pillow. Raises what Pillow and load_rgb raise."""
        image = load_rgb(picture)
        image = pad_to_square(image) if self.white_square else image
        side = (self.image_size, self.image_size)
        image = image.resize(side, self.resample) if image.size != side else image
        return (np.asarray(image, np.float32).transpose(2, 0, 1) - self.mean) / self.std

    def session(self, name: str) -> onnxruntime.InferenceSession:
        """Of a graph, opened when it is first needed."""
        if name not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = self.threads
            path = self.folder / f"{name}{self.suffix}.onnx"
            wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
            providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
            try:
                self.sessions[name] = onnxruntime.InferenceSession(path, options, providers=providers)
            except Exception as error:  # onnxruntime has a type of its own for each reason
                raise ValueError(f"{path} cannot be opened ({' '.join(str(error).split())}).") from error
        return self.sessions[name]

    def run(self, pixel_values: np.ndarray, labels: list[list[int]] | None = None) -> dict[str, np.ndarray]:
        """Outputs of the graph by name, for pixels [B, 3, S, S] and, of each picture, the labels of known tags."""
        feed, name = {"pixel_values": pixel_values}, "model"
        if labels is not None and any(labels):
            name, shape = "model_with_tags", (len(labels), self.max_tag_tokens)
            feed["input_ids"] = ids = np.full(shape, self.tokens["pad"], np.int64)
            for row, given in zip(ids, labels, strict=True):
                tokens = [self.tokens["cls"], *(label + self.first_tag_id for label in given), self.tokens["sep"]]
                row[: len(tokens)] = tokens
            feed["attention_mask"] = (ids != self.tokens["pad"]).astype(np.int64)
        session = self.session(name)
        return dict(zip([entry.name for entry in session.get_outputs()], session.run(None, feed), strict=True))

    def given_labels(self, tags: list[str]) -> list[int]:
        """Labels of the known among a picture's tags, at most as many as the model reads; others with a warning.

        Raises ValueError: this model reads no tags.
        """
        found: dict[int, str] = {}
        for text in tags:
            tag = "_".join(text.lower().replace("_", " ").split())
            parts = [tag] if tag in self.tag_labels else [part.strip("_") for part in tag.split(",")]
            for part in filter(None, parts):
                if part in self.tag_labels:
                    found[self.tag_labels[part]] = part
                else:
                    warnings.warn(f"The model does not know the tag {part!r}, which is dropped.", stacklevel=3)
        if found and not self.takes_tags:
            raise ValueError(f"Tags {list(found.values())} were given, but this model takes pictures alone.")
        most = self.max_tag_tokens - 2
        if len(found) > most:
            warnings.warn(
                f"{len(found)} tags were given, the model sees {most} at most: as many are drawn.", stacklevel=3
            )
            ordered = sorted(label + self.first_tag_id for label in found)
            drawn = random.Random(" ".join(sorted(found.values()))).sample(ordered, most)  # as MFDNProcessor draws
            found = {label: tag for label, tag in found.items() if label + self.first_tag_id in set(drawn)}
        return list(found)

    def rank_characters(self, outputs: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of all characters [N], trained and then taught; scores [B, N]; how likely it is none of them [B]."""
        logits = outputs["logits"]
        is_softmax = self.activation == "softmax"
        scores = softmax(logits) if is_softmax else sigmoid(logits)
        if self.axes is None:
            return self.characters, scores, 1 - scores.max(axis=1)
        trained, taught = outputs["trained_log_odds"], self.taught_log_odds(outputs["picture_embedding"])
        all_odds = np.concatenate([trained[:, None], taught], axis=1)
        unknown = sigmoid(-np.logaddexp.reduce(all_odds, axis=1))
        if not self.taught:
            return self.characters, scores, unknown
        if is_softmax:
            with np.errstate(divide="ignore"):
                scores = softmax(np.concatenate([np.log(scores) + trained[:, None], taught], axis=1))
        else:
            scores = np.concatenate([scores, sigmoid(taught)], axis=1)
        names = self.character_names
        places = {name: place for place, name in enumerate(names)}
        joined = np.zeros((len(scores), len(names)), scores.dtype)
        for column, name in enumerate([*self.characters, *self.taught]):  # one that was trained and taught has one
            place, score = places[name], scores[:, column]
            joined[:, place] = joined[:, place] + score if is_softmax else np.maximum(joined[:, place], score)
        return names, joined, unknown

    def taught_log_odds(self, z: np.ndarray) -> np.ndarray:
        """[B, G] log-odds of each taught character, of pictures z [B, Z]; formulas as in gallery_mfdn.py."""
        spread = np.float32(self.axes["spread"])
        n = self.counts[:, None]
        shrunk, variance = n * spread / (n * spread + 1), 1 + spread / (n * spread + 1)
        rows = self.means * shrunk / variance
        narrower = 0.5 * (1 / (1 + spread) - 1 / variance)
        offset = 0.5 * (np.log(1 + spread) - np.log(variance)).sum(axis=1) - 0.5 * (rows * self.means * shrunk).sum(
            axis=1
        )
        likeness = z @ rows.T + z**2 @ narrower.T + offset
        return np.float32(self.axes["taught_bias"]) + np.float32(self.axes["taught_likeness"]) * likeness

    def post_process(
        self,
        outputs: dict[str, np.ndarray],
        given: list[list[int]] | None = None,
        top_k: int = 5,
        tag_threshold: float | None = None,
        max_tags: int | None = None,
    ) -> list[dict]:
        """For each picture `{"characters": [{"label", "score"}], "tags": [...], "unknown": p}`, best first, and
        "ratings" of a model that names them; without the tags that were given. As `MFDNProcessor.post_process`."""
        names, scores, unknown = self.rank_characters(outputs)
        tag_scores, ratings = outputs.get("tag_scores"), outputs.get("rating_scores")
        thresholds = np.float32(self.tag_thresholds or self.tag_threshold if tag_threshold is None else tag_threshold)
        results = []
        for row in range(len(scores)):
            best = np.argsort(-scores[row], kind="stable")[:top_k]
            found = {"characters": named(names, scores[row], best), "tags": [], "unknown": float(unknown[row])}
            if ratings is not None:
                found["ratings"] = named(self.ratings, ratings[row], np.argsort(-ratings[row], kind="stable"))
            if tag_scores is not None:
                is_named = tag_scores[row] >= thresholds
                is_named[given[row] if given else []] = False
                order = np.argsort(-tag_scores[row], kind="stable")
                found["tags"] = named(self.tags, tag_scores[row], order[is_named[order]][:max_tags])
            results.append(found)
        return results

    def __call__(self, pictures, tags=None, **options):
        """What is in a picture, or in each of a list of them; `tags` are known ones of each; `options` those of
        [`post_process`]."""
        is_one = not isinstance(pictures, list | tuple)
        pictures = [pictures] if is_one else list(pictures)
        tags = [tags or []] if is_one else tags or [[] for _ in pictures]
        given = [self.given_labels(row) for row in tags]
        found = self.post_process(self.run(np.stack([*map(self.pixels, pictures)]), given), given, **options)
        return found[0] if is_one else found

    def load_gallery(self, file: str | os.PathLike) -> list[str]:
        """Add the characters of a gallery that this model was taught. Returns their names.

        Raises ValueError: another model made it, it is no gallery, or damaged. Nothing is added then.
        """
        if self.axes is None:
            raise ValueError(WITHOUT_STATISTICS)
        tensors, metadata = read_safetensors(Path(file))
        if metadata.get("format") != GALLERY_FORMAT or metadata.get("model") != self.axes["model"]:
            raise ValueError(f"{file}: expected a gallery of this model, found one of another, or another file.")
        try:
            names = json.loads(metadata["names"])
            means, counts = tensors["means"].astype(np.float32), tensors["counts"].astype(np.float32)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{file}: this gallery is damaged ({error!r}).") from error
        is_right = means.shape == (len(names), self.means.shape[1]) and counts.shape == (len(set(names)),)
        if not is_right or not np.isfinite(means).all() or not (counts >= 1).all():
            raise ValueError(f"{file}: this gallery is damaged: names, means and counts do not fit each other.")
        for name, mean, count in zip(names, means, counts, strict=True):
            self.teach(name, mean[None], count)
        return names

    def teach(self, name: str, z: np.ndarray, count: float | None = None) -> None:
        """Teach a character, or add to one that was taught: `picture_embedding` z [n, Z] of its pictures, or the mean
        of `count` of them. Raises ValueError where the model has no statistics."""
        if self.axes is None:
            raise ValueError(WITHOUT_STATISTICS)
        mean, count = z.mean(axis=0), np.float32(len(z) if count is None else count)
        if name in self.taught:
            row = self.taught.index(name)
            total = self.counts[row] + count
            self.means[row] = (self.means[row] * self.counts[row] + mean * count) / total
            self.counts[row] = total
        else:
            self.taught.append(name)
            self.means, self.counts = np.concatenate([self.means, mean[None]]), np.append(self.counts, count)


def named(names: list[str], scores: np.ndarray, order: np.ndarray) -> list[dict]:
    return [{"label": names[label], "score": float(scores[label])} for label in order.tolist()]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def read_safetensors(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata: eight bytes that say how long the JSON is, the JSON, the numbers.

    Raises ValueError: it is none, or damaged.
    """
    try:
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        if start > min(MAX_HEADER, len(content)):
            raise ValueError("its header is longer than the file")
        header = json.loads(content[8:start])
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(content[first:last], TYPES[entry["dtype"]]).reshape(entry["shape"])
        return tensors, metadata
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{file}: no safetensors file, or damaged ({error}).") from error


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
