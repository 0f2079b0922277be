"""Characters and tags of a folder of pictures, beside them or in one file: what `mfdn tag` does."""

import errno
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModelForImageClassification

from .. import MFDNProcessor
from ..training.files import claim, whole_file
from ..training.terminal import check_device, printable
from .picture_folder import Pictures, best_device, collate, find_pictures
from .tag_files import (
    Caption,
    Wording,
    caption_paths,
    check_caption,
    finished_records,
    lost_words,
    read_caption,
    write_csv,
    write_names,
)

FORMATS = {
    "txt": "PICTURE.txt, one line of tags, as for kohya",
    "hydrus": "PICTURE.EXT.txt, a tag a line, character:NAME",
    "jsonl": "one file, an object a picture",
    "csv": "one file, a row a picture",
}
# What an option says of the records of jsonl and csv is in none of these.
NOT_OF_RECORDS = (
    "model",
    "folder",
    "output",
    "overwrite",
    "batch_size",
    "num_workers",
    "device",
    "spreadsheet",
    "not_recursive",
    "gallery",  # by what it teaches
    "unknown_list",
)
SHOWN = 10
UNKNOWN_THRESHOLD = 0.5
MAX_CHARACTERS = 32  # of a picture, where each is there or not


@dataclass
class TagOptions:
    """What `mfdn tag` is asked for; `mfdn tag --help` says what each means."""

    folder: str
    model: str
    format: str = "txt"
    output: str | None = None
    overwrite: bool = False
    append: bool = False
    full_names: bool = False
    scores: bool = False
    spreadsheet: bool = False
    tag_threshold: float | None = None
    character_threshold: float | None = None
    no_characters: bool = False
    rating: bool = False
    max_tags: int | None = None
    exclude: list[str] = field(default_factory=list)
    replace: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    spaces: bool = False
    escape: bool = False
    use_existing: bool = False
    gallery: str | None = None
    unknown_threshold: float | None = None
    unknown_list: str | None = None
    not_recursive: bool = False
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None


def results_of(model, processor: MFDNProcessor, loader: DataLoader, hints: list, options) -> Iterator[tuple]:
    """(index, result or None, problem) for every picture, in order of the batches."""
    most = 5 if processor.character_activation == "softmax" else MAX_CHARACTERS
    for items in loader:
        for index, problem in items["problems"].items():
            yield index, None, problem
        if not items["indices"]:
            continue
        batch = {name: values.to(model.device) for name, values in items["batch"].items()}
        if model.config.modality == "image":
            batch = {"pixel_values": batch["pixel_values"]}
        with torch.inference_mode():
            outputs = model(**batch)
        given = [hints[index] for index in items["indices"]]
        found = processor.post_process(
            outputs,
            top_k=min(most, len(processor.character_names)),
            tag_threshold=options.tag_threshold,
            max_tags=options.max_tags,
            given_tags=given if any(given) else None,
        )
        for index, result in zip(items["indices"], found, strict=True):
            yield index, result, None


def check_options(options: TagOptions) -> None:
    """Raises ValueError for options that contradict one another."""
    in_one_file = options.format in ("jsonl", "csv")
    if in_one_file and options.append:
        raise ValueError("--append adds to captions: it goes with --format txt or hydrus.")
    if options.output and not in_one_file:
        raise ValueError(f"--output names the file of jsonl and csv; {options.format} goes beside the pictures.")
    if options.spreadsheet and options.format != "csv":
        raise ValueError("--spreadsheet goes with --format csv.")
    if options.full_names and options.format != "txt":
        raise ValueError(f"--full_names goes with --format txt; {options.format} has them anyway.")
    if options.scores and options.format == "hydrus":
        raise ValueError("--scores would be namespaces for Hydrus (tag:0.93): leave it out, or choose jsonl.")
    if options.unknown_list and Path(options.unknown_list).is_dir():
        raise ValueError(f"--unknown_list {options.unknown_list}: expected a file, found a folder of that name.")
    if options.append and options.overwrite:
        raise ValueError("--append keeps what is there, --overwrite does not: choose one.")
    if bad := [entry for entry in options.replace if "=" not in entry[1:]]:
        raise ValueError(f"--replace expects OLD=NEW, got {bad[0]!r}.")


def fingerprint(model, processor: MFDNProcessor, options: TagOptions) -> str:
    """Of all that a record depends on but its picture: weights, names, thresholds, options, and the folder."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    said = {name: value for name, value in vars(options).items() if name not in NOT_OF_RECORDS}
    folder = os.fsencode(Path(options.folder).resolve()).hex()
    made_by = [model.config.id2label, processor.to_dict(), processor.tokenizer.get_vocab(), said, folder]
    if processor.gallery is not None:
        taught = processor.gallery
        made_by += [taught.statistics.fingerprint, vars(taught.statistics.calibration), taught.names]
        digest.update(taught.means.numpy().tobytes() + taught.counts.numpy().tobytes())
    digest.update(json.dumps(made_by, sort_keys=True, default=str).encode())
    return digest.hexdigest()


class Report:
    """What could not be done, by the names of the pictures; words of captions that stand nowhere any more; and
    pictures of characters that the model does not know."""

    def __init__(self):
        self.problems: dict[str, str] = {}
        self.lost: Counter[str] = Counter()
        self.unknown: set[str] = set()

    def show(self) -> int:
        """Print the report. Returns the exit code: 1 if there were problems."""
        for name, problem in self.problems.items():
            print(f"not done: {name!r}: {printable(' '.join(problem.split()))}", file=sys.stderr)
        if self.lost:
            words = ", ".join(f"{word!r} ({number:,})" for word, number in self.lost.most_common(SHOWN))
            more = f" and {len(self.lost) - SHOWN:,} more" if len(self.lost) > SHOWN else ""
            print(
                f"Words of captions that the model does not know are not written any more: {printable(words)}{more}. "
                "--append instead of --overwrite keeps them.",
                file=sys.stderr,
            )
        if self.unknown:
            print(f"{len(self.unknown):,} pictures show a character that the model does not know, or none at all.")
        if self.problems:
            print(f"{len(self.problems):,} pictures could not be done; all others are.", file=sys.stderr)
        return int(bool(self.problems))


def read_captions(paths: list[Path], places: list[Path], names: dict, options, report: Report) -> dict[Path, Caption]:
    """The caption of each picture that is to be tagged; those that are left alone are said.

    Args:
        places: of the captions, one for each of `paths`.
    """
    shared = {place for place, number in Counter(places).items() if number > 1}
    reads = options.append or options.use_existing
    waiting, num_done = {}, 0
    for path, place in zip(paths, places, strict=True):
        try:
            if options.format != "txt":
                pass
            elif place in shared:
                raise ValueError(f"{place.name} would be the caption of several pictures: --full_names gives each one")
            check_caption(place)
            has_caption = place.exists() and place.stat().st_size > 0
            if has_caption and options.format in ("txt", "hydrus") and not (options.overwrite or options.append):
                num_done += 1
                continue
            one_a_line = options.format == "hydrus"
            waiting[path] = read_caption(place, one_a_line) if reads else Caption(place, [], one_a_line)
        except (ValueError, OSError) as error:
            report.problems[names[path]] = str(error)
    if num_done and options.use_existing:
        print(
            f"{num_done:,} pictures have captions and are left alone: --append keeps the tags of those and adds new "
            "ones, --overwrite writes them anew."
        )
    return waiting


def partial_of(output: Path) -> Path:
    """Where the records of an unfinished jsonl or csv stand."""
    return output.with_name(f"{output.name}.partial")


def open_progress(output: Path, made_by: str, overwrite: bool, stack: ExitStack):
    """Records that an interrupted run left beside `output`, by file name, and the file to go on writing them to.

    Raises:
        FileExistsError: another model or other options made them, or another run is making them.
    """
    progress = partial_of(output)
    if os.path.lexists(progress) and (progress.is_symlink() or not progress.is_file()):
        raise FileExistsError(f"{progress} is no file of this command: remove it, or name another --output.")
    descriptor = os.open(progress, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    log = stack.enter_context(os.fdopen(descriptor, "r+", encoding="utf-8", newline="\n"))
    stack.enter_context(claim(progress, output))
    left = finished_records(progress.read_bytes(), made_by)
    if left is None and not overwrite:
        raise FileExistsError(
            f"{progress} was begun with another model, other options or another folder: remove it, pass --overwrite "
            "to begin anew, or name another --output."
        )
    done, size = left or ({}, 0)
    log.truncate(size)
    log.seek(0, os.SEEK_END)
    if not size:
        log.write(json.dumps({"made_by": made_by}) + "\n")
        log.flush()
    return done, log


def tag_folder(options: TagOptions) -> Report:
    """Tag a folder of pictures: what `mfdn tag` runs. Raises ValueError or OSError with a sentence for the user."""
    check_options(options)
    device = check_device(options.device or best_device())
    folder, in_one_file = Path(options.folder), options.format in ("jsonl", "csv")
    paths, beside, left_out = find_pictures(folder, not options.not_recursive)
    if left_out:
        print("files that are no pictures: " + printable(", ".join(f"{n:,} {s}" for s, n in left_out.most_common())))
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    output = Path(options.output or folder / f"tags.{options.format}") if in_one_file else None
    if in_one_file and output.is_dir():
        raise IsADirectoryError(f"Expected {output} to be a file or not there, found a folder of that name.")
    is_there = in_one_file and output.exists() and not options.overwrite
    there = FileExistsError(f"{output} is there already: --overwrite replaces it, --output names another file.")
    if is_there and not partial_of(output).is_file():
        raise there

    report = Report()
    with ExitStack() as stack:
        if in_one_file:
            for path in [path for path in paths if not is_text(names[path])]:
                report.problems[names[path]] = f"its name is not UTF-8, which {options.format} is: rename it"
                paths.remove(path)
        else:
            stack.enter_context(claim(folder, folder))
        captions = read_captions(paths, caption_paths(paths, beside, options), names, options, report)
        num_done = len(paths) - len(captions) - len(report.problems)
        print(f"{len(paths):,} pictures, {num_done:,} have their tags already")
        if not captions:
            return report

        model = AutoModelForImageClassification.from_pretrained(options.model).eval()
        processor = MFDNProcessor.from_pretrained(options.model)
        processor.check_gallery(model)
        if options.gallery:
            taught = processor.known_gallery().load(options.gallery)
            print(f"{options.gallery}: {len(taught):,} characters that were taught")
        if options.character_threshold is None:
            options.character_threshold = processor.character_threshold
        if options.unknown_threshold is None:  # without statistics "unknown" is no more than what the scores say
            options.unknown_threshold = UNKNOWN_THRESHOLD if processor.gallery is not None else 1.0
        if options.rating and not processor.ratings:
            raise ValueError(f"--rating: {options.model} names no ratings.")
        vocabulary = processor.tokenizer.get_vocab()
        wording = Wording(options, {*vocabulary, *processor.character_names})
        if not (options.append or options.use_existing):  # else they may be words of the captions
            wording.check()
        done: dict[str, dict] = {}
        if in_one_file:
            made_by = fingerprint(model, processor, options)
            if is_there and not was_finished(output, made_by):
                raise there
            if is_there:
                partial_of(output).unlink(missing_ok=True)
                print(f"{output} is complete: an earlier run was ended just after it had written it.")
                return report
            done, log = open_progress(output, made_by, options.overwrite, stack)
            if done:
                print(f"{len(done):,} of them are in {output.name}.partial, from a run that was interrupted")
        model.to(device)
        threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
        print(f"device: {model.device}{threads}")

        waiting = [path for path in captions if names[path] not in done]
        keys = [dict.fromkeys(map(wording.key, captions[path].words())) for path in waiting]
        hints = [[key for key in row if key in vocabulary] if options.use_existing else [] for row in keys]
        pictures = Pictures(waiting, hints, processor)
        loader = DataLoader(pictures, options.batch_size, collate_fn=collate, num_workers=options.num_workers)
        if options.unknown_list:  # also what was found before Ctrl-C
            stack.callback(write_names, Path(options.unknown_list), report.unknown, names.values(), options.overwrite)
        found = results_of(model, processor, loader, hints, options)
        for index, result, problem in tqdm(found, "tagging", len(waiting), unit=" pictures", disable=None):
            path = waiting[index]
            if problem:
                report.problems[names[path]] = problem
                continue
            characters, tags = wording.chosen(result)
            if result["unknown"] > options.unknown_threshold:
                report.unknown.add(names[path])
                characters = []
            rating = result["ratings"][0] if "ratings" in result else None
            if not options.append:  # what the model was told is true as well
                told = [new for tag in hints[index] if (new := wording.replaced(tag))]
                tags = [(tag, None) for tag in told] + tags
            if in_one_file:
                done[names[path]] = wording.record(names[path], characters, tags, rating)
                if processor.gallery is not None:
                    done[names[path]]["unknown"] = round(result["unknown"], 4)
                log.write(json.dumps(done[names[path]], ensure_ascii=False) + "\n")
                log.flush()
                continue
            try:
                words = wording.words(characters, tags, rating if options.rating else None)
                write_caption(captions[path], words, wording, report)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(f"The disk of {folder} is full: make room and run this again, it goes on.") from None
                report.problems[names[path]] = str(error)
        if in_one_file:
            write_records(output, [done[names[path]] for path in paths if names[path] in done], options, log)
            partial_of(output).unlink(missing_ok=True)
    return report


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def write_caption(caption: Caption, words: list[str], wording: Wording, report: Report) -> None:
    """Add `words` to what stands beside a picture, or write them in its place."""
    if wording.options.append:
        caption.add(words, wording)
    else:
        report.lost += lost_words(caption, [*words, *wording.options.first], wording)
        caption.replace(words, wording)


def was_finished(output: Path, made_by: str) -> bool:
    """Whether `output` is what its .partial, of the same model and options, says it was to become: then only the
    latter's removal was missed."""
    try:
        lines = partial_of(output).read_bytes().splitlines()
        return {"made_by": made_by} == json.loads(lines[0]) and json.loads(lines[-1]) == {"whole": digest_of(output)}
    except (OSError, ValueError, IndexError):
        return False


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_records(output: Path, records: list[dict], options: TagOptions, log: TextIO) -> None:
    """The one file of jsonl or csv, moved into place when it is whole, which the last line of `log` then says."""
    with whole_file(output) as unfinished:
        if options.format == "csv":
            write_csv(unfinished, records, options.spreadsheet)
        else:
            text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
            unfinished.write_text(text, encoding="utf-8")
        log.write(json.dumps({"whole": digest_of(unfinished)}) + "\n")
        log.flush()
