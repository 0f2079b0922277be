"""Characters and tags of pictures with the ONNX graphs of a folder: onnxruntime, Pillow and numpy are all it needs.

    from onnx_tagger import OnnxTagger
    OnnxTagger(".")("picture.png", tags=["long_hair"])

`mfdn export` copies this file, pictures_mfdn.py and tag.py beside the graphs; `mfdn tag` and `mfdn serve` import it.
Pixels, scores and names are those of the PyTorch pipeline.
"""

import hashlib
import json
import os
import random
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

try:
    from ..pictures_mfdn import load_rgb, pad_to_square
except ImportError:  # a copy, beside the graphs
    from pictures_mfdn import load_rgb, pad_to_square

VARIANTS = ("", "int8", "fp16")
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
            raise FileNotFoundError(
                f"Expected a folder of mfdn export, {folder} has no preprocess.json (--layout wd is for others)."
            ) from error
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
        self.rows: dict[str, int] = {}  # characters that were taught → rows of means and counts
        self.thumbnails: list[bytes] = []
        self.weights: tuple[np.ndarray, ...] | None = None  # see `taught_log_odds`
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
    def taught(self) -> list[str]:
        """Names of the characters that were taught."""
        return list(self.rows)

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
            # Threads that wait for the next batch would turn in circles, on cores that decode it.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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

    def row(self, outputs: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
        """Outputs of one picture of several."""
        return {name: values[index : index + 1] for name, values in outputs.items()}

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
        if self.weights is None:
            spread = np.float32(self.axes["spread"])
            n = self.counts[:, None]
            shrunk, variance = n * spread / (n * spread + 1), 1 + spread / (n * spread + 1)
            rows = self.means * shrunk / variance
            narrower = 0.5 * (1 / (1 + spread) - 1 / variance)
            offset = 0.5 * (np.log(1 + spread) - np.log(variance)).sum(axis=1)
            self.weights = rows, narrower, offset - 0.5 * (rows * self.means * shrunk).sum(axis=1)
        rows, narrower, offset = self.weights
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
            pictures, ends = tensors["thumbnails"].tobytes(), [0, *tensors["thumbnail_ends"].tolist()]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{file}: this gallery is damaged ({error!r}).") from error
        is_right = means.shape == (len(names), self.means.shape[1]) and counts.shape == (len(set(names)),)
        if not is_right or not np.isfinite(means).all() or not (counts >= 1).all() or len(ends) != len(names) + 1:
            raise ValueError(f"{file}: this gallery is damaged: names, means and counts do not fit each other.")
        self.add(names, means, counts, [pictures[start:end] for start, end in zip(ends, ends[1:], strict=False)])
        return names

    def add(self, names: list[str], means: np.ndarray, counts: np.ndarray, thumbnails: list[bytes]) -> None:
        """Characters by their means [n, Z] of so many pictures; one that is known takes the pictures of both."""
        fresh = [row for row, name in enumerate(names) if name not in self.rows]
        for row, name in enumerate(names):
            if (mine := self.rows.get(name)) is not None:
                total = self.counts[mine] + counts[row]
                self.means[mine] = (self.means[mine] * self.counts[mine] + means[row] * counts[row]) / total
                self.counts[mine] = total
        self.rows |= {names[row]: len(self.rows) + i for i, row in enumerate(fresh)}
        self.means, self.counts = np.concatenate([self.means, means[fresh]]), np.append(self.counts, counts[fresh])
        self.thumbnails += [thumbnails[row] for row in fresh]
        self.weights = None

    def teach(self, name: str, picture_embeddings: np.ndarray) -> list[str]:
        """Teach a character, or add to one that was taught, by `picture_embedding` [n, Z] of its pictures. Returns
        what to tell the user. Raises ValueError where the model has no statistics."""
        if self.axes is None:
            raise ValueError(WITHOUT_STATISTICS)
        z = picture_embeddings
        said = [f"{name!r} was taught before: its pictures are added."] if name in self.rows else []
        self.add([name], z.mean(axis=0, keepdims=True), np.float32([len(z)]), [b""])
        return said

    def forget(self, name: str) -> None:
        """Raises ValueError where no character of that name was taught."""
        if name not in self.rows:
            raise ValueError(f"{name!r} was not taught, so it cannot be forgotten.")
        kept = [row for row in range(len(self.rows)) if row != self.rows[name]]
        self.rows = {other: row for row, other in enumerate(other for other in self.rows if other != name)}
        self.means, self.counts, self.weights = self.means[kept], self.counts[kept], None
        self.thumbnails = [self.thumbnails[row] for row in kept]

    def save_gallery(self, file: str | os.PathLike) -> None:
        """Write what it was taught as `mfdn teach` does: one safetensors file, whole or not at all."""
        ends = np.cumsum([len(thumbnail) for thumbnail in self.thumbnails], dtype=np.int64)
        arrays = {
            "counts": ("I32", self.counts.astype(np.int32)),
            "means": ("F16", self.means.astype(np.float16)),
            "thumbnail_ends": ("I64", ends),
            "thumbnails": ("U8", np.frombuffer(b"".join(self.thumbnails), np.uint8)),
        }
        names = json.dumps(self.taught, ensure_ascii=False)
        header: dict = {"__metadata__": {"format": GALLERY_FORMAT, "model": self.axes["model"], "names": names}}
        start = 0
        for name, (kind, values) in arrays.items():
            end = start + values.nbytes
            header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        unfinished = Path(file).with_name(f".{Path(file).name}.tmp")
        body = b"".join(values.tobytes() for _, values in arrays.values())
        unfinished.write_bytes(len(text).to_bytes(8, "little") + text + body)
        unfinished.replace(file)


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
