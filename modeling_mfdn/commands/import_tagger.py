"""`mfdn import`: a published tagger as a model of ours."""

from typing import Annotated

from typer import Argument, Option

from ..training.terminal import command_line, exits


@exits
@command_line
def import_tagger(
    source: Annotated[str, Argument(help="OWNER/NAME on the Hub, or a folder with the same files")],
    output: Annotated[str, Option("--output", help="folder to write")],
    licence: Annotated[
        str | None, Option("--licence", help="of the weights; default what the card beside them says")
    ] = None,
    rgb: Annotated[bool, Option("--rgb", help="it reads red first; WD taggers read blue first")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="replace a model that is there")] = False,
) -> int:
    """Make a published tagger a model of ours: tags, characters and ratings, with the scores that it always gave.

    Expected are config.json (timm), model.safetensors and selected_tags.csv, as WD taggers have them. ViT
    and EVA02 can be taken. Then mfdn tag, export and page, the pipeline and evaluate_mfdn.py take it, and
    train_mfdn.py --vision_weights starts from it.

    Example: mfdn import SmilingWolf/wd-vit-tagger-v3 --output wd
    """
    from ..publishing.cards import write_hub_files
    from ..training.files import public_name, replace_folder
    from ..training.import_tagger import read_tagger
    from ..training.run_folder import save_artifacts

    with replace_folder(output, "processor_config.json", overwrite) as unfinished:
        tagger = read_tagger(source, licence, not rgb)
        facts = {"imported": tagger.facts}
        save_artifacts(tagger.model, tagger.processor, str(unfinished), facts, tagger.vocabulary)
        write_hub_files(unfinished, public_name(output))
    counted = ", ".join(f"{tagger.facts[kind]:,} {kind}" for kind in ("tags", "characters", "ratings"))
    print(f"{output}: {counted}; licence of the weights: {tagger.facts['licence']}.")
    print(f"Try it: mfdn tag PICTURES --model {output}")
    return 0
