"""A page to try a model in: picture and hints in, characters and tags out. Needs `pip install mfdn[gradio]`.

python -m modeling_mfdn.publishing.gradio_app --model mfdn
"""

import argparse
import html
from typing import Any

from transformers import AutoModelForImageClassification

from .. import MFDNPipeline, MFDNProcessor
from ..training.terminal import check_model_name, command_line

CHARACTER_THRESHOLD = 0.5  # from here on a character is in the line to copy, as mfdn-tag writes it


def name_picture(tagger: Any, picture: Any, hints: list[str] | None, threshold: float) -> tuple[dict, dict, str]:
    """({character: score}, {tag: score}, character and tags as a line to copy); empty without a picture.

    Args:
        tagger: the pipeline "character-tagging".
        picture: whatever the pipeline takes, or None. The page gives a path: only the pipeline opens pictures.
        hints: tags that the user is sure of.
        threshold: in [0, 1], of tags.
    """
    if picture is None:
        return {}, {}, ""
    reads_tags = tagger.model.config.modality == "image+tags"
    result = tagger(picture, tags=hints or None if reads_tags else None, tag_threshold=threshold)
    characters = {entry["label"]: entry["score"] for entry in result["characters"]}
    tags = {entry["label"]: entry["score"] for entry in result["tags"]}
    sure = [name for name, score in characters.items() if score >= CHARACTER_THRESHOLD]
    return characters, tags, ", ".join([*sure, *(hints or []), *tags])


def name_new_picture(
    tagger: Any, picture: Any, hints: list[str] | None, threshold: float, had_picture: bool
) -> tuple[list[str], bool, dict, dict, str]:
    """(hints, whether there is a picture, then as [`name_picture`]): the hints of one picture are not for the next."""
    hints = [] if had_picture else list(hints or [])
    return hints, picture is not None, *name_picture(tagger, picture, hints, threshold)


def build_app(tagger: Any):
    """The page as gradio.Blocks."""
    import gradio

    processor, config = tagger.processor, tagger.model.config
    first = len(processor.tokenizer) - config.num_tags
    vocabulary = processor.tokenizer.convert_ids_to_tokens(list(range(first, len(processor.tokenizer))))

    def run(picture, hints, threshold):
        try:
            return name_picture(tagger, picture, hints, threshold)
        except (ValueError, OSError) as error:
            raise gradio.Error(html.escape(str(error))) from error  # shown as HTML

    def run_new(picture, hints, threshold, had_picture):
        try:
            return name_new_picture(tagger, picture, hints, threshold, had_picture)
        except (ValueError, OSError) as error:  # an Error would leave the names of the picture before beside this one
            gradio.Warning(html.escape(str(error)))
            return [], True, {}, {}, ""

    with gradio.Blocks(title="MFDN: who is in the picture?") as app:
        known = f"{config.num_labels:,} characters and {config.num_tags:,} tags"
        gradio.Markdown(f"# Who is in the picture?\nKnows {known}.")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="filepath", label="Picture", image_mode=None)
                had_picture = gradio.State(False)
                hints = gradio.Dropdown(
                    vocabulary,
                    multiselect=True,
                    max_choices=processor.max_tags,
                    label="Hints: tags that you are sure of",
                    visible=config.modality == "image+tags",
                )
                threshold = gradio.Slider(0, 1, value=processor.tag_threshold, step=0.01, label="Tags from a score of")
            with gradio.Column():
                characters = gradio.Label(label="Characters", num_top_classes=5)
                tags = gradio.Label(label="Tags", show_heading=False, visible=config.num_tags > 0)
                line = gradio.Textbox(label="Character and tags as text", buttons=["copy"], interactive=False)
        found = [characters, tags, line]
        asked = [picture, hints, threshold]
        picture.change(run_new, [*asked, had_picture], [hints, had_picture, *found])
        for part in (hints, threshold):  # input: by the user, not by the line above
            part.input(run, asked, found)
    return app


@command_line
def main(argv: list[str] | None = None) -> int:
    """0; 2 after an error, in one sentence, and without gradio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mfdn", help="folder or Hub id (default: mfdn)")
    parser.add_argument("--port", type=int, default=7860, help="on this machine (default: 7860)")
    args = parser.parse_args(argv)
    check_model_name(args.model)
    # Weights from anywhere, code from this package alone.
    model = AutoModelForImageClassification.from_pretrained(args.model)
    try:
        app = build_app(MFDNPipeline(model=model, processor=MFDNProcessor.from_pretrained(args.model)))
    except ImportError as error:
        raise ModuleNotFoundError(f"{error}. Run: pip install 'mfdn[gradio]'") from error
    app.launch(server_name="127.0.0.1", server_port=args.port)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
