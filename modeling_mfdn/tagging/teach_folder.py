"""Teaches a model the characters of a folder, one a sub-folder: what `mfdn teach` does."""

import json
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator

from .. import MFDNProcessor
from ..data.dataset import load_split, map_labels, read_characters, rows_of
from ..gallery_mfdn import GALLERY_FILE, GALLERY_FORMAT, CharacterGallery, check_name, read_file
from ..pipeline_mfdn import draw_thumbnail
from ..publishing.cards import write_hub_files
from ..training.character_statistics import fit_character_statistics
from ..training.files import check_replaceable, public_name, replace_folder
from ..training.terminal import printable
from .picture_folder import SUFFIXES, find_pictures, show_problems
from .torch_tagger import Looking, load_model

MARKER = "processor_config.json"  # of a folder that holds a model


@dataclass
class TeachOptions:
    """What `mfdn teach` is asked for; `mfdn teach --help` says what each means."""

    folder: str | None
    model: str
    output: str
    gallery: list[str] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    statistics: str | None = None
    overwrite: bool = False
    no_thumbnails: bool = False
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None


def teach_folder(options: TeachOptions) -> int:
    """Teach, forget, join galleries, fit statistics, and write what came of it.

    Returns:
        the exit code: 1 where a picture or a character could not be done; all others are.

    Raises:
        ValueError, OSError: with a sentence for the user; nothing is written then.
    """
    started = time.perf_counter()
    output, writes_file = Path(options.output), options.output.endswith(".safetensors")
    in_place = not writes_file and Path(options.model).is_dir() and output.resolve() == Path(options.model).resolve()
    check_options(options, in_place)
    if writes_file:
        check_gallery_file(output, options)
    elif not in_place:
        check_replaceable(output.resolve(), MARKER, options.overwrite)
    lessons = find_lessons(Path(options.folder)) if options.folder is not None else {}
    model, processor = load_model(options)
    if options.statistics is not None:
        fit_statistics(model, processor, options)
    gallery = processor.known_gallery()
    for file in options.gallery:
        print(f"{file}: {len(gallery.load(file)):,} characters that were taught")
    for name in options.forget:
        gallery.forget(name)
    problems = teach_all(model, processor, lessons, options)
    if lessons and len(problems) and not any(name in gallery.names for name in lessons):
        raise ValueError(f"None of the characters in {options.folder} could be taught; nothing is written.")
    if writes_file:
        output.parent.mkdir(parents=True, exist_ok=True)
        gallery.save(output)
    elif in_place:
        gallery.save_in(output)
    else:
        with replace_folder(output, MARKER, options.overwrite) as unfinished:
            copy_model(model, processor, options.model, unfinished)
            write_hub_files(unfinished, public_name(options.output))
    print(
        f"{output}: {len(gallery.names):,} taught characters from {int(gallery.counts.sum()):,} pictures; "
        f"{time.perf_counter() - started:.0f} seconds"
    )
    with_them = f"{options.model} --gallery {output}" if writes_file else output
    print(f"Try it: mfdn tag PICTURES --model {with_them}")
    return int(bool(problems))


def check_options(options: TeachOptions, in_place: bool) -> None:
    """Raises ValueError where there is nothing to do, or two options contradict each other."""
    if options.folder is None and not (options.gallery or options.forget or options.statistics):
        raise ValueError("Nothing to do: give a FOLDER with a sub-folder for each character, --gallery or --forget.")
    if options.statistics is not None and in_place:
        raise ValueError(
            "--statistics makes new axes, in which an earlier gallery means nothing, so it never replaces a model in "
            "its place: pass another --output."
        )
    if options.statistics is not None and options.output.endswith(".safetensors"):
        raise ValueError("--statistics belong to a model: --output must be a folder, for the model with them.")


def check_gallery_file(output: Path, options: TeachOptions) -> None:
    """Raises FileExistsError where a gallery would be lost, or anything else: weights have the same ending."""
    if not output.exists():
        return
    try:
        read_file(output, GALLERY_FORMAT, "gallery")
    except ValueError as error:
        raise FileExistsError(f"{output} is there already and no gallery, so it is never replaced.") from error
    if not options.overwrite and output.resolve() not in {Path(file).resolve() for file in options.gallery}:
        raise FileExistsError(
            f"{output} is there already: --gallery {output} adds to it, --overwrite replaces it; or pass another "
            "--output."
        )


def find_lessons(source: Path) -> dict[str, list[Path]]:
    """The pictures of each character: of each sub-folder by its name, or as names.json of `mfdn group` says.

    Raises ValueError, OSError: there is none, or a name cannot be a character's.
    """
    if source.is_file():
        return read_names(source)
    if not source.is_dir():
        raise FileNotFoundError(f"Expected a folder with a sub-folder for each character, {source} is no folder.")
    names = sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        found = sum(path.suffix.lower() in SUFFIXES for path in source.iterdir())
        raise ValueError(
            f"Expected a sub-folder for each character in {source}, such as {source}/hatsune_miku/1.png, found none"
            + (f" but {found:,} pictures: move those of each character into a folder of its name." if found else ".")
        )
    lessons = {}
    for name in names:
        try:
            lessons[check_name(name)] = find_pictures(source / name, recursive=True)[0]
        except FileNotFoundError:  # said with the others that could not be taught
            lessons[check_name(name)] = []
    return lessons


def read_names(file: Path) -> dict[str, list[Path]]:
    """What the page of `mfdn group` saves: `{"folder": …, "characters": {name: [pictures in it]}}`.

    Raises ValueError: it is another file, or names a picture outside of the folder.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        folder = Path(said["folder"])
        lessons = {
            check_name(name): [folder / picture for picture in found] for name, found in said["characters"].items()
        }
    except (UnicodeDecodeError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file}: expected names.json, which the page of mfdn group saves, found another file."
        ) from error
    for path in (path for found in lessons.values() for path in found):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file}: {path} lies outside of {folder}, which is not read.")
    return lessons


def fit_statistics(model, processor: MFDNProcessor, options: TeachOptions) -> None:
    """The model's statistics, fitted on a data set with characters that it knows."""
    names = [model.config.id2label[label] for label in range(model.config.num_labels)]
    splits, maps = [], []
    for split in ("train", "validation"):
        rows = load_split(options.statistics, split, needs_tags=False)
        maps.append(map_labels(read_characters(rows), names))
        splits.append(rows_of(rows, set(names)))
    if processor.gallery is not None and processor.gallery.names:
        print(f"{len(processor.gallery.names):,} characters that were taught in the old axes are not taken along.")
    statistics = fit_character_statistics(
        model,
        processor,
        *splits,
        Accelerator(cpu=model.device.type == "cpu"),
        label_maps=maps,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    processor.gallery = CharacterGallery(statistics)
    print(f"Statistics of {int((statistics.counts > 0).sum()):,} of the {len(names):,} characters are fitted.")


def teach_all(model, processor: MFDNProcessor, lessons: dict[str, list[Path]], options: TeachOptions) -> list[str]:
    """Teach each character and print what the user should know. Returns what could not be done."""
    paths = [(name, path) for name, found in lessons.items() for path in found]
    looking = Looking(model, processor, [path for _, path in paths], options, "teaching")
    found, thumbnails, problems = defaultdict(list), {}, looking.problems
    for indices, pixel_values, outputs in looking:
        for row, index in enumerate(indices):
            name, path = paths[index]
            found[name].append((path, outputs.picture_embedding[row].float().cpu()))
            if name not in thumbnails and not options.no_thumbnails:
                thumbnails[name] = draw_thumbnail(pixel_values[row], processor.image_processor)
    for name in lessons:
        if name not in found:
            problems.append(f"{name}: expected pictures that can be read, found none; it is not taught.")
            continue
        embeddings = torch.stack([embedding for _, embedding in found[name]])
        pictures = [path.name for path, _ in found[name]]
        for sentence in processor.teach(name, embeddings, thumbnails.get(name, b""), pictures):
            print(printable(sentence))
    show_problems(problems)
    return problems


def copy_model(model, processor: MFDNProcessor, source: str, folder: Path) -> None:
    """The model with the code of this version, and what stands beside it: results, figures, how it was trained."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if Path(source).is_dir():
        there = {path.name for path in folder.iterdir()} | {GALLERY_FILE}
        for path in Path(source).iterdir():
            if path.is_file() and path.name not in there and not path.name.startswith("model"):
                shutil.copy2(path, folder / path.name)
        if (Path(source) / "samples").is_dir():
            shutil.copytree(Path(source) / "samples", folder / "samples")
