"""A page to try a model in: picture and hints in, characters and tags out. Needs `pip install mfdn[gradio]`.

    python -m modeling_mfdn.publishing.gradio_app --model mfdn
"""

import argparse
from typing import Any

from transformers import AutoModelForImageClassification

from modeling_mfdn import MFDNPipeline, MFDNProcessor
from modeling_mfdn.training.terminal import command_line


def name_picture(tagger: Any, picture: Any, hints: list[str] | None, threshold: float) -> tuple[dict, dict, str]:
    """({character: score}, {tag: score}, the tags as a line to copy); empty without a picture.

    Args:
        tagger: the pipeline "character-tagging".
        picture: PIL, or None.
        hints: tags that the user is sure of.
        threshold: in [0, 1], of tags.
    """
    if picture is None:
        return {}, {}, ""
    reads_tags = tagger.model.config.modality == "image+tags"
    result = tagger(picture, tags=hints or None if reads_tags else None, tag_threshold=threshold)
    characters = {entry["label"]: entry["score"] for entry in result["characters"]}
    tags = {entry["label"]: entry["score"] for entry in result["tags"]}
    return characters, tags, ", ".join([*(hints or []), *tags])


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
            raise gradio.Error(str(error)) from error

    with gradio.Blocks(title="MFDN: who is in the picture?") as app:
        known = f"{config.num_labels:,} characters and {config.num_tags:,} tags"
        gradio.Markdown(f"# Who is in the picture?\nKnows {known}.")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="pil", label="Picture", image_mode=None)
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
                line = gradio.Textbox(label="Tags as text", buttons=["copy"], interactive=False)
        for part in (picture, hints, threshold):
            part.change(run, [picture, hints, threshold], [characters, tags, line])
    return app


@command_line
def main(argv: list[str] | None = None) -> int:
    """0; 2 without gradio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mfdn", help="folder or Hub id (default: mfdn)")
    parser.add_argument("--port", type=int, default=7860, help="on this machine (default: 7860)")
    args = parser.parse_args(argv)
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
