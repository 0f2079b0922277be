"""The model card and the files beside it, from what training and evaluation left in the folder and nothing else.

train_mfdn.py and evaluate_mfdn.py write the card by themselves. A README.md of your own is left alone.
"""

import json
import re
from collections import Counter
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from safetensors import safe_open

from ..data.lists import VOCABULARY_FILE
from ..evaluation.metrics import TAG_GROUPS
from ..gallery_mfdn import GALLERY_FILE, STATISTICS_FILE
from ..training.files import write_whole

TEMPLATE = Path(__file__).with_name("model_card.md")
MARKER = "<!-- Written by modeling_mfdn.publishing.cards from files. Remove this line to keep your own text. -->"
MAX_LISTED = 2_000  # characters that a card names
MAX_TEXT = 1_000  # characters of anything that is not ours
REQUIREMENTS = "transformers>=5.18,<6\ntorch>=2.10\ntorchvision>=0.25\npillow>=11\n"
MODEL_TYPES = {
    "mfdn": "MFDN",
    "mfdn-multi-label": "a plain multi-label classifier, which MFDN is compared with",
    "mfdn-label2label": "Label2Label, which MFDN is compared with",
}
MODALITIES = {"image": "image", "image+tags": "image + tags"}
METRICS = {"top1_accuracy": "top-1", "top5_accuracy": "top-5", "macro_top1_accuracy": "macro top-1"}


def write_hub_files(folder: str | Path, model_id: str | None = None, dataset_id: str | None = None) -> bool:
    """Write what [`hub_files`] makes into the folder.

    Returns:
        False if README.md is somebody's own, which is left alone; the other files are written anyway.
    """
    files = hub_files(folder, model_id, dataset_id)
    for name, text in files.items():
        Path(folder, name).parent.mkdir(exist_ok=True)
        write_whole(Path(folder, name), text)
    return "README.md" in files


def hub_files(folder: str | Path, model_id: str | None = None, dataset_id: str | None = None) -> dict[str, str]:
    """README.md, .eval_results/, handler.py and requirements.txt of a saved model, by name; README.md is left out
    where there is one of somebody's own.

    Args:
        folder: with config.json and processor_config.json; training.json, results.json, trainer_state.json and the
            pictures are used where they are there. Nothing outside of it is read.
        model_id: what the snippets load; default: the folder's name.
        dataset_id: the data set on the Hub, which .eval_results/ needs.

    Raises:
        ValueError: the folder holds no saved model.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists() or not (folder / "processor_config.json").exists():
        raise ValueError(f"{folder} holds no saved model: expected config.json and processor_config.json.")
    handler = Path(__file__).with_name("handler.py").read_text(encoding="utf-8")
    files = {"handler.py": handler, "requirements.txt": REQUIREMENTS}
    results = read_json(folder / "results.json")
    if dataset_id and results:
        files |= eval_result_files(results, dataset_id)
    readme = folder / "README.md"
    if not readme.exists() or MARKER in readme.read_text(encoding="utf-8"):
        files["README.md"] = model_card(folder, model_id or folder.resolve().name, dataset_id)
    return files


def missing_facts(folder: Path) -> list[str]:
    """Facts that are missing for the card of a model, one sentence each."""
    found = []
    training = read_json(folder / "training.json")
    if training.get("imported"):
        return found
    if not training:
        found.append("training.json is missing: the card says neither how nor on what the model was trained.")
    elif not training.get("data"):
        found.append("The data set had no build.json when the model was trained: the card cannot describe it.")
    if not (folder / "results.json").exists():
        found.append("results.json is missing: the card says that the model is not measured yet.")
    return found


def model_card(folder: Path, model_id: str, dataset_id: str | None = None) -> str:
    """README.md of a saved model."""
    config, processor = read_json(folder / "config.json"), read_json(folder / "processor_config.json")
    results, state = read_json(folder / "results.json"), read_json(folder / "trainer_state.json")
    training = read_json(folder / "training.json")
    build = training.get("data", {})
    reads_tags = config.get("modality") != "image"
    characters = config.get("id2label") or {}
    drawn, imported = build.get("drawn") is True, training.get("imported", {})
    licence = imported.get("licence", "unknown") if imported else "apache-2.0" if drawn else "other"
    data = ModelCardData(
        license="other" if licence == "unknown" else plain(licence),
        base_model=imported.get("imported_from") if "/" in imported.get("imported_from", "") else None,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["anime", "character-identification", "tag-prediction", "multimodal", "mfdn"],
        datasets=[dataset_id] if dataset_id else None,
        model_name=plain(model_id.split("/")[-1]) if results else None,
        eval_results=eval_results(results) or None,
    )
    system = MODEL_TYPES.get(config.get("model_type"), "MFDN")
    if config.get("model_type") == "mfdn":
        system += "" if reads_tags else " without its text branch (a unimodal ViT)"
        system += ", without tag decoder (no MLM)" if reads_tags and not config.get("num_decoder_layers", 4) else ""
    if imported:
        system = "a multi-label tagger: tags, characters and ratings, each with a score of its own"
    names_tags = (
        bool(imported)
        or bool(results.get("image", {}).get("tags"))
        or (reads_tags and config.get("num_decoder_layers", 4))
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        marker=MARKER,
        name=plain(model_id.split("/")[-1]),
        model_id=model_id.replace('"', ""),
        what=f"Names the character{'s' if imported else ''} in an anime illustration"
        + (" and writes its tags." if names_tags else ".")
        + what_it_takes(reads_tags, bool(names_tags)),
        system=system,
        num_characters=f"{len(characters):,}",
        character_list=character_list(characters),
        num_tags=f"{config.get('num_tags', 25_404):,}",
        image_size=config.get("image_size", 128),
        parameters=f"{count_parameters(folder) / 1e6:,.1f} M",
        reads_tags=reads_tags,
        example_tag=example_tag(folder),
        example_picture=(folder / "example.png").exists(),
        training_picture=(folder / "training_curves.png").exists(),
        results=bool(results),
        num_images=f"{results.get('num_images', 0):,}",
        dataset=plain(results.get("dataset", "")),
        split=plain(results.get("split", "")),
        date=plain(results.get("date", "")),
        teachable=(folder / STATISTICS_FILE).exists(),
        taught=count_taught(folder),
        unseen_line=unseen_line(results),
        unseen_table=unseen_table(results),
        unseen_picture=(folder / "unseen.png").exists(),
        tag_threshold=results.get("tag_threshold"),
        accuracy_table=accuracy_table(results),
        near_train_line=near_train_line(results),
        tag_table=tag_table(results),
        temperature_line=temperature_line(processor, read_json(folder / "results_validation.json")),
        threshold_line="a threshold of its own for each, fitted on validation"
        if processor.get("tag_thresholds")
        else f"a score of {processor.get('tag_threshold', 0.35)} on, the same for all",
        data=data_lines(build),
        ratings=", ".join(f"`{plain(r)}` {n:,}" for r, n in build.get("ratings", {}).items()) or "not recorded",
        training="" if imported else training_line(training, state),
        imported=plain(imported.get("imported_from", "")),
        ratings_named=imported.get("ratings", 0),
        licence_line=imported_licence(imported)
        if imported
        else "The weights were trained on pictures that this project's code drew; Apache-2.0 too."
        if drawn
        else "The weights were trained on illustrations whose rights lie with their artists; what that "
        "means for the weights differs from country to country.",
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def imported_licence(imported: dict) -> str:
    licence, source = plain(imported["licence"]), plain(imported["imported_from"])
    if licence == "unknown":
        return f"The licence of the weights is that of `{source}`, which was not at hand: look there."
    return f"The weights are those of `{source}`, whose card says: {licence}."


def what_it_takes(reads_tags: bool, names_tags: bool) -> str:
    if not reads_tags:
        return ""
    if names_tags:
        return " The picture alone is enough; tags that you are sure of help."
    return " It was trained with the tags beside the picture, and expects them: without tags it is much worse."


def eval_results(results: dict) -> list[EvalResult]:
    """Entries of model-index: accuracy in every modality that was measured."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=plain(results["dataset"]),
            dataset_name=plain(Path(results["dataset"]).name),
            dataset_split=plain(results["split"]),
            metric_type="accuracy",
            metric_name=f"{title} accuracy, {MODALITIES[modality]}",
            metric_value=round(results[modality][metric], 4),
            metric_args={"modality": modality},
        )
        for modality in MODALITIES
        if modality in results
        for metric, title in METRICS.items()
    ]


def eval_result_files(results: dict, dataset_id: str) -> dict[str, str]:
    """.eval_results/: one file a modality, which leaderboards of a data set on the Hub read."""
    files = {}
    for modality in MODALITIES:
        if modality in results:
            entry = EvalResultEntry(
                dataset_id=dataset_id,
                task_id=f"character-identification-{results['split']}",
                value=round(100 * results[modality]["top1_accuracy"], 2),
                date=results.get("date"),
                notes=f"top-1 accuracy in percent, {MODALITIES[modality]}",
            )
            text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
            files[f".eval_results/{modality.replace('+', '_')}.yaml"] = text
    return files


def accuracy_table(results: dict) -> str:
    rows = [
        f"| {title} | " + " | ".join(f"{results[modality][metric]:.1%}" for metric in METRICS) + " |"
        for modality, title in MODALITIES.items()
        if modality in results
    ]
    return "\n".join([f"| | {' | '.join(METRICS.values())} |", "|---|" + "---:|" * len(METRICS), *rows])


def near_train_line(results: dict) -> str:
    """What pictures that train shows too are worth."""
    found = results.get("near_train") or {}
    if not found.get("num_near") or not found.get("num_others"):
        return ""
    shares = [f"{found[name]['others']:.1%} ({title.lower()})" for name, title in MODALITIES.items() if name in found]
    return (
        f"A train post shows the same drawing as {found['num_near']:,} of them; without these top-1 is "
        f"{' and '.join(shares)}."
    )


def unseen_line(results: dict) -> str:
    """How well pictures of characters that nobody trained are told from those of trained ones."""
    if not (found := results.get("open_set")):
        return ""
    return (
        f"{found['num_unseen']:,} pictures of `{plain(found['unseen'])}` are told from those of trained ones with "
        f"AUROC {found['auroc']:.3f}; where 95 % of these are accepted, so are {found['fpr95']:.1%} of those (FPR95); "
        f"OSCR {found['oscr']:.3f}. Before anybody names them they are grouped with an adjusted Rand index of "
        f"{found['adjusted_rand_index']:.2f}."
    )


def unseen_table(results: dict) -> str:
    """Accuracy by the number of pictures that teach a character."""
    if not (lessons := results.get("few_shot")):
        return ""
    head = "| pictures that teach | among the new | trained, in one ranking | new, in one ranking | harmonic mean |"
    names = ("new", "known_joint", "new_joint", "harmonic")
    rows = [f"| {plain(k)} | " + " | ".join(f"{v[name]:.1%}" for name in names) + " |" for k, v in lessons.items()]
    return "\n".join([head, "|---:|" + "---:|" * len(names), *rows])


def tag_table(results: dict) -> str:
    tags = results.get("image", {}).get("tags")
    if not tags:
        return ""
    rows = []
    for group, size in TAG_GROUPS.items():
        title = f"{size} most frequent" if size else "all"
        scores = tags[group]
        cells = [f"{scores['mean_average_precision']:.3f}", f"{scores['miss_rate']:.1%}"]
        cells += [f"{scores['hamming_error']:.2%}", f"{scores['predict_nothing']['hamming_error']:.2%}"]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    head = "| tags | mean average precision | miss rate | Hamming error | naming nothing |"
    return "\n".join([head, "|---|---:|---:|---:|---:|", *rows])


def temperature_line(processor: dict, validation: dict) -> str:
    temperature = processor.get("temperature", 1.0)
    if temperature == 1.0:
        return "as the model gives them, not calibrated"
    calibration = validation.get("calibration", {})
    error = f": expected calibration error {calibration['error_after']:.3f} there" if calibration else ""
    return f"calibrated on validation (temperature {temperature:g}){error}"


def data_lines(build: dict) -> str:
    """What the data set is and what its rules dropped, from training.json."""
    if not build:
        return ""
    splits = ", ".join(f"{plain(name)} {number:,}" for name, number in build["splits"].items())
    head = f"Dan:mul built from `{plain(build['source'])}`: {build['posts']:,} posts ({splits})."
    rules = [
        f"| {plain(rule['rule'])} | {rule['posts_dropped']:,} | {rule['tags_dropped']:,} |" for rule in build["rules"]
    ]
    return "\n".join([head, "", "| rule | posts dropped | tags dropped |", "|---|---:|---:|", *rules])


def training_line(training: dict, state: dict) -> str:
    """How it was trained, from training.json and trainer_state.json."""
    if not training and not state:
        return ""
    found = []
    if state:
        found.append(f"{state.get('epoch', 0):g} epochs, {state.get('global_step', 0):,} steps")
    if training:
        flags = plain(" ".join(training.get("flags", [])))
        found.append(f"`train_mfdn.py {flags}`".replace(" `", "`"))
    return f"Trained for {': '.join(found)}." if state else f"Trained with {found[0]}."


def count_parameters(folder: Path) -> int:
    """From the headers of the weights, without loading them."""
    total = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():
                size = 1
                for length in weights.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def count_taught(folder: Path) -> int:
    """Characters in the gallery, from its header."""
    if not (folder / GALLERY_FILE).exists():
        return 0
    with safe_open(folder / GALLERY_FILE, framework="pt") as gallery:
        return gallery.get_slice("counts").get_shape()[0]


def character_list(characters: dict[str, str]) -> str:
    """Names of the characters, A to Z; of very many the first."""
    names = sorted(map(plain, characters.values()))
    others = f" and {len(names) - MAX_LISTED:,} others: config.json names them" if len(names) > MAX_LISTED else ""
    return ", ".join(f"`{name}`" for name in names[:MAX_LISTED]) + others


def example_tag(folder: Path) -> str:
    """A tag that reads well in a snippet and tells characters apart: what most of some characters' posts have, but of
    no more than a quarter of the characters. Where nobody knows that, one that is not everywhere, or of the hair."""
    known = read_json(folder / VOCABULARY_FILE)
    of_characters = Counter(tag for tags in known.get("character_tags", {}).values() for tag in tags)
    most = len(known.get("characters", {})) / 4
    telling = [tag for tag, number in of_characters.most_common() if number <= most]
    counts = known.get("tags", {})
    seldom = [tag for tag, posts in counts.items() if posts <= max(counts.values()) / 4]
    vocabulary = read_json(folder / "tokenizer.json").get("model", {}).get("vocab", {})
    hair = [tag for tag in vocabulary if tag.endswith("_hair")]
    words = [
        tag for tag in [*telling, *seldom, *hair, *vocabulary] if tag.replace("_", "").isalnum() and tag in vocabulary
    ]
    return words[0] if words else "long_hair"


def plain(text: str) -> str:
    """Untrusted text for Markdown: no line breaks, no markup, no HTML, no template, and not endless."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable() and c not in "`|<>[]{}*\\")[:MAX_TEXT]


def read_json(path: Path) -> dict:
    """A JSON object; {} if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
