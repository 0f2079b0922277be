"""`mfdn serve`: what it answers, to whom, and that nothing that is sent stops it."""

import base64
import http.client
import io
import json
import struct
import threading
import time
import uuid
import zlib

import pytest
from character_factory import picture_of
from conftest import CHARACTERS
from PIL import Image
from test_onnx_folder import close

pytest.importorskip("fastapi")

from modeling_mfdn import commands
from modeling_mfdn.publishing.onnx_tagger import OnnxTagger
from modeling_mfdn.tagging.doorkeeper import ServeOptions
from modeling_mfdn.tagging.serve import make_app
from modeling_mfdn.tagging.taggers import load_tagger

LIMITS = {"max_bytes": 100_000, "max_pixels": 250_000, "max_waiting": 4, "timeout": 5.0, "batch_size": 8}


class Served:
    """A server in this process, and what is asked of it."""

    def __init__(self, options: ServeOptions):
        import uvicorn

        self.app = make_app(load_tagger(options), options)
        self.service = self.app.state.service
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def ask(self, method, path, body=None, headers=None):
        """(status, answer)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode()

    def post(self, path, content):
        return self.ask("POST", path, json.dumps(content), {"Content-Type": "application/json"})

    def evaluate(self, *files: bytes, **fields):
        """As curl -F sends it."""
        edge, parts = uuid.uuid4().hex, []
        for number, content in enumerate(files):
            head = f'Content-Disposition: form-data; name="file"; filename="{number}.png"\r\n'
            parts.append(f"--{edge}\r\n{head}Content-Type: image/png\r\n\r\n".encode() + content)
        for name, value in fields.items():
            parts.append(f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode())
        body = b"\r\n".join([*parts, f"--{edge}--\r\n".encode()])
        return self.ask("POST", "/evaluate", body, {"Content-Type": f"multipart/form-data; boundary={edge}"})


@pytest.fixture(scope="module", params=["onnx", "model"])
def served(models, request):
    served = Served(ServeOptions(str(models / request.param), **LIMITS))
    yield served
    served.close()


@pytest.fixture
def teachable(models, tmp_path):
    served = Served(ServeOptions(str(models / "onnx"), teach=True, gallery=None, **LIMITS))
    served.service.options.gallery = str(tmp_path / "taught.safetensors")
    yield served
    served.close()


def png(image: Image.Image) -> bytes:
    image.save(content := io.BytesIO(), "PNG")
    return content.getvalue()


def text(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def test_evaluate_answers_as_danboorus_autotagger(served, pipeline):
    images = [picture_of(2, 40), picture_of(9, 40)]
    status, rows = served.evaluate(*map(png, images), format="json", threshold=0.01, limit=100)
    assert status == 200 and [row["filename"] for row in rows] == ["0.png", "1.png"]
    for image, row in zip(images, rows, strict=True):
        wanted = pipeline(image, top_k=7, tag_threshold=0.0)
        for entry in wanted["tags"]:
            if entry["score"] >= 0.02:
                assert row["tags"][entry["label"]] == pytest.approx(entry["score"], abs=1e-3)
        known = 1 - wanted["unknown"]
        best = wanted["characters"][0]
        assert row["tags"][best["label"]] == pytest.approx(best["score"] * known, abs=1e-3)
        assert list(row["tags"].values()) == sorted(row["tags"].values(), reverse=True)
    assert len(served.evaluate(png(images[0]), format="json", limit=3)[1][0]["tags"]) == 3
    status, page = served.evaluate(png(images[0]))
    assert status == 200 and page.startswith("<!doctype html>") and "%" in page


def test_tag_answers_as_the_pipeline_with_hints_and_unknown(served, pipeline):
    image = picture_of(3, 41)
    for tags in ([], ["long_hair", "Smile"]):
        status, found = served.post("/tag", {"image": text(image), "tags": tags, "top_k": 7})
        assert status == 200
        close(found, pipeline(image, tags=tags, top_k=7), tolerance=1e-3)
    found = served.post("/tag", {"image": f"data:image/png;base64,{text(image)}", "max_tags": 1, "tag_threshold": 0})[
        1
    ]
    assert len(found["tags"]) == 1
    status, found = served.post("/tag", {"image": text(image), "tags": ["no such tag"]})
    assert status == 200, "a hint that it does not know is no hint"


def test_a_character_is_taught_forgotten_and_kept_in_its_file(teachable, models, tmp_path):
    images = [text(picture_of(12, number)) for number in range(5)]
    asked = {"image": text(picture_of(12, 60))}
    assert teachable.post("/tag", asked)[1]["unknown"] > 0.5
    assert teachable.post("/teach", {"name": "nausicaa", "images": images})[0] == 200
    assert teachable.post("/tag", asked)[1]["characters"][0]["label"] == "nausicaa"
    assert "nausicaa" in teachable.ask("GET", "/characters")[1]
    tagger = OnnxTagger(models / "onnx")
    assert tagger.load_gallery(tmp_path / "taught.safetensors") == ["kiki", "nausicaa"]
    assert teachable.post("/forget", {"name": "nausicaa"})[0] == 200
    assert teachable.post("/tag", asked)[1]["unknown"] > 0.5
    assert teachable.post("/forget", {"name": "nausicaa"})[0] == 404
    for name in ("", " ", "a\nb", "x" * 300):
        assert teachable.post("/teach", {"name": name, "images": images})[0] == 422
    assert teachable.post("/teach", {"name": "x", "images": []})[0] == 422
    assert teachable.post("/teach", {"name": "x", "images": ["????"]})[0] == 422


def test_teaching_is_not_there_unless_it_is_allowed(served):
    assert served.post("/teach", {"name": "x", "images": ["x"]})[0] == 404


def bomb() -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    whole = png(Image.new("RGB", (9, 9)))
    return whole[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + whole[33:]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"<html>", 422),
        (b"%!PS-Adobe-3.0 EPSF-3.0", 422),
        (bomb(), 413),
        (png(Image.new("RGB", (600, 500))), 413),
        (png(Image.new("RGB", (99, 99), "red"))[:80], 422),
        (bytes(100_001), 413),
    ],
    ids=["empty", "html", "eps", "bomb", "pixels", "cut", "bytes"],
)
def test_what_is_no_picture_or_too_much_is_refused_with_a_sentence(served, content, status):
    found, said = served.evaluate(content, format="json")
    assert found == status and said["message"] and "Traceback" not in said["message"] and "0x" not in said["message"]
    if len(content) < 50_000:
        assert served.post("/tag", {"image": base64.b64encode(content).decode()})[0] == status
    assert served.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("/tag", "{", "application/json", 422),
        ("/tag", "[]", "application/json", 422),
        ("/tag", '{"image": 1}', "application/json", 422),
        ("/tag", '{"image": "a", "top_k": 0}', "application/json", 422),
        ("/tag", '{"image": "a", "tag_threshold": 2}', "application/json", 422),
        ("/tag", '{"image": "a"}', "text/plain", 422),
        ("/evaluate", "x", "multipart/form-data", 422),
        ("/evaluate", "x", "multipart/form-data; boundary=a", 422),
        ("/nonsuch", "x", "text/plain", 404),
    ],
)
def test_requests_that_are_none_are_refused(served, path, body, kind, status):
    found, said = served.ask("POST", path, body, {"Content-Type": kind})
    assert found == status or (found == 400 and status == 422)


def test_only_this_machine_is_answered_under_its_name(served):
    assert served.ask("GET", "/health", headers={"Host": "evil.example"})[0] == 400
    assert served.ask("GET", "/health", headers={"Host": f"localhost:{served.port}"})[0] == 200


def test_a_body_that_never_ends_is_cut_off(served):
    """Without a Content-Length, chunk by chunk."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.putrequest("POST", "/evaluate")
    connection.putheader("Content-Type", "multipart/form-data; boundary=a")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    head = b'--a\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    try:
        for chunk in (head, *[bytes(20_000)] * 20):
            connection.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert connection.getresponse().status == 413
    assert served.ask("GET", "/health")[0] == 200


def test_more_than_may_wait_are_told_to_come_back_and_none_is_lost(served, monkeypatch):
    """While the model is slow; then all that waited are answered, together."""
    tagger, gate, sizes = served.service.tagger, threading.Event(), []
    run = type(tagger).run

    def slow(self, pixels, labels=None):
        gate.wait(10)
        sizes.append(len(pixels))
        return run(self, pixels, labels)

    monkeypatch.setattr(type(tagger), "run", slow)
    content, answers = png(picture_of(1, 1)), []
    threads = [
        threading.Thread(target=lambda: answers.append(served.evaluate(content, format="json")[0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while served.service.metrics.in_flight < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # until they are decoded, and wait for the model
    status, said = served.evaluate(content, format="json")
    assert status == 503 and said["error"] == "Busy"
    assert served.ask("GET", "/health")[1]["in_flight"] == 4, "who asks how it is need not wait"
    gate.set()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4 and sum(sizes) == 4 and len(sizes) <= 2, "those that waited went together"


def test_what_takes_too_long_is_given_up_and_the_next_is_answered(served, monkeypatch):
    tagger, gate = served.service.tagger, threading.Event()
    run = type(tagger).run
    monkeypatch.setattr(type(tagger), "run", lambda self, *args: gate.wait(10) and run(self, *args))
    monkeypatch.setattr(served.service.options, "timeout", 0.2)
    status, said = served.evaluate(png(picture_of(1, 1)), format="json")
    assert status == 503 and said["error"] == "Timeout"
    gate.set()
    monkeypatch.undo()
    assert served.evaluate(png(picture_of(1, 1)), format="json")[0] == 200
    for _ in range(500):  # what is counted behind an answer is counted soon
        if served.service.metrics.in_flight == 0:
            return
        time.sleep(0.01)
    raise AssertionError("a request is still counted")


def test_an_error_of_the_model_is_500_for_those_who_waited_and_for_nobody_else(served, monkeypatch):
    def broken(*args):
        raise RuntimeError("of memory")

    monkeypatch.setattr(type(served.service.tagger), "run", broken)
    status, said = served.evaluate(png(picture_of(1, 1)), format="json")
    assert status == 500 and "of memory" not in said["message"]
    monkeypatch.undo()
    assert served.evaluate(png(picture_of(1, 1)), format="json")[0] == 200


def test_what_is_there_is_described_and_counted(served):
    status, said = served.ask("GET", "/openapi.json")
    assert status == 200 and {"/evaluate", "/tag", "/health", "/metrics", "/characters"} <= set(said["paths"])
    status, page = served.ask("GET", "/docs")
    assert status == 200 and "http" not in page.replace("http-equiv", ""), "nothing is fetched from elsewhere"
    assert served.ask("GET", "/characters")[1] == [*CHARACTERS, "kiki"]
    before = served.ask("GET", "/metrics")[1]
    served.evaluate(png(picture_of(1, 1)), format="json")
    after = served.ask("GET", "/metrics")[1]

    def count(lines, start):
        return float(next(line for line in lines.splitlines() if line.startswith(start)).split()[-1])

    for start in ('mfdn_requests_total{path="/evaluate",status="200"}', "mfdn_pictures_total", "mfdn_batches_total"):
        assert count(after, start) == count(before, start) + 1
    assert count(after, 'mfdn_request_seconds_bucket{path="/evaluate",le="+Inf"}') == count(
        after, 'mfdn_request_seconds_count{path="/evaluate"}'
    )


def test_a_port_that_is_taken_and_a_model_that_cannot_be_taught_are_sentences(served, models, tmp_path, capsys):
    assert commands.main(["serve", "--model", str(models / "onnx"), "--port", str(served.port)]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert commands.main(["serve", "--model", str(tmp_path)]) == 2
    assert "There is no model" in capsys.readouterr().err
