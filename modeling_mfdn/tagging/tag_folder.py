"""Characters and tags of a folder of pictures, beside them or in one file: what `mfdn tag` does."""

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ..training.files import claim
from ..training.terminal import printable
from .films import VIDEO_SUFFIXES
from .picture_folder import CAPTION_SUFFIXES, SUFFIXES, find_pictures
from .records import FILES, check_columns, open_progress, partial_of, read_records, write_records
from .report import Report, how_sure
from .review_page import PAGE, ReviewPage
from .tag_files import Caption, Wording, caption_paths, has_caption, lost_words, read_caption, with_commas, write_names
from .taggers import UNKNOWN_THRESHOLD, is_onnx, load_tagger, load_vocabulary, results_of
from .xmp import Sidecar, copy_with_tags, read_sidecar

# What an option says of the records is in none of these.
NOT_OF_RECORDS = (
    "model",
    "folder",
    "output",
    "overwrite",
    "batch_size",
    "num_workers",
    "device",
    "spreadsheet",
    "recursive",
    "gallery",  # by what it teaches
    "unknown_list",
    "dry_run",
    "frequency_tags",
    "no_review",
)
SAMPLE = 5  # pictures that --dry_run tags


@dataclass
class TagOptions:
    """What `mfdn tag` is asked for; `mfdn tag --help` says what each means."""

    folder: str
    model: str
    format: str = "txt"
    output: str | None = None
    copy_to: str | None = None
    overwrite: bool = False
    append: bool = False
    dry_run: bool = False
    full_names: bool = False
    caption_extension: str | None = None
    caption_separator: str = ", "
    scores: bool = False
    spreadsheet: bool = False
    row_per_tag: bool = False
    tag_threshold: float | None = None
    character_threshold: float | None = None
    no_characters: bool = False
    series: bool = False
    rating: bool = False
    use_rating_tags: bool = False
    max_tags: int | None = None
    no_implied: bool = False
    prune_character_tags: float | None = None
    exclude: list[str] = field(default_factory=list)
    undesired_tags: str = ""
    replace: list[str] = field(default_factory=list)
    tag_replacement: str = ""
    first: list[str] = field(default_factory=list)
    always_first_tags: str = ""
    last: list[str] = field(default_factory=list)
    character_tags_first: bool = True
    spaces: bool = False
    escape: bool = False
    use_existing: bool = False
    gallery: str | None = None
    variant: str | None = None
    dataset: str | None = None
    unknown_threshold: float | None = None
    unknown_list: str | None = None
    every: float = 1.0
    recursive: bool = True
    frequency_tags: bool = False
    no_review: bool = False
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None


def check_options(options: TagOptions) -> None:
    """Raises ValueError for options that contradict one another."""
    in_one_file = options.format in FILES
    if in_one_file and options.append:
        raise ValueError("--append adds to captions: it goes with --format txt, hydrus or xmp.")
    if options.output and not in_one_file:
        raise ValueError(
            f"--output names the file of jsonl, csv and parquet; {options.format} goes beside the pictures."
        )
    if options.output and options.format == "imagefolder":
        raise ValueError("imagefolder is metadata.jsonl in the folder of the pictures: leave --output out.")
    for name in ("spreadsheet", "row_per_tag"):
        if getattr(options, name) and options.format != "csv":
            raise ValueError(f"--{name} goes with --format csv.")
    for name in ("full_names", "caption_extension"):
        if getattr(options, name) and options.format != "txt":
            raise ValueError(f"--{name} goes with --format txt; {options.format} names its files itself.")
    if options.copy_to and options.format != "xmp":
        raise ValueError("--copy_to goes with --format xmp.")
    if options.scores and options.format in ("hydrus", "xmp"):
        raise ValueError("--scores would be namespaces for Hydrus (tag:0.93): leave it out, or choose jsonl.")
    if options.unknown_list and Path(options.unknown_list).is_dir():
        raise ValueError(f"--unknown_list {options.unknown_list}: expected a file, found a folder of that name.")
    if options.append and options.overwrite:
        raise ValueError("--append keeps what is there, --overwrite does not: choose one.")
    if options.rating and options.use_rating_tags:
        raise ValueError("--use_rating_tags writes the rating first, --rating last: choose one.")
    if bad := [entry for entry in options.replace if "=" not in entry[1:]]:
        raise ValueError(f"--replace expects OLD=NEW, got {bad[0]!r}.")
    if not options.caption_separator or "\n" in options.caption_separator:
        raise ValueError("--caption_separator expects what stands between two tags in a line, such as ', '.")
    if options.caption_extension is not None:
        options.caption_extension = f".{options.caption_extension.lstrip('.')}"
        if options.caption_extension.lower() in (".", *SUFFIXES) or os.sep in options.caption_extension:
            raise ValueError(f"--caption_extension expects the ending of a text file, got {options.caption_extension}")


def read_captions(
    paths: list[Path], places: list[Path], names: dict, options: TagOptions, report: Report
) -> dict[Path, Caption | Sidecar]:
    """The caption of each picture that is to be tagged; those that are left alone are said.

    Args:
        places: of the captions, one for each of `paths`.
    """
    shared = {place for place, number in Counter(places).items() if number > 1}
    reads = options.append or options.use_existing or options.format == "xmp"
    waiting, num_done = {}, 0
    for path, place in zip(paths, places, strict=True):
        try:
            if options.format == "txt" and place in shared:
                raise ValueError(f"{place.name} would be the caption of several pictures: --full_names gives each one")
            if has_caption(place) and options.format not in FILES and not (options.overwrite or options.append):
                num_done += 1
                continue
            one_a_line = options.format == "hydrus"
            if options.format == "xmp":
                waiting[path] = read_sidecar(place)
            elif reads:
                waiting[path] = read_caption(place, one_a_line, options.caption_separator)
            else:
                waiting[path] = Caption(place, [], one_a_line, separator=options.caption_separator)
        except (ValueError, OSError) as error:
            report.problems[names[path]] = str(error)
    if num_done and options.use_existing:
        print(
            f"{num_done:,} pictures have captions and are left alone: --append keeps the tags of those and adds new "
            "ones, --overwrite writes them anew."
        )
    return waiting


def tag_folder(options: TagOptions) -> Report:
    """Tag a folder of pictures: what `mfdn tag` runs. Raises ValueError or OSError with a sentence for the user."""
    check_options(options)
    is_onnx(options)  # a name that is no model is said before any work
    folder, in_one_file = Path(options.folder), options.format in FILES
    endings = (".xmp",) if options.format == "xmp" else CAPTION_SUFFIXES
    endings = (options.caption_extension.lower(),) if options.caption_extension else endings
    paths, beside, left_out = find_pictures(folder, options.recursive, (*SUFFIXES, *VIDEO_SUFFIXES), endings)
    if left_out:
        print("files that are no pictures: " + printable(", ".join(f"{n:,} {s}" for s, n in left_out.most_common())))
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    report = Report(options.frequency_tags)
    with ExitStack() as stack:
        there: dict = {}
        if in_one_file:
            output = Path(options.output or folder / FILES[options.format])
            if output.is_dir():
                raise IsADirectoryError(f"Expected {output} to be a file or not there, found a folder of that name.")
            for path in [path for path in paths if not is_text(names[path])]:
                report.problems[names[path]] = f"its name is not UTF-8, which {options.format} is: rename it"
                paths.remove(path)
            if output.exists() and not options.overwrite:
                there = read_records(output, options)
        elif not options.dry_run:
            stack.enter_context(claim(folder, folder))
        missing = [path for path in paths if names[path] not in there]
        if options.format == "xmp":
            places = [path.with_name(f"{path.name}.xmp") for path in missing]
        else:
            places = caption_paths(missing, beside, options)
        captions = read_captions(missing, places, names, options, report)
        num_done = len(paths) - len(captions) - len(report.problems)
        report.skipped = left_out + Counter({"that have their tags already": num_done})
        print(f"{len(paths):,} pictures, {num_done:,} have their tags already")
        if not captions:
            if in_one_file and not options.dry_run:  # an earlier run was ended just after it had written the file
                partial_of(output).unlink(missing_ok=True)
            return report

        tagger, vocabulary = load_tagger(options), load_vocabulary(options)
        if options.character_threshold is None:
            options.character_threshold = tagger.character_threshold
        if options.unknown_threshold is None:  # without statistics "unknown" is no more than what the scores say
            options.unknown_threshold = UNKNOWN_THRESHOLD if tagger.has_statistics else 1.0
        if (options.rating or options.use_rating_tags) and not tagger.ratings:
            raise ValueError(f"--rating: {options.model} names no ratings.")
        wording = Wording(options, {*tagger.tags, *tagger.character_names}, vocabulary)
        if not (options.append or options.use_existing):  # else they may be words of the captions
            wording.check()
        joined = with_commas(wording.known, options.caption_separator)
        for caption in captions.values():
            if isinstance(caption, Caption):
                caption.names = joined
        print(tagger.described)
        if options.dry_run:
            return show_sample(tagger, [*captions][:SAMPLE], captions, names, wording, report)
        done: dict[str, dict] = {}
        if in_one_file:
            nothing = {"character": [], "series": [], "tag": [], "rating": [("", 0.0)] * bool(tagger.ratings)}
            check_columns(output, there, record_of(tagger, "", nothing, wording, 0.0), options)
            made_by = fingerprint(tagger, options, vocabulary)
            done, log = open_progress(output, made_by, options.overwrite, stack)
            if done:
                print(f"{len(done):,} of them are in {output.name}.partial, from a run that was interrupted")
        waiting = [path for path in captions if names[path] not in done]
        if options.unknown_list:  # also what was found before Ctrl-C
            stack.callback(write_names, Path(options.unknown_list), report.unknown, names.values(), options.overwrite)
        page = None if options.no_review else stack.enter_context(ReviewPage(folder, tagger, options))
        for path, result, told in tagged(tagger, waiting, captions, names, wording, report):
            is_unknown = result["unknown"] > options.unknown_threshold
            if is_unknown:
                report.unknown.add(names[path])
            chosen, sure = wording.chosen(result, is_unknown, told), how_sure(result, tagger.has_statistics)
            report.count(names[path], chosen, sure)
            if options.prune_character_tags is not None:
                report.unpruned.update(name for name, _ in chosen["character"] if name not in wording.character_tags)
            if in_one_file:
                done[names[path]] = record_of(tagger, names[path], chosen, wording, result["unknown"])
                log.write(json.dumps(done[names[path]], ensure_ascii=False) + "\n")
                log.flush()
            else:
                write_beside(path, captions[path], chosen, wording, report)
            if page is not None:
                page.add(names[path], result, wording.words(chosen), sure)
        if in_one_file:
            kept = [name for name in there if options.format != "imagefolder" or (folder / name).is_file()]
            both = {name: there[name] for name in kept} | done
            write_records(output, [both[name] for name in sorted(both)], options)
            partial_of(output).unlink(missing_ok=True)
    if page is not None:
        print(f"Look at them: {folder / PAGE}; correct them: mfdn review {folder}")
    return report


def record_of(tagger, name: str, chosen: dict[str, list[tuple]], wording: Wording, unknown: float) -> dict:
    """What the one file says of a picture."""
    record = wording.record(name, chosen)
    return record | ({"unknown": round(unknown, 4)} if tagger.has_statistics else {})


def tagged(
    tagger, paths: list[Path], captions: dict, names: dict, wording: Wording, report: Report
) -> Iterator[tuple]:
    """(path, result, tags that the model was told) of each picture; what cannot be read goes into the report."""
    options = wording.options
    hints: list[list[str]] = [[] for _ in paths]
    if options.use_existing:
        rows = [dict.fromkeys(map(wording.key, captions[path].words())) for path in paths]
        hints = [[key for key in row if key in tagger.tag_labels] for row in rows]
    given = [tagger.given_labels(row) for row in hints]
    found = results_of(tagger, paths, given, options)
    for index, result, problem in tqdm(found, "tagging", len(paths), unit=" pictures", disable=None):
        if problem:
            report.problems[names[paths[index]]] = problem
        else:
            yield paths[index], result, [] if options.append else hints[index]


def show_sample(tagger, paths: list[Path], captions: dict, names: dict, wording: Wording, report: Report) -> Report:
    """What --dry_run says: the first pictures and what would be written of them."""
    print(f"nothing is written; {len(captions):,} pictures would be, the first of them with:")
    for path, result, told in tagged(tagger, paths, captions, names, wording, report):
        chosen = wording.chosen(result, result["unknown"] > wording.options.unknown_threshold, told)
        if wording.options.format in FILES:
            record = record_of(tagger, names[path], chosen, wording, result["unknown"])
            print(printable(json.dumps(record, ensure_ascii=False)))
        else:
            words = [*wording.firsts, *wording.words(chosen), *wording.lasts]
            print(printable(f"{names[path]}: {wording.separator.join(words)}"))
    return report


def fingerprint(tagger, options: TagOptions, vocabulary: dict) -> str:
    """Of all that a record depends on but its picture: the model, options, and the folder."""
    said = {name: value for name, value in vars(options).items() if name not in NOT_OF_RECORDS}
    folder = os.fsencode(Path(options.folder).resolve()).hex()
    made_by = json.dumps([tagger.fingerprint(), said, folder, vocabulary], sort_keys=True, default=str)
    return hashlib.sha256(made_by.encode()).hexdigest()


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def write_beside(path: Path, caption: Caption | Sidecar, chosen: dict, wording: Wording, report: Report) -> None:
    """Add to what stands beside a picture, or write it anew. What cannot be written goes into the report.

    Raises OSError: the disk is full.
    """
    options, name = wording.options, path.relative_to(wording.options.folder).as_posix()
    try:
        words = wording.words(chosen)
        if isinstance(caption, Sidecar):
            caption.write(chosen, wording, options.append)
            if options.copy_to:
                copy_with_tags(path, Path(options.copy_to, name), chosen, wording)
        elif options.append:
            caption.add(words, wording)
        else:
            report.lost += lost_words(caption, [*words, *wording.firsts, *wording.lasts], wording)
            caption.replace(words, wording)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(f"The disk of {options.folder} is full: make room and run this again, it goes on.") from None
        report.problems[name] = str(error)
