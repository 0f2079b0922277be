"""`mfdn serve`: a tagger for programs, over HTTP."""

from enum import StrEnum
from typing import Annotated

from typer import Option

from ..training.terminal import command_line, exits

Variant = StrEnum("Variant", ["int8", "fp16"])


@exits
@command_line
def serve(
    model: Annotated[
        str,
        Option("--model", help="folder that training or mfdn export wrote, or an id on the Hub; ONNX needs no torch"),
    ],
    host: Annotated[
        str, Option("--host", help="127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it, without any password")
    ] = "127.0.0.1",
    port: Annotated[int, Option("--port", min=0, max=65_535)] = 5000,
    gallery: Annotated[
        str | None, Option("--gallery", help="FILE.safetensors of taught characters: read, and, with --teach, written")
    ] = None,
    teach: Annotated[bool, Option("--teach", help="let those who ask teach and forget characters")] = False,
    variant: Annotated[Variant | None, Option("--variant", help="of the graphs of an ONNX folder")] = None,
    batch_size: Annotated[int, Option("--batch_size", min=1, help="requests that go through the model at once")] = 16,
    max_bytes: Annotated[int, Option("--max_bytes", min=1, help="of one request")] = 2**25,
    max_pixels: Annotated[int, Option("--max_pixels", min=1, help="of one picture")] = 2**26,
    max_waiting: Annotated[int, Option("--max_waiting", min=1, help="requests; more are answered 503")] = 64,
    timeout: Annotated[float, Option("--timeout", min=0.01, help="seconds until a request is answered 503")] = 30.0,
    num_workers: Annotated[int, Option("--num_workers", min=1, help="threads that decode")] = 2,
    device: Annotated[str | None, Option("--device", help="cpu, cuda, cuda:1, mps; default the best there is")] = None,
) -> int:
    """Answer POST /evaluate as Danbooru's autotagger does, and POST /tag with hints, unknown and ratings.

    /docs shows what can be asked, /health and /metrics what is going on. Example: mfdn serve --model mfdn_onnx
    """
    options = locals() | {"variant": variant and variant.value}
    try:
        from ..tagging.serve import ServeOptions, serve_forever
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}. Run: pip install 'mfdn[serve]'") from error

    serve_forever(ServeOptions(**options))
    return 0
