"""A trained model as ONNX: `model.onnx` (picture alone) and `model_with_tags.onnx` (picture and hints).

    mfdn export --model mfdn --output mfdn_onnx
    mfdn export --model mfdn --output mfdn_onnx --int8 --fp16 --dataset danmul
    python mfdn_onnx/tag.py PICTURES

Inputs: `pixel_values` float32 [B, 3, S, S], RGB, normalised, a picture on a white square (preprocess.json says how);
with tags also `input_ids`, `attention_mask` int64 [B, T] as of MFDNProcessor. Outputs: `logits` [B, C], divided by the
fitted temperature, so that softmax, or sigmoid where `character_activation` says so, gives scores; `tag_scores` [B, K]
in [0, 1], of tags that were given too; `rating_scores` of a model that names ratings; `picture_embedding` [B, Z] in
the axes of the model's character statistics, and `trained_log_odds` [B] that some trained character is there; without
statistics [B, 2D] as the model gives it, and no log-odds. B is free. What was taught lies beside them as
gallery.safetensors.
Both graphs are compared with PyTorch before anything is written. `tag.py` beside them needs no PyTorch.

`selected_tags.csv` has the columns that front ends of WD taggers read; for those `--layout wd` is, see wd_layout.py.
"""

import copy
import csv
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from .. import MFDNProcessor, pictures_mfdn
from ..data.lists import VOCABULARY_FILE, read_vocabulary
from ..gallery_mfdn import GALLERY_FILE
from ..processing_mfdn import aggregate_tag_scores
from ..training.files import check_room, replace_folder
from ..training.tag_tokenizer import CHARACTER, GENERAL, RATING, TAG_LIST
from ..training.terminal import check_model_name
from .cards import plain, read_json

SAMPLES = "samples"  # of a model that was trained on drawings of ours: pictures to try on the page
MARKER = "onnx.json"  # what every folder of this command holds
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3, 8)
MAX_BYTES = 2**31 - 2**24  # of one file: protobuf's limit, less room for the graph
AXES_KEYS = ("taught_bias", "taught_likeness", "odd_likeness")
FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers: those that the page can resize with
SIZES = {"int8": 0.25, "fp16": 0.5}  # of the variants, as a share of the graph
README = """# {title}, as ONNX
`pip install onnxruntime pillow numpy` is all it needs. `python tag.py PICTURE` prints what is in a picture,
`python tag.py FOLDER` writes PICTURE.txt beside every picture, `--variant int8` takes smaller graphs.
In Python: `from onnx_tagger import OnnxTagger; OnnxTagger(".")("picture.png", tags=["{tag}"])`.
For captions of every kind, a page to review them and a server: `mfdn tag FOLDER --model THIS_FOLDER`.
"""


class Graph(nn.Module):
    """The model followed by the aggregation of its tags.

    (pixel_values, input_ids, attention_mask) → what `output_names` says.
    """

    def __init__(self, model: PreTrainedModel, processor: MFDNProcessor, with_tags: bool):
        super().__init__()
        self.model, self.with_tags = copy.copy(model), with_tags  # the copy shares all weights
        self.method, self.temperature = processor.tag_aggregation, processor.temperature
        self.character_scores = processor.character_scores
        self.statistics = processor.gallery.statistics if processor.gallery is not None else None
        if not with_tags and model.config.modality == "image+tags":
            with torch.no_grad():  # the text branch has nothing to read: its two states are a constant of the graph
                self.register_buffer("no_tags", model.no_tags_states(model.device).clone())
            self.model.no_tags_states = lambda *_, **__: self.no_tags

    def forward(self, pixel_values: torch.Tensor, input_ids=None, attention_mask=None):
        config = self.model.config
        tags = {"input_ids": input_ids, "attention_mask": attention_mask} if self.with_tags else {}
        outputs = self.model(pixel_values=pixel_values, return_tag_logits=config.predicts_tags, **tags)
        found = [outputs.logits / self.temperature]
        if config.predicts_tags:
            hidden_slots = None
            if self.with_tags:  # the slot of a given tag is no prediction
                hidden_slots = ~((input_ids >= config.num_special_tokens) & attention_mask.bool())[:, 1:-1]
            found.append(aggregate_tag_scores(outputs.tag_logits, self.method, config.max_tags, hidden_slots))
        if outputs.rating_logits is not None:
            found.append(outputs.rating_logits.sigmoid())
        if self.statistics is None:
            return (*found, outputs.picture_embedding)
        z = self.statistics.axes(outputs.picture_embedding)
        return (*found, z, self.statistics.trained_log_odds(z, self.character_scores(outputs.logits)))


def example_inputs(model: PreTrainedModel, batch_size: int, with_tags: bool) -> tuple[torch.Tensor, ...]:
    """Noise for pictures; posts with every number of tags from 0 to T - 2."""
    config = model.config
    generator = torch.Generator().manual_seed(batch_size)
    pixels = torch.randn(batch_size, config.num_channels, config.image_size, config.image_size, generator=generator)
    if not with_tags:
        return (pixels,)
    input_ids = torch.full((batch_size, config.max_tag_tokens), config.pad_token_id)
    input_ids[:, 0] = config.cls_token_id
    for row in range(batch_size):
        number = min((row * 5) % (config.max_tags + 1), config.num_tags)
        drawn = torch.randperm(config.num_tags, generator=generator)[:number]
        input_ids[row, 1 : number + 1] = drawn + config.num_special_tokens
        input_ids[row, number + 1] = config.sep_token_id
    return pixels, input_ids, (input_ids != config.pad_token_id).long()


def export_graph(module: Graph, model: PreTrainedModel, path: Path) -> None:
    """One ONNX file; weights beside it as NAME.data if they would not fit into it."""
    with_tags = module.with_tags
    names = ["pixel_values", "input_ids", "attention_mask"][: 3 if with_tags else 1]
    batch = torch.export.Dim("batch_size", min=1, max=4096)
    size = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    torch.onnx.export(
        module.eval(),
        example_inputs(model, 2, with_tags),
        path,
        dynamo=True,
        input_names=names,
        output_names=output_names(model, module.statistics is not None),
        dynamic_shapes=[{0: batch} for _ in names],
        external_data=size > MAX_BYTES,
        verbose=False,
    )


def output_names(model: PreTrainedModel, has_statistics: bool) -> list[str]:
    """Of its graphs."""
    has_ratings = bool(getattr(model.config, "rating_names", None))
    names = [
        "logits",
        *(["tag_scores"] * model.config.predicts_tags),
        *(["rating_scores"] * has_ratings),
        "picture_embedding",
    ]
    return [*names, *(["trained_log_odds"] * has_statistics)]


def open_graph(path: Path):
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # beside PyTorch's own threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_graph(session, inputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.from_numpy(values) for values in session.run(None, feed)]


def largest_difference(model: PreTrainedModel, processor: MFDNProcessor, session, with_tags: bool) -> float:
    """Largest difference of logits (at temperature 1), scores and embedding to `model` and `processor` themselves, as
    a share of the largest number of each where that is above 1."""
    largest = 0.0
    for batch_size in CHECKED_BATCHES:
        inputs = example_inputs(model, batch_size, with_tags)
        with torch.no_grad():
            outputs = model(**dict(zip(("pixel_values", "input_ids", "attention_mask"), inputs, strict=False)))
        wanted = [outputs.logits]
        if outputs.tag_logits is not None:
            given = None
            if with_tags:
                tokens = [processor.tokenizer.convert_ids_to_tokens(row.tolist(), True) for row in inputs[1]]
                given = tokens if any(tokens) else None
            wanted.append(processor.tag_scores(outputs.tag_logits, given)[0])
        if outputs.rating_logits is not None:
            wanted.append(outputs.rating_logits.sigmoid())
        embedding = outputs.picture_embedding
        if processor.gallery is not None:
            statistics = processor.gallery.statistics
            embedding = statistics.axes(embedding)
            wanted += [embedding, statistics.trained_log_odds(embedding, processor.character_scores(outputs.logits))]
        else:
            wanted.append(embedding)
        found = run_graph(session, inputs)
        found[0] = found[0] * processor.temperature
        for one, other in zip(found, wanted, strict=True):
            scale = other.abs().max().clamp(min=1)  # an embedding's axes have no unit
            largest = max(largest, ((one - other).abs().max() / scale).item())
    return largest


def accuracy_of_graph(
    session, model: PreTrainedModel, processor: MFDNProcessor, dataset: str, split: str
) -> dict[str, float]:
    """Top-1 accuracy on a split; with tags if the graph takes them."""
    from torch.utils.data import DataLoader

    from ..data.collator import MFDNCollator
    from ..data.dataset import load_split, read_characters

    rows = load_split(dataset, split)
    if read_characters(rows) != [model.config.id2label[label] for label in range(model.config.num_labels)]:
        raise ValueError(f"{dataset} has other characters than the model: measure on the data set it was trained on.")
    options = {"tags": processor.tag_names, "image_processor": processor.image_processor}
    collator = MFDNCollator(model.config, training=False, **options)
    loader = DataLoader(rows, batch_size=32, collate_fn=collator)
    hits = 0
    for batch in loader:
        inputs = [batch["pixel_values"]]
        if len(session.get_inputs()) > 1:
            inputs += [batch["input_ids"], batch["attention_mask"]]
        hits += int((run_graph(session, inputs)[0].argmax(dim=1) == batch["labels"]).sum())
    return {"top1_accuracy": hits / len(rows), "images": len(rows)}


def read_counts(model_folder: str, dataset: str | None) -> dict[str, int]:
    """Posts of each tag and character: of the data set, or as training wrote them beside the model; {} of neither."""
    found = read_vocabulary(dataset) if dataset else read_json(Path(model_folder, VOCABULARY_FILE))
    characters = {name: entry["posts"] for name, entry in found.get("characters", {}).items()}
    return characters | found.get("tags", {})


def write_tag_table(path: Path, rows: Iterable[tuple[str, int]], counts: dict[str, int]) -> None:
    """selected_tags.csv: tag_id, name, category (0 general, 4 character, 9 rating), count; in the order of `rows`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, name, category, counts.get(name, 0)] for i, (name, category) in enumerate(rows))


def export(model_folder: str, output: Path, variants: Iterable[str], dataset: str | None, split: str) -> dict:
    """All files into an empty folder. Returns what onnx.json says."""
    model, processor = load_model(model_folder)
    config = model.config
    modules = {"model": Graph(model, processor, with_tags=False)}
    if config.modality == "image+tags":
        modules["model_with_tags"] = Graph(model, processor, with_tags=True)
    share = 1 + sum(SIZES[variant] for variant in variants)
    check_room(output, int(model.get_memory_footprint() * len(modules) * share))
    report: dict = {"tolerance": TOLERANCE, "graphs": {}}
    for name, module in modules.items():
        path = output / f"{name}.onnx"
        export_graph(module, model, path)
        entry: dict = {}
        for file in [path, *(smaller(path, variant) for variant in variants)]:
            session = open_graph(file)
            difference = largest_difference(model, processor, session, name != "model")
            if file == path and difference > TOLERANCE:
                raise ValueError(f"The graph differs from PyTorch by {difference:.1e}, allowed is {TOLERANCE:.0e}.")
            size = sum(part.stat().st_size for part in output.glob(f"{file.name}*"))
            entry[file.stem] = {"bytes": size, "largest_difference": difference}
            if dataset:
                entry[file.stem] |= accuracy_of_graph(session, model, processor, dataset, split) | {"split": split}
                change = entry[file.stem]["top1_accuracy"] - entry[path.stem]["top1_accuracy"]
                entry[file.stem] |= {"top1_accuracy_change": change} if file != path else {}
        report["graphs"][name] = entry
    tags, characters = processor.tag_names, [config.id2label[label] for label in range(config.num_labels)]
    counts = read_counts(model_folder, dataset)
    rows = [(tag, GENERAL) for tag in tags] + [(name, CHARACTER) for name in characters]
    write_tag_table(output / TAG_LIST, [*rows, *((name, RATING) for name in processor.ratings or ())], counts)
    if processor.gallery is not None and processor.gallery.names:
        processor.gallery.save(output / GALLERY_FILE)
    settings = describe_preprocessing(processor, config)
    (output / "preprocess.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    (output / MARKER).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for source, target in (("tag_alone.py", "tag.py"), ("onnx_tagger.py", "onnx_tagger.py")):
        shutil.copyfile(Path(__file__).with_name(source), output / target)
    shutil.copyfile(pictures_mfdn.__file__, output / "pictures_mfdn.py")
    readme = README.format(title=plain(Path(model_folder).name), tag=plain(tags[0]) if tags else "long_hair")
    (output / "README.md").write_text(readme, encoding="utf-8")
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", VOCABULARY_FILE):
        if Path(model_folder, name).exists():
            shutil.copy(Path(model_folder, name), output / name)
    if Path(model_folder, SAMPLES).is_dir():
        shutil.copytree(Path(model_folder, SAMPLES), output / SAMPLES)
    return report


def load_model(folder: str) -> tuple[PreTrainedModel, MFDNProcessor]:
    """Raises ValueError, OSError: there is none, or its pictures are resized in a way that only PyTorch knows."""
    model = AutoModelForImageClassification.from_pretrained(check_model_name(folder)).eval()
    processor = MFDNProcessor.from_pretrained(folder)
    processor.check_gallery(model)
    if processor.image_processor.resample not in FILTERS:
        raise ValueError(
            f"Expected an image processor that resizes with one of {FILTERS}, found resample="
            f"{processor.image_processor.resample!r}: train with one of them."
        )
    return model, processor


def describe_preprocessing(processor: MFDNProcessor, config: PreTrainedConfig) -> dict:
    """preprocess.json: all that stands between a picture and the graph, and between its scores and names."""
    image_processor = processor.image_processor
    settings = {
        "image_size": config.image_size,
        "rescale_factor": image_processor.rescale_factor,
        "mean": list(image_processor.image_mean),
        "std": list(image_processor.image_std),
        "white_square": image_processor.do_pad,
        "resample": FILTERS[image_processor.resample],
        "characters": [config.id2label[label] for label in range(config.num_labels)],
        "tags": processor.tag_names,
        "ratings": processor.ratings or [],
        "character_activation": processor.character_activation,
        "character_threshold": processor.character_threshold,
        "num_special_tokens": config.num_special_tokens,
        "cls_token_id": config.cls_token_id,
        "sep_token_id": config.sep_token_id,
        "pad_token_id": config.pad_token_id,
        "max_tag_tokens": config.max_tag_tokens,
        "max_tags": config.max_tags,
        "tag_threshold": processor.tag_threshold,
        "tag_thresholds": processor.tag_thresholds,
        "temperature_applied": processor.temperature,
        "axes": None,
    }
    if processor.gallery is not None:
        statistics = processor.gallery.statistics
        fitted = {name: getattr(statistics.calibration, name) for name in AXES_KEYS}
        settings["axes"] = {"model": statistics.fingerprint, "spread": statistics.spread.tolist()} | fitted
    return settings


def smaller(path: Path, variant: str) -> Path:
    """The graph with int8 weights, or in half precision with inputs and outputs as they were, beside it."""
    target = path.with_name(f"{path.stem}_{variant}.onnx")
    is_large = path.with_name(f"{path.name}.data").exists()
    if variant == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(path, target, weight_type=QuantType.QInt8, use_external_data_format=is_large)
        return target
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(path), keep_io_types=True, disable_shape_infer=is_large)
    onnx.save(half, target, save_as_external_data=is_large, location=f"{target.name}.data")
    return target


def export_folder(output: str, overwrite: bool, write: Callable[[Path], dict]) -> None:
    """Export a model into a folder that appears whole, and print what was compared and measured."""
    with replace_folder(output, MARKER, overwrite) as unfinished:
        report = write(unfinished)
    print(json.dumps(report["graphs"], indent=2))
    print(f"Written: {output}/")
