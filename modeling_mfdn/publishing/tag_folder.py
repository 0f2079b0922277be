"""Write the characters and tags of a folder of pictures beside them, or into one file.

    mfdn-tag PICTURES --model mfdn
    mfdn-tag PICTURES --model mfdn --format jsonl --scores

Nothing is overwritten unless --overwrite or --append says so; started again, it goes on with what is missing. Broken
pictures are named at the end and cost nothing else.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AutoModelForImageClassification

from .. import MFDNProcessor
from ..training.saving import whole_file
from ..training.terminal import command_line, printable
from .tag_files import (
    as_hint,
    chosen,
    finished_records,
    plain,
    record,
    sidecar,
    sidecar_tags,
    write_csv,
    write_sidecar,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
FORMATS = {
    "txt": "PICTURE.txt, one line of tags, as for kohya",
    "hydrus": "PICTURE.EXT.txt, a tag a line, character:NAME",
    "jsonl": "one file, an object a picture",
    "csv": "one file, a row a picture",
}
EXAMPLE = """examples:
  mfdn-tag PICTURES --model mfdn --exclude solo 1girl --replace grey_hair=gray_hair --first my_style
  mfdn-tag PICTURES --model mfdn --use_existing --append   # tags that are there are hints, and stay"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mfdn-tag", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="pictures, in sub-folders too")
    parser.add_argument("--model", required=True, help="folder written by train_mfdn.py, or an id on the Hub")
    add = parser.add_argument_group("output").add_argument
    formats = "; ".join(f"{name} = {what}" for name, what in FORMATS.items())
    add("--format", choices=FORMATS, default="txt", help=f"{formats} (default: txt)")
    add("--output", help="file for jsonl and csv (default: FOLDER/tags.jsonl or .csv)")
    add("--overwrite", action="store_true", help="replace what is there")
    add("--append", action="store_true", help="keep the tags of a sidecar and add new ones (txt, hydrus)")
    add("--scores", action="store_true", help="scores too: tag:0.93 in text, numbers in jsonl and csv")
    add("--spreadsheet", action="store_true",
        help="csv for a spreadsheet: a ' before cells that it would take for a formula (= + - @)")  # fmt: skip
    add = parser.add_argument_group("which tags").add_argument
    add("--tag_threshold", type=score, help="score in [0, 1] (default: those stored with the model)")
    add("--character_threshold", type=score, default=0.5, help="score in [0, 1]; above 0.5 one at most (default: 0.5)")
    add("--no_characters", action="store_true", help="tags only")
    add("--max_tags", type=int, help="of each picture (default: all above the threshold)")
    add("--exclude", nargs="+", default=[], metavar="TAG", help="never write these")
    add("--replace", nargs="+", default=[], metavar="OLD=NEW", help="write NEW for OLD")
    add("--first", nargs="+", default=[], metavar="TAG", help="write these at the beginning, always")
    add("--spaces", action="store_true", help="long hair instead of long_hair")
    add("--escape", action="store_true", help="\\( and \\) for parentheses, which some prompts want")
    add("--use_existing", action="store_true", help="tags in a sidecar that is there are hints for the model")
    add = parser.add_argument_group("how").add_argument
    add("--not_recursive", action="store_true", help="leave sub-folders alone")
    add("--batch_size", type=int, default=32, help="pictures at once (default: 32)")
    add("--num_workers", type=int, default=2, help="processes that decode (default: 2)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    return parser


def score(text: str) -> float:
    """A number in [0, 1]."""
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return number


class Pictures(Dataset):
    """Pictures as model inputs; a broken one as the sentence that says why."""

    def __init__(self, paths: list[Path], hints: list[list[str]], processor: MFDNProcessor):
        self.paths, self.hints, self.processor = paths, hints, processor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        try:
            inputs = self.processor(images=[str(self.paths[index])], tags=[self.hints[index]])
            return {"index": index, **{name: values[0] for name, values in inputs.items()}}
        except (ValueError, OSError, TypeError) as error:
            return {"index": index, "problem": " ".join(str(error).split())}


def collate(items: list[dict]) -> dict:
    """The pictures that could be read as one batch; the others by index."""
    good = [item for item in items if "problem" not in item]
    batch = {name: torch.stack([item[name] for item in good]) for name in (good[0] if good else ()) if name != "index"}
    problems = {item["index"]: item["problem"] for item in items if "problem" in item}
    return {"batch": batch, "indices": [item["index"] for item in good], "problems": problems}


def find_pictures(folder: Path, recursive: bool) -> list[Path]:
    """Pictures in a folder, sorted. Raises FileNotFoundError when there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of pictures, {folder} is none.")
    paths = folder.rglob("*") if recursive else folder.iterdir()
    paths = sorted(path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"Expected pictures ({' '.join(SUFFIXES)}) in {folder}, found none.")
    return paths


def results_of(model, processor: MFDNProcessor, loader: DataLoader, hints: list, options) -> Iterator[tuple]:
    """(index, result or None, problem) for every picture, in order of the batches."""
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
            outputs, top_k=min(5, model.config.num_labels), tag_threshold=options.tag_threshold,
            max_tags=options.max_tags, given_tags=given if any(given) else None,
        )  # fmt: skip
        for index, result in zip(items["indices"], found, strict=True):
            yield index, result, None


def check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that contradict one another."""
    in_one_file = options.format in ("jsonl", "csv")
    if in_one_file and options.append:
        raise ValueError("--append adds to sidecars: it goes with --format txt or hydrus.")
    if options.output and not in_one_file:
        raise ValueError(f"--output names the file of jsonl and csv; {options.format} goes beside the pictures.")
    if options.spreadsheet and options.format != "csv":
        raise ValueError("--spreadsheet goes with --format csv.")
    if options.append and options.overwrite:
        raise ValueError("--append keeps what is there, --overwrite does not: choose one.")
    if bad := [entry for entry in options.replace if "=" not in entry]:
        raise ValueError(f"--replace expects OLD=NEW, got {bad[0]!r}.")


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def tag_folder(options: argparse.Namespace) -> dict[str, str]:
    """Everything. Returns the problem of each picture that could not be read.

    Raises ValueError or OSError with a sentence for the user.
    """
    check_options(options)
    folder, in_one_file = Path(options.folder), options.format in ("jsonl", "csv")
    paths = find_pictures(folder, not options.not_recursive)
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    output = Path(options.output or folder / f"tags.{options.format}") if in_one_file else None
    progress = output.with_name(f"{output.name}.partial") if in_one_file else None
    done: dict[str, dict] = {}
    if in_one_file:
        if output.exists() and not options.overwrite:
            raise FileExistsError(f"{output} is there already: --overwrite replaces it, --output names another file.")
        done = finished_records(progress)
        waiting = [path for path in paths if names[path] not in done]
    elif options.overwrite or options.append:
        waiting = paths
    else:
        waiting = [path for path in paths if not sidecar(path, options.format).exists()]
    print(f"{len(paths):,} pictures, {len(paths) - len(waiting):,} have their tags already")

    model = AutoModelForImageClassification.from_pretrained(options.model).eval().to(options.device or best_device())
    processor = MFDNProcessor.from_pretrained(options.model)
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    print(f"device: {model.device}{threads}")
    hints: list[list[str]] = [[] for _ in waiting]
    if options.use_existing:
        known, kind = processor.tokenizer.get_vocab(), "txt" if in_one_file else options.format
        for place, path in enumerate(waiting):
            tags = [plain(as_hint(tag)) for tag in sidecar_tags(sidecar(path, kind))]
            hints[place] = [tag for tag in tags if tag in known]
    pictures = Pictures(waiting, hints, processor)
    loader = DataLoader(pictures, options.batch_size, collate_fn=collate, num_workers=options.num_workers)
    problems: dict[str, str] = {}
    log = progress.open("a", encoding="utf-8") if in_one_file else None
    try:
        found = results_of(model, processor, loader, hints, options)
        for index, result, problem in tqdm(found, "tagging", len(waiting), unit=" pictures", disable=None):
            path = waiting[index]
            if problem:
                problems[names[path]] = problem
                continue
            characters, tags = chosen(result, options)
            if not options.append:  # what the model was told is true as well
                tags = [(tag, None) for tag in hints[index]] + tags
            if in_one_file:
                entry = record(names[path], characters, tags, options)
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")
                log.flush()
                done[names[path]] = entry
            else:
                write_sidecar(sidecar(path, options.format), characters, tags, options)
    finally:
        if log:
            log.close()
    if in_one_file:
        records = [done[names[path]] for path in paths if names[path] in done]
        with whole_file(output) as unfinished:
            if options.format == "csv":
                write_csv(unfinished, records, options.spreadsheet)
            else:
                text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
                unfinished.write_text(text, encoding="utf-8")
        progress.unlink()
    return problems


@command_line
def main(argv: list[str] | None = None) -> int:
    """0; 1 when pictures could not be read (the others are done); 2 after an error of the input, in one sentence."""
    problems = tag_folder(build_parser().parse_args(argv))
    for name, problem in problems.items():
        print(f"not read: {name!r}: {printable(problem)}", file=sys.stderr)
    if problems:
        print(f"{len(problems):,} pictures could not be read; all others are done.", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
