"""A Hub on 127.0.0.1: as much of the protocol as huggingface_hub, transformers and datasets need to push and pull.

Repositories live in memory. `HubServer.fail_next` makes it break off, as networks do.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".onnx", ".png", ".jpg")  # kept apart, addressed by their SHA-256
KIND = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"


@dataclass
class Repository:
    """Commits, oldest first: (hash, {path: content})."""

    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])

    def files(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """A commit by its hash or "main". Raises KeyError."""
        if revision == "main":
            return self.commits[-1]
        return next(iter([commit for commit in self.commits if commit[0] == revision] or [{}[revision]]))

    def commit(self, files: dict[str, bytes]) -> str:
        content = repr([(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())])
        digest = hashlib.sha1(f"{len(self.commits)}{content}".encode()).hexdigest()
        self.commits.append((digest, files))
        return digest


class HubServer:
    """What the server knows. `requests` is a log of (method, path, status)."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.chunk_bytes = 0  # that clients of its Xet storage have sent; nothing of it can be had back
        self.requests: list[tuple[str, str, int]] = []
        self.fail_next: list[str] = []  # beginnings of "METHOD /path": the next such request gets no answer
        self.lock = threading.Lock()
        self.url = ""

    def files(self, name: str, kind: str = "model") -> dict[str, bytes]:
        """The newest files of a repository."""
        return self.repositories[kind, name].commits[-1][1]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args):
        pass

    def answer(self, status: int, body: bytes | dict | list = b"", headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.hub.requests.append((self.command, unquote(self.path), status))
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_request(self) -> None:
        body = self.read_body()
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        with self.hub.lock:
            for start in self.hub.fail_next:
                if f"{self.command} {path}".startswith(start):
                    self.hub.fail_next.remove(start)
                    self.hub.requests.append((self.command, path, 0))
                    self.close_connection = True
                    return
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, action in ROUTES:
                if wanted == method and (match := re.fullmatch(pattern, path)):
                    return action(self, match, body, query)
        self.refuse(404, "RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    # ------------------------------------------------------------------ what the routes do
    def who(self, match, body, query):
        self.answer(200, {"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self, match, body, query):
        wanted = json.loads(body)
        key = wanted.get("type") or "model", f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        if key in self.hub.repositories:
            return self.answer(409, {"error": "exists", "url": self.address(key)})
        self.hub.repositories[key] = Repository()
        self.answer(200, {"url": self.address(key), "name": key[1], "id": key[1]})

    def valid(self, match, body, query):
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, match, body, query):
        modes = [
            {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"}
            for f in json.loads(body)["files"]
        ]
        self.answer(200, {"files": modes})

    def large_batch(self, match, body, query):
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def large_file(self, match, body, query):
        if hashlib.sha256(body).hexdigest() != match["oid"]:
            return self.refuse(400, "WrongHash")
        self.hub.large_files[match["oid"]] = body
        self.answer(200, {})

    def chunk_token(self, match, body, query):
        self.answer(200, {"accessToken": "token", "exp": 2**33, "casUrl": self.hub.url})

    def chunks(self, match, body, query):
        self.hub.chunk_bytes += len(body)
        self.answer(200, {"was_inserted": True, "result": 1})

    def commit(self, match, body, query):
        key = match["kind"], match["name"]
        repository = self.hub.repositories[key]
        files = dict(repository.commits[-1][1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files.get(value["oid"], b"")  # of Xet it has the chunks alone
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        digest = repository.commit(files)
        self.answer(200, {"commitUrl": f"{self.address(key)}/commit/{digest}", "commitOid": digest, "success": True})

    def info(self, match, body, query):
        found = self.find(match, match["revision"] or "main")
        if found:
            digest, files = found
            siblings = [{"rfilename": path, "size": len(data), "blobId": blob(data)} for path, data in files.items()]
            self.answer(
                200,
                {
                    "id": match["name"],
                    "modelId": match["name"],
                    "sha": digest,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "lastModified": "2026-01-01T00:00:00.000000Z",
                    "siblings": siblings,
                },
            )

    def tree(self, match, body, query):
        if found := self.find(match, match["revision"]):
            entries = tree_of(found[1], match["path"] or "", query.get("recursive", ["false"])[0].lower() == "true")
            self.answer(200, entries) if entries or not match["path"] else self.refuse(404, "EntryNotFound")

    def paths(self, match, body, query):
        if found := self.find(match, match["revision"]):
            wanted = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            self.answer(200, [entry for entry in tree_of(found[1], "", True) if entry["path"] in wanted["paths"]])

    def branches(self, match, body, query):
        if found := self.find(match, "main"):
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found[0]}
            self.answer(200, {"branches": [main], "converts": [], "tags": []})

    def file(self, match, body, query):
        kind = (match["kinds"] or "models/")[:-2]
        repository = self.hub.repositories.get((kind, match["name"]))
        if repository is None:
            return self.refuse(404, "RepoNotFound")
        try:
            digest, files = repository.files(match["revision"])
        except KeyError:
            return self.refuse(404, "RevisionNotFound")
        if match["path"] not in files:
            return self.refuse(404, "EntryNotFound")
        data = files[match["path"]]
        tag = hashlib.sha256(data).hexdigest() if match["path"].endswith(LARGE) else blob(data)
        headers = {"X-Repo-Commit": digest, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self.answer(206, data[first : last + 1], headers)
        self.answer(200, data, headers)

    # ------------------------------------------------------------------ what they need
    def find(self, match: re.Match, revision: str):
        """(hash, files) of the asked repository, or None after a refusal."""
        repository = self.hub.repositories.get((match["kind"], match["name"]))
        try:
            if repository is not None:
                return repository.files(revision)
            self.refuse(404, "RepoNotFound")
        except KeyError:
            self.refuse(404, "RevisionNotFound")
        return None

    def address(self, key: tuple[str, str]) -> str:
        return f"{self.hub.url}/{'' if key[0] == 'model' else key[0] + 's/'}{key[1]}"


ROUTES = [
    ("GET", "/api/whoami-v2", Handler.who),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.valid),
    ("POST", rf"{KIND}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", r"/(datasets/|spaces/)?[^/]+/[^/]+\.git/info/lfs/objects/batch", Handler.large_batch),
    ("PUT", r"/large/(?P<oid>\w+)", Handler.large_file),
    ("GET", rf"{KIND}/xet-write-token/(?P<revision>.+)", Handler.chunk_token),
    ("POST", r"/v1/(xorbs|shards)(/.*)?", Handler.chunks),
    ("POST", rf"{KIND}/commit/(?P<revision>.+)", Handler.commit),
    ("GET", rf"{KIND}(/revision/(?P<revision>.+))?", Handler.info),
    ("GET", rf"{KIND}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", Handler.tree),
    ("POST", rf"{KIND}/paths-info/(?P<revision>.+)", Handler.paths),
    ("GET", rf"{KIND}/refs", Handler.branches),
    (
        "GET",
        r"(/api)?/(?P<kinds>datasets/|spaces/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.file,
    ),
]


def blob(data: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def tree_of(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    """Entries below a folder: files, and the folders that they lie in."""
    entries, folders = [], set()
    for path, data in sorted(files.items()):
        if folder and not path.startswith(f"{folder}/"):
            continue
        below = path.removeprefix(f"{folder}/" if folder else "").split("/")
        for depth in range(1, len(below) if recursive else min(2, len(below))):
            folders.add("/".join([*([folder] if folder else []), *below[:depth]]))
        if recursive or len(below) == 1:
            entry = {"type": "file", "oid": blob(data), "size": len(data), "path": path}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
    folders = [{"type": "directory", "oid": blob(name.encode()), "size": 0, "path": name} for name in sorted(folders)]
    return folders + entries


@contextmanager
def running_hub():
    """A HubServer that answers at `url`."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
