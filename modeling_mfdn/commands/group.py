"""`mfdn group`: who are these? Pictures of unknown characters, group by group."""

from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits


@exits
@command_line
def group(
    folder: Annotated[str, Argument(help="pictures, in sub-folders too")],
    model: Annotated[str, Option("--model", help="folder written by train_mfdn.py, or an id on the Hub")],
    output: Annotated[str, Option("--output", help="folder of the page")] = "groups",
    gallery: Annotated[
        str | None, Option("--gallery", help="FILE.safetensors of mfdn teach: characters that the model was taught")
    ] = None,
    unknown_threshold: Annotated[
        float,
        Option(
            "--unknown_threshold",
            min=0,
            max=1,
            help="group the pictures where it is more probable that the model knows none of the picture; 0 takes all",
        ),
    ] = 0.5,
    min_size: Annotated[int, Option("--min_size", min=2, help="pictures that a group has at least")] = 3,
    overwrite: Annotated[bool, Option("--overwrite", help="replace a page of an earlier run")] = False,
    not_recursive: Annotated[bool, Option("--not_recursive", help="leave sub-folders alone")] = False,
    batch_size: Annotated[int, Option("--batch_size", min=1, help="pictures at once")] = 32,
    num_workers: Annotated[int, Option("--num_workers", min=0, help="processes that decode")] = 2,
    device: Annotated[str | None, Option("--device", help="cpu, cuda, cuda:1, mps; default the best there is")] = None,
) -> int:
    """Group the pictures of characters that the model does not know, on a page where you name them.

    The page saves names.json, and mfdn teach names.json teaches the model who they are.

    Example: mfdn group PICTURES --model mfdn --output groups
    """
    options = locals()
    from ..tagging.group_folder import GroupOptions, group_folder

    return group_folder(GroupOptions(**options))
