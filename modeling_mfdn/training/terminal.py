"""What commands share: errors as one sentence, safe terminal output, and checks of arguments."""

import argparse
import difflib
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path


def printable(text: object) -> str:
    """Text of others for a terminal: what could move its cursor, colour it or set its title is shown as an escape,
    and so are bytes of a file name that are no text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def command_line(main: Callable) -> Callable:
    """A function that returns an exit code, for people: what it raises for their input (ValueError, OSError) is one
    sentence and 2, a missing package 2 and its name, Ctrl-C 130. Characters that a terminal lacks are escaped."""

    @functools.wraps(main)
    def run(*args, **kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):  # a log file in cp1252 must not end a night's work at an arrow
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ValueError, OSError, ModuleNotFoundError) as error:
            print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
            return 2

    return run


def exits(main: Callable) -> Callable:
    """A function that returns an exit code as a command of typer, which ends with it."""

    @functools.wraps(main)
    def run(*args, **kwargs):
        import typer

        raise typer.Exit(main(*args, **kwargs))

    return run


def score(text: str) -> float:
    """Parse a number in [0, 1]."""
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return number


def count(text: str) -> int:
    """Parse an integer of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {text}")
    return number


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text}")
    return number


def is_hub_id(name: str) -> bool:
    """Whether a name may be `OWNER/NAME` on the Hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # a third of a second

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def check_model_name(name: str) -> str:
    """A --model as it is: a folder that holds a saved model, or an id OWNER/NAME, which the Hub is asked for.

    `runs/mfdm` is taken for a mistyped folder where `runs` holds models; without this it would be a connection error.

    Raises:
        FileNotFoundError: it can be neither, in a sentence that says what is there and what has a near name.
        ValueError: a file of the folder is cut or damaged.
    """
    folder = Path(name)
    if name and (folder / "config.json").is_file():
        check_model_files(folder)
        return name
    beside = model_folders(folder.parent)
    if is_hub_id(name) and not beside and not folder.exists():
        return name
    near = [str(folder.parent / found) for found in difflib.get_close_matches(folder.name, beside, cutoff=0.5)]
    found = "there is no such folder here, and an id on the Hub is OWNER/NAME"
    if name and folder.is_dir():
        found = "that folder holds no config.json"
        near = [str(folder / found) for found in model_folders(folder)]
    elif folder.is_file():
        found = "that is a file; expected the folder that holds it"
    near += [str(folder.parent / found) for found in beside if str(folder.parent / found) not in near]
    raise FileNotFoundError(
        f"There is no model {name!r}: {found}." + (f" Models are in {', '.join(near[:4])}." if near else "")
    )


def check_model_files(folder: Path) -> None:
    """Raises ValueError for a file of a saved model that is cut or damaged, which else would be a traceback."""
    from safetensors import SafetensorError, safe_open

    for file in sorted([*folder.glob("*.json"), *folder.glob("model*.safetensors")]):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            else:
                with safe_open(file, "pt"):  # compares its header with its size
                    pass
        except (ValueError, SafetensorError) as error:
            raise ValueError(f"{file} is cut or damaged ({error}): save or download the model again.") from error


def check_device(name: str):
    """The torch.device of a --device that is there. Raises ValueError otherwise."""
    import torch  # takes seconds, and --help should not

    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"Expected a device that is there, such as cpu, cuda, cuda:1 or mps, got {name!r}: {reason}"
        ) from error


def model_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold a saved model, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file())
