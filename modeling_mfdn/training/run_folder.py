"""The folder of a training run: checks before writing, complete checkpoints, the final model."""

import json
import os
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import get_last_checkpoint

from ..data.lists import VOCABULARY_FILE
from ..gallery_mfdn import GALLERY_FILE, STATISTICS_FILE
from .files import write_whole

UNFINISHED = "checkpoint.unfinished"  # a checkpoint is written in here, and moved out when it is whole
UNFINISHED_MODEL = "model.unfinished"
# What says something of one model: with another model it would be wrong.
OF_ONE_MODEL = (
    "model*.safetensors",
    "model.safetensors.index.json",
    STATISTICS_FILE,
    GALLERY_FILE,
    "training.json",
    VOCABULARY_FILE,
    "results*.json",
    "predictions*.parquet",
    "trainer_state.json",
    "*.png",
    "samples/*.jpg",
    ".eval_results/*.yaml",
)


def check_run_folder(folder: str, overwrite: bool, resume: str | None) -> None:
    """Raises ValueError where a model, or checkpoints of one, would be mixed with those of this run."""
    for name, found in (("config.json", "a trained model"), ("checkpoint-*", "checkpoints of another run")):
        if any(Path(folder).glob(name)) and not overwrite and resume is None:
            raise ValueError(
                f"{folder} already holds {found}. Pass --output_dir for another folder, --overwrite to replace "
                "it, or --resume_from_checkpoint last to go on."
            )


def remove_checkpoints(folder: str, only_unfinished: bool) -> None:
    """Those of an earlier run, the newest of which would be taken for this run's; or only what is left of a save that
    was killed."""
    for checkpoint in Path(folder).glob(UNFINISHED if only_unfinished else "checkpoint[-.]*"):
        shutil.rmtree(checkpoint)


def find_checkpoint(folder: str, asked: str | None) -> str | None:
    """The checkpoint to go on from; None to begin anew.

    Args:
        folder: of the run.
        asked: "last" or "True" for the newest whole one in `folder`, a path, or the name of one in `folder`.

    Raises:
        ValueError: there is none, or the one asked for is not whole, with the reason.
    """
    if asked in (None, "False", "false"):
        return None
    if asked not in ("last", "True", "true"):
        return check_checkpoint(folder, asked)
    skipped = []
    for step in sorted(checkpoint_steps(folder), reverse=True):
        checkpoint = Path(folder, f"checkpoint-{step}")
        if (reason := what_is_missing(checkpoint)) is None:
            return str(checkpoint)
        skipped.append(f"{checkpoint.name} ({reason})")
        print(f"Skipped {checkpoint}: {reason}.", flush=True)
    found = f"found only {', '.join(skipped)}" if skipped else "found none"
    raise ValueError(f"Expected a whole checkpoint-* folder in {folder} to resume from, {found}.")


def check_checkpoint(folder: str, asked: str) -> str:
    """The path of a checkpoint that was asked for by path or name."""
    checkpoint = Path(asked) if Path(asked).is_dir() else Path(folder, asked)
    if not checkpoint.is_dir():
        names = [f"checkpoint-{step}" for step in checkpoint_steps(folder)]
        raise ValueError(
            f"There is no checkpoint {asked}, here or in {folder}"
            + (f"; there are {', '.join(names)}." if names else ", which holds none.")
        )
    if reason := what_is_missing(checkpoint):
        newest = get_last_checkpoint(str(checkpoint)) if checkpoint_steps(checkpoint) else None
        hint = f" Did you mean {newest}?" if newest else " --resume_from_checkpoint last takes the newest whole one."
        raise ValueError(f"Cannot resume from {checkpoint}: {reason}.{hint}")
    return str(checkpoint)


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The steps of the checkpoints in a folder, rising."""
    names = [path.name.removeprefix("checkpoint-") for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def what_is_missing(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be resumed from; None where it can.

    A run that was killed, or a disk that was full, leaves files that are cut or not there. Weights alone are not
    enough: without the optimizer's momentum and the state of the schedule the run would go on to other weights.
    """
    if not any((checkpoint / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return "it has no model.safetensors"
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json"):
        if not (checkpoint / name).is_file():
            return f"it has no {name}, so the run would go on to other weights"
    if not any(checkpoint.glob("rng_state*.pth")):
        return "it has no rng_state.pth, so the run would go on to other weights"
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        if not isinstance(state.get("global_step"), int):
            return "its trainer_state.json says no step"
    except (ValueError, AttributeError):
        return "its trainer_state.json is cut or damaged"
    for file in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):  # compares the header with the size of the file
                pass
        except SafetensorError:
            return f"its {file.name} is cut or damaged"
    for file in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        try:
            with zipfile.ZipFile(file) as archive:  # torch.save writes one, with a sum for each part
                if archive.testzip() is not None:
                    return f"its {file.name} is damaged"
        except (zipfile.BadZipFile, EOFError):
            return f"its {file.name} is cut or damaged"
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"its {index.name} is cut or damaged"
        if absent := sorted(name for name in shards if not (checkpoint / name).is_file()):
            return f"it has no {absent[0]}"
    return None


def save_artifacts(model, processor, folder: str, training: dict, vocabulary: dict) -> None:
    """Model, processor, tokenizer, code, training.json and vocabulary.json, moved into `folder` when all is written;
    what an earlier model left there goes."""
    unfinished = Path(folder, UNFINISHED_MODEL)
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    write_whole(unfinished / "training.json", json.dumps(training, indent=2, ensure_ascii=False) + "\n")
    write_whole(unfinished / VOCABULARY_FILE, json.dumps(vocabulary, ensure_ascii=False) + "\n")
    for pattern in OF_ONE_MODEL:
        for file in Path(folder).glob(pattern):
            file.unlink()
    for file in unfinished.iterdir():
        os.replace(file, Path(folder, file.name))
    unfinished.rmdir()
