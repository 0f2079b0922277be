"""The server of `mfdn review`: review.html of a folder, and corrections that it writes into the captions.

It answers this machine alone (127.0.0.1), and there only who knows its token: another page of the same browser does
not. A picture is asked for by its number, never by a path.
"""

import io
import json
import secrets
import threading
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from ..pictures_mfdn import load_rgb
from ..training.files import claim, whole_file
from .films import VIDEO_SUFFIXES
from .picture_folder import CAPTION_SUFFIXES, SUFFIXES, find_pictures
from .review_page import PAGE, page_of, read_facts, read_page
from .tag_files import Caption, caption_paths, check_caption, read_caption, with_commas, without_spaces

LOG = ".mfdn_review.jsonl"  # what was checked; hidden, so that nobody trains on it
MAX_BODY = 2**20
THUMBNAIL = 272  # pixels of the longer side: twice what is shown
# As a page of nobody spells.
DEFAULT_FACTS = {"format": "txt", "spaces": False, "escape": False, "caption_separator": ", "}


class Conflict(ValueError):
    """The caption is not what the page showed."""


@dataclass
class Reviewed:
    """The pictures of a folder, their captions, and what was changed since the server began.

    Raises ValueError, OSError: there are none, or review.html is somebody's own.
    """

    folder: Path
    paths: list[Path] = field(init=False)
    changes: list[tuple[int, bytes | None, bool]] = field(default_factory=list)  # for undo: what was before

    def __post_init__(self):
        self.said = read_page(self.folder / PAGE)
        names = {"characters": [], "tags": []}
        self.facts = DEFAULT_FACTS | names | read_facts(self.folder / PAGE)
        self.paths, beside, _ = find_pictures(self.folder, True, (*SUFFIXES, *VIDEO_SUFFIXES), CAPTION_SUFFIXES)
        options = SimpleNamespace(
            format="hydrus" if self.facts["format"] == "hydrus" else "txt", full_names=False, caption_extension=None
        )
        self.places = caption_paths(self.paths, beside, options)
        number = Counter(self.places)  # a.png and a.jpg would share one caption: each gets its own
        self.places = [
            path.with_name(f"{path.name}.txt") if number[place] > 1 else place
            for path, place in zip(self.paths, self.places, strict=True)
        ]
        self.names = [path.relative_to(self.folder).as_posix() for path in self.paths]
        known = [*self.facts["characters"], *self.facts["tags"]]
        self.with_commas = with_commas(known, self.facts["caption_separator"])
        self.checked = read_log(self.folder / LOG)
        self.lock = threading.Lock()

    def caption(self, number: int) -> Caption:
        found = read_caption(self.places[number], self.facts["format"] == "hydrus", self.facts["caption_separator"])
        found.names = self.with_commas
        return found

    def words(self, number: int) -> list[str]:
        """Of the caption; where there is none yet, what the model said."""
        words = self.caption(number).words()
        line = self.said.get(self.names[number])
        return words or (json.loads(line)["words"] if line and not self.places[number].exists() else [])

    def state(self, number: int, said: str = "") -> dict:
        checked = self.names[number] in self.checked
        return {"number": number, "words": self.words(number), "checked": checked, "said": said}

    def pictures(self) -> list[dict]:
        """All, as the page shows them; one whose caption cannot be read says why in its place."""
        found = []
        for number, name in enumerate(self.names):
            try:
                found.append({"file": name} | self.state(number))
            except (ValueError, OSError) as error:
                found.append({"file": name, "number": number, "words": [], "checked": False, "problem": str(error)})
        return found

    def save(self, number: int, words: list[str], seen: list[str]) -> dict:
        """Write the words of a picture.

        Raises:
            Conflict: its caption no longer says what the page showed.
            ValueError, OSError: it cannot be written.
        """
        separator = self.facts["caption_separator"].strip() or ","
        if any(not word.strip() or not word.isprintable() for word in words):
            raise ValueError("A tag is one line of text.")
        with self.lock:
            if self.words(number) != seen:
                raise Conflict(f"{self.places[number].name} was changed by another program: look at it again.")
            caption, before = self.caption(number), self.before(number)
            if not caption.one_a_line and any(
                separator in word and without_spaces(word) not in self.with_commas for word in words
            ):
                raise ValueError(f"A tag cannot hold {separator!r}, which stands between two of them.")
            if caption.path.exists():
                caption.edit(words)
            else:
                caption.write(words if caption.one_a_line else [self.facts["caption_separator"].join(words)])
            self.changes.append((number, before, self.names[number] in self.checked))
        return self.state(number, f"Saved: {self.places[number].name}")

    def check(self, number: int, checked: bool) -> dict:
        """Remember that a picture was looked at."""
        with self.lock:
            before = self.names[number] in self.checked
            self.changes.append((number, self.before(number), before))
            self.remember(number, checked)
        return self.state(number, "Checked." if checked else "Opened again.")

    def undo(self) -> dict:
        """Take the last change back. Raises ValueError: there is none."""
        with self.lock:
            if not self.changes:
                raise ValueError("Nothing to undo.")
            number, before, checked = self.changes[-1]
            place = self.places[number]
            if before is None:
                place.unlink(missing_ok=True)
            else:
                with whole_file(place) as unfinished:
                    unfinished.write_bytes(before)
            self.changes.pop()
            self.remember(number, checked)
        return self.state(number, f"Taken back: {self.names[number]}")

    def before(self, number: int) -> bytes | None:
        place = self.places[number]
        check_caption(place)
        return place.read_bytes() if place.exists() else None

    def remember(self, number: int, checked: bool) -> None:
        name = self.names[number]
        if checked == (name in self.checked):
            return
        (self.checked.add if checked else self.checked.discard)(name)
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"file": name, "checked": checked}) + "\n")


def read_log(path: Path) -> set[str]:
    """Names of the pictures that were checked; a line that is cut counts for nothing."""
    checked: set[str] = set()
    if not path.is_file():
        return checked
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
            (checked.add if entry["checked"] else checked.discard)(entry["file"])
        except (ValueError, KeyError, TypeError):
            continue
    return checked


class ReviewHandler(BaseHTTPRequestHandler):
    """`server.reviewed` is the folder, `server.token` what only its page knows."""

    protocol_version = "HTTP/1.1"
    server_version = "mfdn"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost"):  # a name that leads here is a trick of another page
            return self.send_problem(HTTPStatus.FORBIDDEN, "Open it as http://127.0.0.1.")
        token = self.headers.get("X-Token") or query.removeprefix("token=")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return self.send_problem(
                HTTPStatus.FORBIDDEN, "Open the address that mfdn review printed: it has a token."
            )
        reviewed, kind, number = self.server.reviewed, *path.strip("/").partition("/")[::2]
        try:
            if path == "/":
                return self.send(page_of(reviewed.facts, list(reviewed.said.values()), self.server.token), "text/html")
            if kind == "pictures":
                return self.send_json(reviewed.pictures())
            if kind in ("thumbnail", "picture") and number.isdecimal() and int(number) < len(reviewed.paths):
                return self.send_picture(reviewed.paths[int(number)], kind == "thumbnail")
        except BrokenPipeError:
            return
        except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
            return self.send_problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        self.send_problem(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            return self.send_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Expected a short request.")
        body = self.rfile.read(int(length))
        # A form of another page can send neither this header nor this type.
        if not secrets.compare_digest(self.headers.get("X-Token", "").encode(), self.server.token.encode()):
            return self.send_problem(HTTPStatus.FORBIDDEN, "The token is missing: reload the page.")
        reviewed = self.server.reviewed
        try:
            asked = json.loads(body)
            number = asked.get("number", 0)
            if not isinstance(number, int) or not 0 <= number < len(reviewed.paths):
                raise ValueError("There is no such picture: reload the page.")
            if self.path == "/save":
                return self.send_json(reviewed.save(number, listed(asked["words"]), listed(asked["seen"])))
            if self.path == "/check":
                return self.send_json(reviewed.check(number, asked["checked"] is True))
            if self.path == "/undo":
                return self.send_json(reviewed.undo())
        except Conflict as error:
            return self.send_json(reviewed.state(number) | {"error": str(error)}, HTTPStatus.CONFLICT)
        except (KeyError, TypeError, AttributeError):
            return self.send_problem(HTTPStatus.BAD_REQUEST, "The request is not one of this page.")
        except (ValueError, OSError) as error:
            return self.send_problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        self.send_problem(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def send_picture(self, path: Path, small: bool) -> None:
        picture, file = load_rgb(path, THUMBNAIL if small else None), io.BytesIO()
        if small:
            picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        picture.save(file, "JPEG", quality=85 if small else 92)
        self.send(file.getvalue(), "image/jpeg")

    def send_json(self, content, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send(json.dumps(content), "application/json", status)

    def send_problem(self, status: HTTPStatus, sentence: str) -> None:
        self.send_json({"error": sentence}, status)

    def send(self, content: str | bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text") else kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


def listed(words) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError("expected a list of words")
    return words


def review_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the folder on 127.0.0.1; port 0 takes any that is free. Its `address` is what to open.

    Raises ValueError, OSError: no pictures, a page of somebody's own, or the port is taken.
    """
    reviewed = Reviewed(folder)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), ReviewHandler)
    except OSError as error:
        raise OSError(f"Port {port} cannot be used: {error.strerror}. Name another with --port.") from error
    server.daemon_threads = True
    server.reviewed, server.token = reviewed, secrets.token_urlsafe(16)
    server.address = f"http://127.0.0.1:{server.server_port}/?token={server.token}"
    return server


def review_folder(folder: str, port: int = 0, open_browser: bool = False) -> None:
    """Serve the review of a folder until Ctrl-C: what `mfdn review` does."""
    with claim(Path(folder), Path(folder)), review_server(Path(folder), port) as server:
        reviewed = server.reviewed
        print(
            f"{len(reviewed.paths):,} pictures, {len(reviewed.said):,} with scores, {len(reviewed.checked):,} checked"
        )
        print(f"Open {server.address} (Ctrl+C ends it)", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\n{len(server.reviewed.checked):,} pictures are checked.")
