"""`mfdn review`: look at what mfdn tag wrote, and correct it."""

from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits


@exits
@command_line
def review(
    folder: Annotated[str, Argument(help="pictures that mfdn tag has seen")],
    port: Annotated[int, Option("--port", min=0, max=65_535, help="0 = any that is free")] = 0,
    open_browser: Annotated[bool, Option("--open", help="open the page in the browser of this machine")] = False,
) -> int:
    """Serve the page that reviews a folder, on this machine alone, and save what is corrected beside the pictures.

    The least certain come first; keys: 1 to 5 name the character, Enter says that all is right, u takes back. Captions
    are replaced whole, and only where they are still what the page showed. Example: mfdn review PICTURES
    """
    from ..tagging.review import review_folder

    review_folder(folder, port, open_browser)
    return 0
