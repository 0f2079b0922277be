"""`mfdn page`: a web page that names characters in the browser."""

from typing import Annotated

from typer import Option

from ..training.terminal import command_line, exits


@exits
@command_line
def page(
    onnx: Annotated[str | None, Option("--onnx", help="folder from mfdn export; without it, only serve")] = None,
    output: Annotated[str, Option("--output", help="folder of the page")] = "site",
    int8: Annotated[bool, Option("--int8", help="take the int8 graphs: a quarter of the download")] = False,
    title: Annotated[str, Option("--title", help="of the page")] = "Who is in the picture?",
    samples: Annotated[
        str | None, Option("--samples", help="folder of up to 8 pictures to try; default: those of the ONNX folder")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="replace a page that an earlier run wrote")] = False,
    onnxruntime_web: Annotated[
        str | None, Option("--onnxruntime_web", help="onnxruntime-web's dist/ or .tgz, where there is no network")
    ] = None,
    serve: Annotated[int | None, Option("--serve", metavar="[PORT]", help="serve it here afterwards (8000)")] = None,
) -> int:
    """Make a static page from an ONNX folder; no picture leaves the browser. The folder is a static Space too.

    Example: mfdn page --onnx mfdn_onnx --output site --serve
    """
    from ..publishing.web_page import make_page

    make_page(onnx, output, int8, title, overwrite, onnxruntime_web, serve, samples)
    return 0
