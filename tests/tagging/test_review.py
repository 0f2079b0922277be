"""review.html and `mfdn review`: what is looked at, corrected, taken back, and who may."""

import http.client
import json
import shutil
import threading
import urllib.error
import urllib.request

import pytest
from character_factory import picture_of
from test_tag_folder import picture

from modeling_mfdn import commands
from modeling_mfdn.tagging.review import Conflict, Reviewed, review_server
from modeling_mfdn.tagging.review_page import read_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def tagged(models, tmp_path):
    """A folder of four pictures, one in a sub-folder with a name that is markup, tagged with captions."""
    folder = tmp_path / "pictures"
    for number, name in enumerate(("a.png", "b.png", "c.png", "<img src=x onerror=alert(1)>&#/ü%20.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture_of(number, 60).save(folder / name)
    assert tag(folder, models) == 0
    return folder


def tag(folder, models, *options) -> int:
    return commands.main(["tag", str(folder), "--model", str(models / "onnx"), *options])


@pytest.fixture
def served(tagged):
    with review_server(tagged) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, content=None, token=None, **headers):
    """(status, answer) of a request as the page makes it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    headers = {"X-Token": server.token if token is None else token} | headers
    body = None if content is None else json.dumps(content)
    connection.request("GET" if content is None else "POST", path, body, headers)
    answer = connection.getresponse()
    found = answer.read()
    connection.close()
    return answer.status, json.loads(found) if answer.headers["Content-Type"] == "application/json" else found


def test_the_page_knows_pictures_of_earlier_runs_and_forgets_those_that_are_gone(tagged, models):
    assert len(read_page(tagged / "review.html")) == 4
    picture(tagged / "new.png")
    (tagged / "c.png").unlink()
    assert tag(tagged, models) == 0
    found = {name: json.loads(line) for name, line in read_page(tagged / "review.html").items()}
    assert sorted(found) == ["<img src=x onerror=alert(1)>&#/ü%20.png", "a.png", "b.png", "new.png"]
    entry = found["a.png"]
    assert 0 <= entry["sure"] <= 1 and entry["characters"][0][0] and entry["words"] == caption(tagged)
    assert "<img src=x" not in (tagged / "review.html").read_text()


def caption(folder, name="a.txt"):
    return [word for word in (folder / name).read_text().strip().split(", ") if word]


def test_a_page_of_somebody_else_is_left_alone_and_none_is_written_on_request(tmp_path, models, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "review.html").write_text("my holiday")
    assert tag(tmp_path, models) == 0 and (tmp_path / "review.html").read_text() == "my holiday"
    assert "is left alone" in capsys.readouterr().err
    (tmp_path / "review.html").unlink()
    assert tag(tmp_path, models, "--overwrite", "--no_review") == 0 and not (tmp_path / "review.html").exists()


def test_corrections_are_saved_and_taken_back_byte_for_byte(served, tagged):
    first = (tagged / "a.txt").read_bytes()
    words = caption(tagged)
    number = next(row["number"] for row in ask(served, "/pictures")[1] if row["file"] == "a.png")
    status, said = ask(served, "/save", {"number": number, "words": ["holo", *words[2:]], "seen": words})
    assert status == 200 and caption(tagged) == ["holo", *words[2:]] == said["words"]
    status, said = ask(served, "/save", {"number": number, "words": [], "seen": said["words"]})
    assert status == 200 and (tagged / "a.txt").read_text() == "\n"
    assert ask(served, "/check", {"number": number, "checked": True})[1]["checked"] is True
    for checked, expected in ((False, []), (False, ["holo", *words[2:]]), (False, words)):
        status, said = ask(served, "/undo", {})
        assert (status, said["checked"], said["words"]) == (200, checked, expected)
    assert (tagged / "a.txt").read_bytes() == first
    assert ask(served, "/undo", {}) == (422, {"error": "Nothing to undo."})
    assert not list(tagged.glob(".*.tmp"))


def test_what_was_checked_is_known_to_the_next_server(tagged):
    reviewed = Reviewed(tagged)
    reviewed.check(1, True)
    reviewed.check(2, True)
    reviewed.check(2, False)
    with (tagged / ".mfdn_review.jsonl").open("a") as log:
        log.write('{"file": "c.p')  # killed while it wrote
    assert Reviewed(tagged).checked == {reviewed.names[1]}


def test_a_caption_that_another_program_changed_is_not_replaced(tagged):
    reviewed = Reviewed(tagged)
    number = reviewed.names.index("b.png")
    seen = reviewed.words(number)
    (tagged / "b.txt").write_text("by hand")
    with pytest.raises(Conflict, match="changed by another program"):
        reviewed.save(number, ["holo"], seen)
    assert (tagged / "b.txt").read_text() == "by hand"


def test_lines_of_a_caption_stay_where_they_are(tagged):
    (tagged / "a.txt").write_text("A girl, standing.\nlong_hair, smile\n")
    reviewed = Reviewed(tagged)
    number = reviewed.names.index("a.png")
    seen = reviewed.words(number)
    reviewed.save(number, ["holo", *[word for word in seen if word != "smile"], "hat"], seen)
    assert (tagged / "a.txt").read_text() == "holo, A girl, standing., hat\nlong_hair\n"


def test_a_tag_that_holds_a_comma_is_one_word(tagged):
    for text in ("holo, hello,_good-bye, hat\n", "holo, hello, good-bye, hat\n", "holo,hello,_good-bye,hat"):
        (tagged / "a.txt").write_text(text)
        reviewed = Reviewed(tagged)
        number = reviewed.names.index("a.png")
        seen = reviewed.words(number)
        assert seen[1].replace(" ", "_") == "hello,_good-bye" and len(seen) == 3
        reviewed.save(number, seen[:2], seen)
        assert (tagged / "a.txt").read_text() == f"holo, {seen[1]}\n"
    with pytest.raises(ValueError, match="cannot hold"):
        reviewed.save(number, ["one, two"], reviewed.words(number))


def test_what_stands_in_one_file_is_corrected_in_captions(tagged, models):
    for path in tagged.rglob("*.txt"):
        path.unlink()
    assert tag(tagged, models, "--format", "jsonl") == 0
    reviewed = Reviewed(tagged)
    number = reviewed.names.index("a.png")
    words = reviewed.words(number)
    assert words, "what the model said"
    reviewed.save(number, words[1:], words)
    assert caption(tagged) == words[1:]
    reviewed.undo()
    assert not (tagged / "a.txt").exists()


@pytest.mark.parametrize("path", ["/", "/pictures", "/picture/0", "/thumbnail/0"])
def test_nobody_is_answered_without_the_token(served, path):
    assert ask(served, path)[0] == 200
    for token in ("", "wrong", served.token[:-1]):
        assert ask(served, path, token=token)[0] == 403
    assert ask(served, path, Host="evil.example:80")[0] == 403, "a name that was made to lead here"


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/save", {"number": 99, "words": [], "seen": []}, 422),
        ("/save", {"number": -1, "words": [], "seen": []}, 422),
        ("/save", {"number": "0", "words": [], "seen": []}, 422),
        ("/save", {"number": 0, "words": "x", "seen": []}, 400),
        ("/save", {"number": 0, "words": ["a\nb"], "seen": []}, 422),
        ("/save", {"number": 0}, 400),
        ("/save", [1], 400),
        ("/nonsuch", {"number": 0}, 404),
        ("/picture/99", None, 404),
        ("/picture/../../etc/passwd", None, 404),
        ("/thumbnail/%2e%2e", None, 404),
    ],
)
def test_requests_of_others_are_refused_and_write_nothing(served, tagged, path, content, status):
    before = {file: file.read_bytes() for file in tagged.rglob("*") if file.is_file()}
    found, said = ask(served, path, content)
    assert found == status and said["error"]
    assert before == {file: file.read_bytes() for file in tagged.rglob("*") if file.is_file()}


def test_a_post_without_the_header_or_without_end_is_refused(served, tagged):
    words = caption(tagged)
    content = {"number": 0, "words": ["x"], "seen": words}
    assert ask(served, f"/save?token={served.token}", content, token="")[0] == 403, "a form of another page"
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port)
    connection.request("POST", "/save", headers={"X-Token": served.token, "Content-Length": "99999999999"})
    assert connection.getresponse().status == 413


def test_a_picture_that_is_broken_costs_itself_alone(tagged):
    (tagged / "b.png").write_bytes(b"<html>")
    (tagged / "b.txt").write_bytes(b"\xff\xfe\xff")
    with review_server(tagged) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        rows = {row["file"]: row for row in ask(server, "/pictures")[1]}
        assert "UTF-8" in rows["b.png"]["problem"] and rows["a.png"]["words"]
        assert ask(server, f"/thumbnail/{rows['b.png']['number']}")[0] == 422
        assert ask(server, f"/thumbnail/{rows['a.png']['number']}")[0] == 200
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_a_tag_is_changed_and_stands_in_the_file(served, tagged):
    """By mouse and by keys; from the disk the same page only shows."""
    sync_api = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(served.address)
        expect(page.locator("#count")).to_have_text("4 of 4; 4 to check")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_label("Order").select_option("file")
        number = served.reviewed.names.index("a.png")
        card = page.locator(f"[data-number='{number}']")
        before = caption(tagged)
        card.get_by_title(f"Strike {before[-1]}", exact=True).click()
        expect(page.locator("#status")).to_have_text("Saved: a.txt")
        assert caption(tagged) == before[:-1]
        card.get_by_placeholder("add a tag").fill("my tag")
        card.get_by_placeholder("add a tag").press("Enter")
        expect(card.locator(".words")).to_contain_text("my tag")
        assert caption(tagged) == [*before[:-1], "my tag"]
        page.keyboard.press("Escape")
        page.keyboard.press("u")
        expect(page.locator("#status")).to_contain_text("Taken back")
        page.keyboard.press("u")
        expect(card.locator(".words li")).to_have_count(len(before))
        assert caption(tagged) == before
        card.locator(".file").click()
        second = card.locator(".choices button").nth(1)
        name = second.locator("span").text_content()
        page.keyboard.press("2")
        expect(second).to_have_attribute("aria-pressed", "true")
        assert caption(tagged)[0] == name
        page.keyboard.press("0")
        expect(card.locator(".words .who")).to_have_count(0)
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_text("4 of 4; 3 to check")
        page.keyboard.press("/")
        page.keyboard.type("a.png")
        expect(page.locator("#pictures-shown > li")).to_have_count(0)
        page.get_by_label("Show").select_option("checked")
        expect(page.locator("#pictures-shown > li")).to_have_count(1)
        expect(card.locator("img")).to_have_js_property("complete", True)
        assert card.locator("img").evaluate("image => image.naturalWidth") > 0
        page.goto((tagged / "review.html").as_uri())
        expect(page.locator("#count")).to_have_text("4 of 4")
        expect(page.locator(".tools")).to_have_count(0)
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        browser.close()
    assert not problems


def test_a_folder_without_pictures_and_a_port_that_is_taken_are_sentences(tmp_path, tagged, served, capsys):
    (tmp_path / "void").mkdir()
    assert commands.main(["review", str(tmp_path / "void")]) == 2
    assert "found none" in capsys.readouterr().err
    assert commands.main(["review", str(tagged), "--port", str(served.server_port)]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_the_address_that_is_printed_is_all_one_needs(served):
    with urllib.request.urlopen(served.address) as answer:
        assert b"Review" in answer.read()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{served.server_port}/")
