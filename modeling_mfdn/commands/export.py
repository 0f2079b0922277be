"""`mfdn export`: a trained model as ONNX."""

from enum import StrEnum
from typing import Annotated

from typer import Option

from ..training.terminal import command_line, exits

Split = StrEnum("Split", ["validation", "test"])
Layout = StrEnum("Layout", ["mfdn", "wd"])


@exits
@command_line
def export_command(
    model: Annotated[str, Option("--model", help="folder written by train_mfdn.py, or an id on the Hub")],
    output: Annotated[str, Option("--output", help="folder to write")] = "mfdn_onnx",
    overwrite: Annotated[bool, Option("--overwrite", help="replace a folder that an earlier export wrote")] = False,
    int8: Annotated[bool, Option("--int8", help="also graphs with int8 weights")] = False,
    fp16: Annotated[bool, Option("--fp16", help="also graphs in half precision, for GPUs")] = False,
    layout: Annotated[
        Layout, Option("--layout", help="wd = one graph and list as front ends of WD taggers read them")
    ] = Layout.mfdn,
    embeddings: Annotated[bool, Option("--embeddings", help="wd: a second output, which imgutils asks for")] = False,
    dataset: Annotated[
        str | None, Option("--dataset", help="measure every graph on this data set, and count its tags")
    ] = None,
    split: Annotated[Split, Option("--split", help="of the data set")] = Split.validation,
) -> int:
    """Export a model as model.onnx (picture alone) and model_with_tags.onnx (picture and hints).

    Both are compared with PyTorch before anything is written. Example: mfdn export --model mfdn --output mfdn_onnx
    """
    variants = [name for name, is_wanted in (("int8", int8), ("fp16", fp16)) if is_wanted]
    if layout is Layout.wd and variants:
        raise ValueError("--layout wd is one graph, in float32: leave --int8 and --fp16 out.")
    if embeddings and layout is not Layout.wd:
        raise ValueError("--embeddings goes with --layout wd; the other graphs have them anyway.")
    try:
        from ..publishing.onnx_export import export, export_folder

        if layout is Layout.wd:
            from ..publishing.wd_layout import export_wd

            export_folder(output, overwrite, lambda folder: export_wd(model, folder, dataset, embeddings))
        else:
            export_folder(output, overwrite, lambda folder: export(model, folder, variants, dataset, split.value))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}. Run: pip install 'mfdn[onnx]'") from error
    return 0
