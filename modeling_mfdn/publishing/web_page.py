"""A page in the browser that names characters and tags: a folder of static files, which needs no server of ours.

    python -m modeling_mfdn.publishing.onnx_export --model mfdn --output mfdn_onnx --int8
    python -m modeling_mfdn.publishing.web_page --onnx mfdn_onnx --output site --int8
    python -m modeling_mfdn.publishing.web_page --output site --serve

The folder is also a static Space of the Hub. Nothing is loaded from elsewhere when it is used; onnxruntime-web is
fetched once from the npm registry when the page is built, and kept.
"""

import base64
import hashlib
import io
import json
import shutil
import tarfile
import urllib.request
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from ..gallery_mfdn import GALLERY_FILE
from ..pictures_mfdn import load_rgb
from ..training.files import check_room, replace_folder, whole_file

STATIC = Path(__file__).parent / "web"
MARKER = "page.json"  # what every page of this command holds
RUNTIME_VERSION = "1.30.0"
RUNTIME_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{RUNTIME_VERSION}.tgz"
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_KEYS = (
    "image_size",
    "mean",
    "std",
    "resample",
    "characters",
    "tags",
    "num_special_tokens",
    "cls_token_id",
    "sep_token_id",
    "pad_token_id",
    "max_tag_tokens",
    "tag_threshold",
    "tag_thresholds",
)
SAMPLE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_SAMPLES, SAMPLE_SIDE = 8, 512
OF_OLD_EXPORTS = {"ratings": [], "character_activation": "softmax", "character_threshold": 0.5, "axes": None}


def runtime_folder(given: str | None) -> Path:
    """The folder with onnxruntime-web's files: `given`, or fetched once into the cache.

    Args:
        given: a folder that holds them (dist/ of the npm package), or the package's .tgz; None = the cache.

    Raises:
        ValueError: `given` holds no such files, or what was fetched is not what was expected.
    """
    if given and Path(given).is_dir():
        missing = [name for name in RUNTIME_FILES if not Path(given, name).exists()]
        if missing:
            raise ValueError(f"{given} lacks {', '.join(missing)}: expected dist/ of onnxruntime-web.")
        return Path(given)
    cache = Path(HF_HOME, "mfdn", f"onnxruntime-web-{RUNTIME_VERSION}")
    if not given and all((cache / name).exists() for name in RUNTIME_FILES):
        return cache
    if given:
        data = Path(given).read_bytes()
    else:
        print(f"Fetching {RUNTIME_URL}", flush=True)
        with urllib.request.urlopen(RUNTIME_URL, timeout=120) as answer:
            data = answer.read(200 * 2**20)
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != RUNTIME_SHA512:
        raise ValueError(f"{given or RUNTIME_URL} is not onnxruntime-web {RUNTIME_VERSION}: its SHA-512 differs.")
    cache.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in RUNTIME_FILES:  # by name: nothing else of the archive is unpacked
            with whole_file(cache / name) as unfinished:
                unfinished.write_bytes(archive.extractfile(f"package/dist/{name}").read())
    return cache


def write_samples(source: Path, output: Path) -> list[str]:
    """Pictures to try, so small that they load at once; their addresses.

    Raises ValueError: a picture cannot be read, or there is none.
    """
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in SAMPLE_SUFFIXES)[:MAX_SAMPLES]
    if not paths:
        raise ValueError(f"Expected pictures ({' '.join(SAMPLE_SUFFIXES)}) in {source}, found none.")
    (output / "samples").mkdir()
    names = []
    for number, path in enumerate(paths, 1):
        picture = load_rgb(path)
        picture.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        picture.save(output / "samples" / f"{number}.jpg", quality=88)
        names.append(f"samples/{number}.jpg")
    return names


def build_page(onnx: Path, output: Path, title: str, int8: bool, runtime: Path, samples: Path | None = None) -> None:
    """Write the folder.

    Args:
        samples: a folder of pictures to try; None = those of `onnx`, if it has any.

    Raises:
        ValueError: `onnx` is not what onnx_export writes, or its weights lie beside the graph, which a page cannot
            hold in memory.
    """
    suffix = "_int8" if int8 else ""
    graph, with_tags = (onnx / f"{name}{suffix}.onnx" for name in ("model", "model_with_tags"))
    if not graph.exists() or not (onnx / "preprocess.json").exists():
        wanted = f"{graph.name} and preprocess.json"
        raise ValueError(
            f"Expected {wanted} in {onnx}: run modeling_mfdn.publishing.onnx_export{' --int8' if int8 else ''} first."
        )
    if Path(f"{graph}.data").exists():
        raise ValueError(f"{graph} keeps its weights in a second file: it is too large for a page. Try --int8.")
    copied = [graph, *([with_tags] if with_tags.exists() else []), *(runtime / name for name in RUNTIME_FILES)]
    check_room(output, sum(path.stat().st_size for path in copied))
    for source in STATIC.iterdir():
        shutil.copy(source, output / source.name)
    shutil.copytree(runtime, output / "onnxruntime", ignore=lambda _, names: set(names) - set(RUNTIME_FILES))
    shutil.copy(graph, output / "model.onnx")
    if with_tags.exists():
        shutil.copy(with_tags, output / "model_with_tags.onnx")
    taught = onnx / GALLERY_FILE
    if taught.exists():
        shutil.copy(taught, output / GALLERY_FILE)
    preprocess = json.loads((onnx / "preprocess.json").read_text(encoding="utf-8"))
    if not preprocess.get("white_square", True):
        raise ValueError("This model stretches pictures (do_pad is False); the page pads them to a square.")
    page = {"title": title, "graph": "model.onnx"} | {key: preprocess[key] for key in PAGE_KEYS}
    page |= {key: preprocess.get(key, default) for key, default in OF_OLD_EXPORTS.items()}
    page["gallery"] = GALLERY_FILE if taught.exists() else None
    samples = samples or (onnx / "samples" if (onnx / "samples").is_dir() else None)
    page["samples"] = write_samples(samples, output) if samples else []
    page["graph_with_tags"] = "model_with_tags.onnx" if with_tags.exists() else None
    (output / MARKER).write_text(json.dumps(page, ensure_ascii=False), encoding="utf-8")
    front = {"title": title, "sdk": "static", "pinned": False}
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    text = f"---\n{lines}\n---\n\nNames characters and tags in the browser, with MFDN.\n"
    (output / "README.md").write_text(text, encoding="utf-8")


class PageHandler(SimpleHTTPRequestHandler):
    """Static files, with the types that browsers insist on."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".json": "application/json",
    }

    def log_message(self, *args):
        pass


def page_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder on 127.0.0.1; port 0 takes any. Raises OSError for one that is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(PageHandler, directory=str(folder)))
    except OSError as error:
        raise OSError(f"Port {port} cannot be used: {error.strerror}. Name another with --serve PORT.") from error


def make_page(
    onnx: str | None,
    output: str,
    int8: bool = False,
    title: str = "Who is in the picture?",
    overwrite: bool = False,
    onnxruntime_web: str | None = None,
    serve: int | None = None,
    samples: str | None = None,
) -> None:
    """Build the page where an ONNX folder is given, and serve it on the port `serve` until Ctrl-C.

    Raises:
        ValueError, OSError: with a sentence for the user.
    """
    folder = Path(output)
    if serve is not None and not 0 <= serve <= 65_535:
        raise ValueError(f"--serve expects a port from 0 to 65535, got {serve}.")
    is_page = (folder / MARKER).exists()
    # Of a page that is there, --serve asks no more than to be shown it.
    if onnx and not (is_page and serve is not None and not overwrite):
        with replace_folder(folder, MARKER, overwrite) as unfinished:
            runtime = runtime_folder(onnxruntime_web)
            build_page(Path(onnx), unfinished, title, int8, runtime, Path(samples) if samples else None)
        print(f"Written: {folder}/")
    elif onnx:
        print(f"{folder} is there already and is served as it is; --overwrite builds it anew.")
    elif not is_page:
        raise ValueError(f"{folder} holds no page: build it with --onnx first.")
    if serve is not None:
        with page_server(folder, serve) as server:
            print(f"Open http://127.0.0.1:{server.server_port}/ (Ctrl+C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
