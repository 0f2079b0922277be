"""`mfdn teach`: characters from a few pictures each."""

from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits

NONE: list[str] = []  # typer makes a new list of it


@exits
@command_line
def teach(
    model: Annotated[str, Option("--model", help="folder written by train_mfdn.py, or an id on the Hub")],
    output: Annotated[
        str,
        Option(
            "--output",
            help="folder for the model with what it was taught; the model's own, to teach it in its place; or "
            "FILE.safetensors, for the taught characters alone",
        ),
    ],
    folder: Annotated[
        str | None,
        Argument(
            help="one sub-folder a character, with its name: FOLDER/my_character/1.png; or names.json of mfdn group"
        ),
    ] = None,
    gallery: Annotated[
        list[str],
        Option(
            "--gallery",
            help="FILE.safetensors: add the characters of a gallery of the same model (several times for several)",
        ),
    ] = NONE,
    forget: Annotated[list[str], Option("--forget", metavar="NAME ...", help="that were taught before")] = NONE,
    statistics: Annotated[
        str | None,
        Option(
            "--statistics",
            help="DATASET with characters that the model knows: for a model that was trained before it could be "
            "taught, or imported",
        ),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace a model that is there")] = False,
    no_thumbnails: Annotated[
        bool, Option("--no_thumbnails", help="keep no small picture of each character in the gallery")
    ] = False,
    batch_size: Annotated[int, Option("--batch_size", min=1, help="pictures at once")] = 32,
    num_workers: Annotated[int, Option("--num_workers", min=0, help="processes that decode")] = 2,
    device: Annotated[str | None, Option("--device", help="cpu, cuda, cuda:1, mps; default the best there is")] = None,
) -> int:
    """Teach a model characters from a few pictures each: seconds, no training, no data set.

    From then on they stand in one ranking with those that it was trained on. Five pictures of a character do well, one
    does something; pictures of a name that was taught before are added.

    Example: mfdn teach FOLDER --model mfdn --output mfdn_taught
    """
    options = locals()
    from ..tagging.teach_folder import TeachOptions, teach_folder

    return teach_folder(TeachOptions(**options))
