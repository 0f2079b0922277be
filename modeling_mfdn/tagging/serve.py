"""A tagger for programs, over HTTP: what `mfdn serve` does.

`POST /evaluate` answers as Danbooru's autotagger (https://github.com/danbooru/autotagger), so that what talks to it
talks to this; `POST /tag` says what the pipeline says, with hints and "unknown"; `/teach` and `/forget` where they are
allowed; `/docs`, `/openapi.json`, `/health` and `/metrics` (Prometheus) say the rest. Requests that wait at the same
time go through the model together. Whoever asks is a stranger: bytes, pixels, time and waiting requests have limits,
and what is beyond them is answered with 4xx or 503.
"""

import asyncio
import base64
import binascii
import html
import queue
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, HTTPException, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from PIL import Image
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from ..pictures_mfdn import open_picture
from .doorkeeper import Doorkeeper, Metrics, ServeOptions
from .taggers import MAX_CHARACTERS, load_tagger

DOCS = Path(__file__).parent / "server" / "docs.html"
BACKLOG = 512
MAX_PICTURES = 64  # of one request
MAX_HINTS = 200


class Named(BaseModel):
    label: str
    score: float = Field(description="in [0, 1]")


class Found(BaseModel):
    """What is in a picture, best first."""

    characters: list[Named]
    tags: list[Named]
    unknown: float = Field(description="probability that none of the characters it knows is there")
    ratings: list[Named] | None = Field(None, description="of a model that names them")


class Asked(BaseModel):
    """A picture, and what is known of it."""

    image: str = Field(description="a JPEG, PNG, WebP, GIF, AVIF, BMP or TIFF as base64")
    tags: list[str] = Field([], max_length=MAX_HINTS, description="hints: tags that are surely true")
    top_k: int = Field(5, ge=1, le=1000, description="characters at most")
    tag_threshold: float | None = Field(None, ge=0, le=1, description="default: those stored with the model")
    max_tags: int | None = Field(None, ge=0, description="tags at most")


class Lesson(BaseModel):
    """A character by a few pictures of it, five for example."""

    name: str = Field(min_length=1, max_length=200)
    images: list[str] = Field(min_length=1, max_length=MAX_PICTURES, description="pictures as base64")


class Name(BaseModel):
    name: str = Field(min_length=1, max_length=200)


class Refusal(BaseModel):
    """What is answered to a request that cannot be."""

    error: str
    message: str


class Batcher:
    """A thread that runs the model on all that waits, up to `batch_size` pictures at once."""

    def __init__(self, tagger, batch_size: int, metrics: Metrics):
        self.tagger, self.batch_size, self.metrics = tagger, batch_size, metrics
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.lock = threading.Lock()  # of what the model was taught
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    async def run(self, pixels: np.ndarray, labels: list[int]) -> Any:
        """Outputs of the model for one picture [3, S, S]."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.put((pixels, labels, loop, future))
        return await future

    def close(self) -> None:
        self.waiting.put(None)
        self.thread.join()

    def work(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch = [first]
            while len(batch) < self.batch_size and not self.waiting.empty():
                if (another := self.waiting.get()) is None:
                    self.waiting.put(None)
                    break
                batch.append(another)
            batch = [entry for entry in batch if not entry[3].cancelled()]  # nobody waits for them any more
            if not batch:
                continue
            try:
                outputs = self.tagger.run(np.stack([pixels for pixels, *_ in batch]), [row[1] for row in batch])
                found = [self.tagger.row(outputs, index) for index in range(len(batch))]
            except Exception as error:  # told to each who waits; the next batch is another
                found = [error] * len(batch)
            self.metrics.batches += 1
            self.metrics.pictures += len(batch)
            for (_, _, loop, future), result in zip(batch, found, strict=True):
                with suppress(RuntimeError):  # the server has ended meanwhile
                    loop.call_soon_threadsafe(answer, future, result)


def answer(future: asyncio.Future, result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class Service:
    """A model, and what it is asked."""

    def __init__(self, tagger, options: ServeOptions):
        self.tagger, self.options, self.metrics = tagger, options, Metrics()
        self.batcher = Batcher(tagger, options.batch_size, self.metrics)
        self.decoders = ThreadPoolExecutor(options.num_workers)

    def close(self) -> None:
        self.decoders.shutdown(cancel_futures=True)
        self.batcher.close()

    def pixels(self, content: bytes) -> np.ndarray:
        """Of a file. Raises HTTPException: it is none, or has too many pixels."""
        try:
            with warnings.catch_warnings(action="ignore"):
                with open_picture(content) as image:
                    num_pixels = image.width * image.height
                if num_pixels > self.options.max_pixels:
                    found = f"Expected at most {self.options.max_pixels:,} pixels, found {num_pixels:,}."
                    raise HTTPException(413, found)
                return self.tagger.pixels(content)
        except HTTPException:
            raise
        except (MemoryError, Image.DecompressionBombError) as error:
            raise HTTPException(413, "The picture has more pixels than can be decoded.") from error
        except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
            reason = re.sub(r" <_io\.BytesIO[^>]*>", "", " ".join(str(error).split())[:300])
            raise HTTPException(422, f"This is no picture that can be read: {reason}") from error

    async def look(self, content: bytes, tags: list[str] | None = None) -> tuple[Any, list[int]]:
        """Outputs of the model for a file, and the labels of the tags that it was told."""
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self.decoders, self.pixels, content)
        try:
            with warnings.catch_warnings(action="ignore"):
                labels = self.tagger.given_labels(tags or [])
        except (ValueError, TypeError) as error:
            raise HTTPException(422, str(error)) from error
        return await self.batcher.run(pixels, labels), labels

    async def tag(self, asked: Asked) -> dict:
        outputs, labels = await self.look(decoded(asked.image), asked.tags)
        chosen = {"top_k": min(asked.top_k, len(self.tagger.character_names))}
        chosen |= {"tag_threshold": asked.tag_threshold, "max_tags": asked.max_tags}
        with self.batcher.lock:
            return self.tagger.post_process(outputs, [labels], **chosen)[0]

    async def evaluate(self, content: bytes, threshold: float, limit: int) -> dict[str, float]:
        """Scores by tag, best first, as the autotagger gives them: tags, characters and `rating:g`.

        A character's score is the probability that it is there: where the model says "unknown", that is taken off.
        """
        outputs, _ = await self.look(content)
        most = min(MAX_CHARACTERS, len(self.tagger.character_names))
        with self.batcher.lock:
            result = self.tagger.post_process(outputs, None, top_k=most, tag_threshold=0.0)[0]
        known = 1 - result["unknown"] if self.tagger.has_statistics else 1.0
        rows = [(row["label"], row["score"]) for row in result["tags"]]
        rows += [(row["label"], row["score"] * known) for row in result["characters"]]
        rows += [(f"rating:{row['label'][0]}", row["score"]) for row in result.get("ratings", ())]
        rows = sorted((row for row in rows if row[1] >= threshold), key=lambda row: -row[1])
        return dict(rows[:limit])

    async def teach(self, lesson: Lesson) -> dict:
        name = lesson.name.strip()
        if not name.isprintable() or not name:
            raise HTTPException(422, "Expected the name of a character in one line.")
        if not self.tagger.has_statistics:
            raise HTTPException(409, "This model has no character statistics, which teaching needs.")
        looked = [await self.look(decoded(image)) for image in lesson.images]
        with self.batcher.lock:
            said = self.tagger.teach(name, np.concatenate([embedding_of(outputs) for outputs, _ in looked]))
            self.save()
        return {"taught": name, "pictures": len(looked), "said": said or []}

    def forget(self, name: str) -> dict:
        with self.batcher.lock:
            try:
                self.tagger.forget(name)
            except ValueError as error:
                raise HTTPException(404, str(error)) from error
            self.save()
        return {"forgotten": name}

    def save(self) -> None:
        if self.options.gallery:
            self.tagger.save_gallery(self.options.gallery)

    def state(self) -> dict:
        names = {"tags": len(self.tagger.tags), "characters": len(self.tagger.character_names)}
        return {"status": "ok", "version": version("mfdn"), **names, "in_flight": self.metrics.in_flight}


def embedding_of(outputs: Any) -> np.ndarray:
    """[1, E] of one picture."""
    found = outputs["picture_embedding"]
    return found if isinstance(found, np.ndarray) else found.float().cpu().numpy()


def decoded(text: str) -> bytes:
    """The bytes of base64, also as data:image/png;base64,…"""
    try:
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "Expected a picture as base64, found text that is none.") from error


def make_app(tagger, options: ServeOptions) -> FastAPI:
    """The application. `app.state.service` is its `Service`."""
    service = Service(tagger, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        service.close()

    refusals: dict[int | str, dict] = {code: {"model": Refusal} for code in (413, 422, 503)}
    app = FastAPI(
        title="mfdn serve",
        version=version("mfdn"),
        description="Names the character in an anime illustration and writes its tags.",
        docs_url=None,  # it would fetch its script from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    if options.host in ("127.0.0.1", "localhost", "::1"):  # a name that was made to lead here is a trick
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "[::1]"])
    app.add_middleware(Doorkeeper, options=options, metrics=service.metrics)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": "Refused", "message": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return JSONResponse({"error": "Invalid", "message": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": type(error).__name__, "message": "The model stopped with an error."}, 500)

    @app.post("/evaluate", responses=refusals, response_model=None, summary="As Danbooru's autotagger")
    async def evaluate(
        file: Annotated[list[UploadFile], File(description="one picture or several", max_length=MAX_PICTURES)],
        threshold: Annotated[float, Form(ge=0, le=1)] = 0.1,
        limit: Annotated[int, Form(ge=1, le=100_000)] = 50,
        format: Annotated[str, Form(pattern="^(json|html)$", description="json or html")] = "html",
    ) -> Response:
        """`[{"filename", "tags": {name: score}}]` of each picture with `format=json`; else a page to look at. A
        character's score is the probability that it is there. Of an animation the first frame is seen."""
        contents = [await one.read() for one in file]
        found = await asyncio.gather(*(service.evaluate(content, threshold, limit) for content in contents))
        rows = [{"filename": one.filename or "", "tags": tags} for one, tags in zip(file, found, strict=True)]
        return JSONResponse(rows) if format == "json" else HTMLResponse(page_of(rows))

    @app.post("/tag", responses=refusals, response_model_exclude_none=True, summary="Characters, tags, unknown")
    async def tag(asked: Asked) -> Found:
        return Found(**await service.tag(asked))

    if options.teach:

        @app.post("/teach", responses=refusals, summary="Teach a character from a few pictures")
        async def teach(lesson: Lesson) -> dict:
            return await service.teach(lesson)

        @app.post("/forget", summary="Forget a character that was taught")
        async def forget(asked: Name) -> dict:
            return service.forget(asked.name)

    @app.get("/characters", summary="Names of all characters that it knows")
    async def characters() -> list[str]:
        return list(tagger.character_names)

    @app.get("/health", summary="Whether it is there, and what it knows")
    async def health() -> dict:
        return service.state()

    @app.get("/metrics", response_class=PlainTextResponse, summary="For Prometheus")
    async def metrics() -> str:
        return service.metrics.text()

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(DOCS.read_text(encoding="utf-8"))

    return app


def page_of(rows: list[dict]) -> str:
    """What /evaluate shows to people."""
    parts = []
    for row in rows:
        cells = "".join(f"<tr><td>{html.escape(tag)}<td>{score:.1%}" for tag, score in row["tags"].items())
        parts.append(f"<h2>{html.escape(row['filename'])}</h2><table>{cells}</table>")
    style = "body{font:1rem system-ui;margin:1rem}td{padding:0 1rem 0 0}"
    return f"<!doctype html><meta charset=utf-8><title>Tags</title><style>{style}</style>{''.join(parts)}"


def serve_forever(options: ServeOptions) -> None:
    """Serve until Ctrl-C. Raises ValueError, OSError: no such model, or the port is taken."""
    import socket

    import uvicorn

    gallery, teachable = options.gallery, options.gallery is not None and options.teach
    if teachable and not Path(options.gallery).exists():
        options.gallery = None  # it is written by the first lesson
    tagger = load_tagger(options)
    options.gallery = gallery
    if options.teach and not tagger.has_statistics:
        raise ValueError(f"--teach: {options.model} has no character statistics, which teaching needs.")
    app = make_app(tagger, options)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # The protocol by name: without it asyncio leaves Nagle's algorithm on, and every answer waits 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
            listener.listen(BACKLOG)  # who reads the address below may ask at once
        except OSError as error:
            raise OSError(
                f"{options.host}:{options.port} cannot be used: {error.strerror}. Name another --port."
            ) from error
        host, port = listener.getsockname()[:2]
        print(tagger.described)
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/docs (Ctrl+C ends it)", flush=True)
        if host not in ("127.0.0.1", "::1"):
            print("Whoever reaches this machine may ask: there is no password. Put a proxy before it that has one.")
        config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=5, lifespan="on")
        uvicorn.Server(config).run(sockets=[listener])
