"""`mfdn tag`: characters and tags of a folder of pictures."""

from enum import StrEnum
from functools import partial
from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits

Format = StrEnum("Format", ["txt", "hydrus", "jsonl", "csv", "parquet", "imagefolder", "xmp"])
Variant = StrEnum("Variant", ["int8", "fp16"])
NONE: list[str] = []  # typer makes a new list of it

Place = partial(Option, rich_help_panel="Where it is written")
What = partial(Option, rich_help_panel="What is written")
Spelling = partial(Option, rich_help_panel="Order and spelling")
Model = partial(Option, rich_help_panel="The model and its work")


@exits
@command_line
def tag(
    folder: Annotated[str, Argument(help="pictures, and films, in sub-folders too; what is hidden is left alone")],
    model: Annotated[
        str,
        Model("--model", help="folder that training or mfdn export wrote, or an id on the Hub; ONNX needs no torch"),
    ],
    format: Annotated[
        Format,
        Place(
            "--format",
            help="txt = PICTURE.txt, one line of tags, as for kohya; hydrus = PICTURE.EXT.txt, a tag a line, "
            "character:NAME; xmp = PICTURE.EXT.xmp for digiKam, Immich, Lightroom; in one file: jsonl, csv, parquet; "
            "imagefolder = metadata.jsonl, which load_dataset reads",
        ),
    ] = Format.txt,
    output: Annotated[
        str | None, Place("--output", help="file for jsonl, csv and parquet; default FOLDER/tags.jsonl")
    ] = None,
    copy_to: Annotated[
        str | None, Place("--copy_to", help="xmp: FOLDER for copies of the pictures that hold their tags")
    ] = None,
    overwrite: Annotated[bool, Place("--overwrite", help="replace what is there")] = False,
    append: Annotated[
        bool, Place("--append", "--append_tags", help="keep the tags of a caption and add new ones")
    ] = False,
    dry_run: Annotated[bool, Place("--dry_run", help="say what would be written, and write nothing")] = False,
    recursive: Annotated[bool, Place("--recursive/--not_recursive", help="sub-folders too")] = True,
    full_names: Annotated[
        bool, Place("--full_names", help="PICTURE.EXT.txt, so a.png and a.jpg get one each")
    ] = False,
    caption_extension: Annotated[
        str | None, Place("--caption_extension", help="of captions, such as .caption; default .txt, or as they are")
    ] = None,
    spreadsheet: Annotated[bool, Place("--spreadsheet", help="csv: a ' before cells that start with = + - @")] = False,
    row_per_tag: Annotated[bool, Place("--row_per_tag", help="csv: file, kind, name, score; a row a tag")] = False,
    no_review: Annotated[bool, Place("--no_review", help="write no review.html into the folder")] = False,
    frequency_tags: Annotated[bool, Place("--frequency_tags", help="count all tags at the end, not ten")] = False,
    tag_threshold: Annotated[
        float | None,
        What(
            "--tag_threshold", "--general_threshold", min=0, max=1, help="score; default those stored with the model"
        ),
    ] = None,
    character_threshold: Annotated[
        float | None, What("--character_threshold", min=0, max=1, help="score; default that stored with the model")
    ] = None,
    thresh: Annotated[
        float | None, What("--thresh", min=0, max=1, help="both of these, where they are not given")
    ] = None,
    unknown_threshold: Annotated[
        float | None,
        What(
            "--unknown_threshold",
            min=0,
            max=1,
            help="write no character where it is more probable that the model knows none of the picture; default 0.5, "
            "and 1, which writes all, for a model that has no character statistics",
        ),
    ] = None,
    no_characters: Annotated[bool, What("--no_characters", help="tags only")] = False,
    series: Annotated[bool, What("--series", help="behind a character the series that it is from")] = False,
    rating: Annotated[
        bool,
        What("--rating", "--use_rating_tags_as_last_tag", help="the likeliest rating last, of models that name them"),
    ] = False,
    use_rating_tags: Annotated[bool, What("--use_rating_tags", help="the likeliest rating first")] = False,
    max_tags: Annotated[int | None, What("--max_tags", min=0, help="of each picture; default all above it")] = None,
    no_implied: Annotated[
        bool, What("--no_implied", help="leave out what another tag says, shirt beside white_shirt")
    ] = False,
    prune_character_tags: Annotated[
        float | None,
        What(
            "--prune_character_tags",
            min=0.5,
            max=1,
            help="leave out tags that this share of the character's posts have, 0.8 for example: to train a LoRA",
        ),
    ] = None,
    exclude: Annotated[list[str], What("--exclude", metavar="TAG ...", help="never write these")] = NONE,
    undesired_tags: Annotated[str, What("--undesired_tags", metavar="TAG,TAG", help="the same, as kohya has it")] = "",
    unknown_list: Annotated[
        str | None, What("--unknown_list", help="FILE to write the names of pictures of unknown characters to")
    ] = None,
    first: Annotated[list[str], Spelling("--first", metavar="TAG ...", help="write these at the beginning")] = NONE,
    always_first_tags: Annotated[
        str, Spelling("--always_first_tags", metavar="TAG,TAG", help="the same, as kohya has it")
    ] = "",
    last: Annotated[list[str], Spelling("--last", metavar="TAG ...", help="write these at the end")] = NONE,
    character_tags_first: Annotated[
        bool, Spelling("--character_tags_first/--character_tags_last", help="characters before or behind the tags")
    ] = True,
    replace: Annotated[list[str], Spelling("--replace", metavar="OLD=NEW ...", help="write NEW for OLD")] = NONE,
    tag_replacement: Annotated[
        str, Spelling("--tag_replacement", metavar="OLD,NEW;OLD,NEW", help="the same, as kohya has it")
    ] = "",
    spaces: Annotated[
        bool, Spelling("--spaces", "--remove_underscore", help="long hair instead of long_hair")
    ] = False,
    escape: Annotated[bool, Spelling("--escape", help="\\( and \\) for parentheses, which some prompts want")] = False,
    caption_separator: Annotated[str, Spelling("--caption_separator", help="between two tags of a line")] = ", ",
    scores: Annotated[bool, Spelling("--scores", help="tag:0.93 in text, numbers in the one file")] = False,
    use_existing: Annotated[bool, Model("--use_existing", help="tags of a caption are hints for the model")] = False,
    gallery: Annotated[
        str | None, Model("--gallery", help="FILE.safetensors of mfdn teach: characters that the model was taught")
    ] = None,
    dataset: Annotated[
        str | None,
        Model("--dataset", help="whose lists know series, implied and constant tags; default: those of the model"),
    ] = None,
    variant: Annotated[Variant | None, Model("--variant", help="of the graphs of an ONNX folder")] = None,
    every: Annotated[
        float, Model("--every", min=0.01, help="seconds between two frames of a film that are seen")
    ] = 1.0,
    batch_size: Annotated[int, Model("--batch_size", min=1, help="pictures at once")] = 32,
    num_workers: Annotated[
        int, Model("--num_workers", "--max_data_loader_n_workers", min=0, help="threads that decode")
    ] = 2,
    device: Annotated[str | None, Model("--device", help="cpu, cuda, cuda:1, mps; default the best there is")] = None,
) -> int:
    """Write the characters and tags of a folder of pictures beside them, or into one file.

    Nothing is overwritten unless --overwrite or --append says so; started again, it goes on with what is missing, and
    with pictures that came later. What could not be done is named at the end and costs nothing else. review.html shows
    what was found; mfdn review corrects it.

    Captions that are read: PICTURE.txt, PICTURE.EXT.txt, PICTURE.caption, in UTF-8 or with a byte order mark; one of
    several lines gets new tags at the end of its first line, or, where each line is one tag, lines of their own.

    Example: mfdn tag PICTURES --model mfdn --exclude solo 1girl --replace grey_hair=gray_hair --first my_style
    """
    options = locals() | {"format": format.value, "variant": variant and variant.value}
    if (thresh := options.pop("thresh")) is not None:
        for name in ("tag_threshold", "character_threshold"):
            options[name] = thresh if options[name] is None else options[name]
    from ..tagging.tag_folder import TagOptions, tag_folder

    return tag_folder(TagOptions(**options)).show()
