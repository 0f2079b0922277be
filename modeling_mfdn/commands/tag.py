"""`mfdn tag`: characters and tags of a folder of pictures."""

from enum import StrEnum
from typing import Annotated

from typer import Argument, Option

from ..training.terminal import check_model_name, command_line, exits

Format = StrEnum("Format", ["txt", "hydrus", "jsonl", "csv"])
NONE: list[str] = []  # typer makes a new list of it


@exits
@command_line
def tag(
    folder: Annotated[str, Argument(help="pictures, in sub-folders too")],
    model: Annotated[str, Option("--model", help="folder written by train_mfdn.py, or an id on the Hub")],
    format: Annotated[
        Format,
        Option(
            "--format",
            help="txt = PICTURE.txt, one line of tags, as for kohya; hydrus = PICTURE.EXT.txt, a tag a line, "
            "character:NAME; jsonl, csv = one file",
        ),
    ] = Format.txt,
    output: Annotated[str | None, Option("--output", help="file for jsonl and csv; default FOLDER/tags.jsonl")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace what is there")] = False,
    append: Annotated[bool, Option("--append", help="keep the tags of a caption and add new ones")] = False,
    full_names: Annotated[
        bool, Option("--full_names", help="PICTURE.EXT.txt, so a.png and a.jpg get one each")
    ] = False,
    scores: Annotated[bool, Option("--scores", help="tag:0.93 in text, numbers in jsonl and csv")] = False,
    spreadsheet: Annotated[
        bool, Option("--spreadsheet", help="csv: a ' before cells that start with = + - @")
    ] = False,
    tag_threshold: Annotated[
        float | None, Option("--tag_threshold", min=0, max=1, help="score; default those stored with the model")
    ] = None,
    character_threshold: Annotated[
        float | None, Option("--character_threshold", min=0, max=1, help="score; default that stored with the model")
    ] = None,
    no_characters: Annotated[bool, Option("--no_characters", help="tags only")] = False,
    rating: Annotated[
        bool, Option("--rating", help="write the likeliest rating into captions too, of models that name them")
    ] = False,
    max_tags: Annotated[int | None, Option("--max_tags", min=0, help="of each picture; default all above it")] = None,
    exclude: Annotated[list[str], Option("--exclude", metavar="TAG ...", help="never write these")] = NONE,
    replace: Annotated[list[str], Option("--replace", metavar="OLD=NEW ...", help="write NEW for OLD")] = NONE,
    first: Annotated[list[str], Option("--first", metavar="TAG ...", help="write these at the beginning")] = NONE,
    spaces: Annotated[bool, Option("--spaces", help="long hair instead of long_hair")] = False,
    escape: Annotated[bool, Option("--escape", help="\\( and \\) for parentheses, which some prompts want")] = False,
    use_existing: Annotated[bool, Option("--use_existing", help="tags of a caption are hints for the model")] = False,
    gallery: Annotated[
        str | None, Option("--gallery", help="FILE.safetensors of mfdn teach: characters that the model was taught")
    ] = None,
    unknown_threshold: Annotated[
        float | None,
        Option(
            "--unknown_threshold",
            min=0,
            max=1,
            help="write no character where it is more probable that the model knows none of the picture; default 0.5, "
            "and 1, which writes all, for a model that has no character statistics",
        ),
    ] = None,
    unknown_list: Annotated[
        str | None, Option("--unknown_list", help="FILE to write the names of such pictures to, a line each")
    ] = None,
    not_recursive: Annotated[bool, Option("--not_recursive", help="leave sub-folders alone")] = False,
    batch_size: Annotated[int, Option("--batch_size", min=1, help="pictures at once")] = 32,
    num_workers: Annotated[int, Option("--num_workers", min=0, help="processes that decode")] = 2,
    device: Annotated[str | None, Option("--device", help="cpu, cuda, cuda:1, mps; default the best there is")] = None,
) -> int:
    """Write the characters and tags of a folder of pictures beside them, or into one file.

    Nothing is overwritten unless --overwrite or --append says so; started again, it goes on with what is missing. What
    could not be done is named at the end and costs nothing else.

    Captions that are read: PICTURE.txt, PICTURE.EXT.txt, PICTURE.caption, in UTF-8 or with a byte order mark; one of
    several lines gets new tags at the end of its first line, or, where each line is one tag, lines of their own.

    Example: mfdn tag PICTURES --model mfdn --exclude solo 1girl --replace grey_hair=gray_hair --first my_style
    """
    options = locals() | {"format": format.value}
    check_model_name(model)
    from ..tagging.tag_folder import TagOptions, tag_folder

    return tag_folder(TagOptions(**options)).show()
