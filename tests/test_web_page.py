"""The page in a real browser: it names what Python names, follows hints, and says what it cannot read."""

import io
import json
import shutil
import threading

import pytest
import torch
from PIL import Image

from modeling_mfdn.image_reading_mfdn import pad_to_square
from modeling_mfdn.publishing import web_page
from modeling_mfdn.publishing.web_page import RUNTIME_FILES, build_page, main, page_server, runtime_folder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def onnx(tiny_model, tiny_processor, characters, picture, tmp_path):
    """Exported graphs of a model whose answers differ from picture to picture."""
    pytest.importorskip("onnxscript")
    from modeling_mfdn.publishing.onnx_export import main as export

    tiny_processor.characters = characters
    tiny_processor.tag_threshold = 0  # the page shows every tag, whatever the random weights say
    with torch.no_grad():
        tiny_model.character_head.weight.mul_(0.2)  # scores between the extremes, which rounding would hide
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    assert export(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "onnx")]) == 0
    return tmp_path / "onnx"


@pytest.fixture
def browser_page(onnx, tmp_path):
    """The page, served on this machine, in headless Chromium, its model loaded."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    try:
        runtime = runtime_folder(None)
    except OSError as error:
        pytest.skip(f"onnxruntime-web cannot be had: {error}")
    (tmp_path / "site").mkdir()
    build_page(onnx, tmp_path / "site", "Who?", False, runtime)
    with page_server(tmp_path / "site", 0) as server, playwright.sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 800})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if is_foreign(request.url, server) else None)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        playwright.expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
        page.expect = lambda place: playwright.expect(page.locator(place))
        yield page
        browser.close()
        server.shutdown()
        assert not problems


def is_foreign(url: str, server) -> bool:
    return not url.startswith((f"http://127.0.0.1:{server.server_port}/", "blob:", "data:"))


def shown_scores(page) -> dict[str, int]:
    """{character: percent} as the page shows them."""
    rows = [line.all_inner_texts() for line in (row.locator("span") for row in page.locator("#characters li").all())]
    return {name: int(score.split()[0]) for name, score in rows}


def wanted_scores(model, processor, picture, tags=None) -> dict[str, float]:
    with torch.no_grad():
        outputs = model(**processor(images=picture, tags=tags))
    return {entry["label"]: 100 * entry["score"] for entry in processor.post_process(outputs)[0]["characters"]}


def assert_alike(found, wanted):
    assert list(found)[0] == list(wanted)[0] and set(found) == set(wanted)
    # A browser's canvas rounds to 8 bits where Pillow does not, and the page rounds to whole percents.
    assert all(abs(found[name] - wanted[name]) < 2.5 for name in wanted), (found, wanted)


@pytest.mark.slow
def test_the_page_names_what_python_names_and_follows_hints(browser_page, tiny_model, tiny_processor, tmp_path):
    page = browser_page
    gradient = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    gradient.paste((200, 30, 60), (10, 10, 50, 40))
    gradient.save(tmp_path / "wide.png")
    page.set_input_files("#file", tmp_path / "wide.png")
    page.expect("#characters li").to_have_count(5)
    alone = shown_scores(page)
    assert_alike(alone, wanted_scores(tiny_model, tiny_processor, gradient))

    page.fill("#hint", "Long")
    page.expect("#suggestions li").to_have_text(["long_hair"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.expect("#hints li").to_have_count(1)
    page.expect("#results").to_have_attribute("aria-busy", "false")
    page.expect("#status").to_contain_text("Done")
    hinted = shown_scores(page)
    assert hinted != alone
    assert_alike(hinted, wanted_scores(tiny_model, tiny_processor, gradient, [["long_hair"]]))
    assert "long_hair" not in page.inner_text("#tags")
    page.click("#hints button")
    page.expect("#hints li").to_have_count(0)
    page.expect("#status").to_contain_text("Done")
    assert shown_scores(page) == alone
    assert page.evaluate_handle("document.documentElement.scrollWidth").json_value() <= 360  # nothing sticks out


@pytest.mark.slow
def test_a_dropped_picture_becomes_the_numbers_of_the_processor(browser_page, tiny_processor, tmp_path):
    """Opaque pixels alike to the bit depth; where alpha is partial a canvas blends in 8 bits, once more."""
    page = browser_page
    picture = Image.linear_gradient("L").resize((90, 60)).convert("RGBA")
    picture.paste((200, 30, 60, 128), (10, 10, 50, 40))
    picture.paste((0, 0, 0, 0), (60, 10, 80, 40))
    picture.save(tmp_path / "drop.png")
    data = list((tmp_path / "drop.png").read_bytes())
    found = page.evaluate(
        """async (data) => {
            const { toPixels } = await import("./picture.js");
            const model = await (await fetch("page.json")).json();
            const file = new File([new Uint8Array(data)], "drop.png", { type: "image/png" });
            const transfer = new DataTransfer();
            transfer.items.add(file);
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
            const bitmap = await createImageBitmap(file);
            return ["bilinear", "bicubic"].map((resample) => [...toPixels(bitmap, { ...model, resample })]);
        }""",
        data,
    )
    for resample, pixels in zip((2, 3), found, strict=True):
        wanted = tiny_processor.image_processor(pad_to_square(picture), resample=resample, return_tensors="pt")
        difference = (torch.tensor(pixels) - wanted["pixel_values"].flatten()).abs().max()
        assert difference < 3 * 2 / 255, resample  # three of the 256 steps
    page.expect("#characters li").to_have_count(5)
    assert page.get_attribute("#preview", "alt") == "Your picture: drop.png"


@pytest.mark.slow
def test_a_tag_is_struck_with_the_keyboard_and_the_focus_stays(browser_page, tmp_path):
    page = browser_page
    Image.linear_gradient("L").save(tmp_path / "a.png")
    page.set_input_files("#file", tmp_path / "a.png")
    page.expect("#status").to_contain_text("Done")
    chips = page.locator("#tags li")
    number = chips.count()
    assert number > 1
    chips.first.locator("button").last.focus()
    page.keyboard.press("Enter")
    page.expect("#tags li").to_have_count(number - 1)
    assert page.evaluate("document.querySelector('#tags').contains(document.activeElement)")


@pytest.mark.slow
def test_what_is_no_picture_is_said_and_the_page_goes_on(browser_page, tmp_path):
    page = browser_page
    for name, data in (("notes.png", b"no picture"), ("empty.jpg", b"")):
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})
        page.expect("#status").to_have_text(f"{name} is no picture that this browser can read.")
    page.fill("#hint", "no_such_tag")
    page.keyboard.press("Enter")
    page.expect("#status").to_have_text("The model does not know the tag no_such_tag.")
    clear = io.BytesIO()
    Image.new("RGBA", (31, 20), (0, 0, 0, 0)).save(clear, "PNG")
    drop(page, clear.getvalue())
    page.expect("#characters li").to_have_count(5)
    page.expect("#preview").to_have_attribute("alt", "Your picture: clear.png")


def drop(page, data: bytes) -> None:
    """As if a file were dragged onto the page."""
    make = """bytes => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "clear.png", { type: "image/png" }));
        return transfer; }"""
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(make, list(data))})


def test_a_page_needs_graphs_that_fit_into_it(tmp_path, capsys):
    (tmp_path / "onnx").mkdir()
    runtime = tmp_path / "dist"
    runtime.mkdir()
    flags = ["--onnx", str(tmp_path / "onnx"), "--output", str(tmp_path / "site"), "--onnxruntime_web", str(runtime)]
    assert main(flags) == 2 and "lacks ort.wasm" in capsys.readouterr().err
    for name in RUNTIME_FILES:
        (runtime / name).write_bytes(b"code")
    assert main([*flags, "--int8"]) == 2 and "model_int8.onnx" in capsys.readouterr().err
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "onnx" / "model.onnx.data").write_bytes(b"weights")
    preprocess = dict.fromkeys(web_page.PAGE_KEYS)
    (tmp_path / "onnx" / "preprocess.json").write_text(json.dumps(preprocess))
    assert main(flags) == 2 and "too large for a page" in capsys.readouterr().err
    (tmp_path / "onnx" / "model.onnx.data").unlink()
    (tmp_path / "onnx" / "preprocess.json").write_text(json.dumps(preprocess | {"white_square": False}))
    assert main(flags) == 2 and "stretches pictures" in capsys.readouterr().err
    (tmp_path / "onnx" / "preprocess.json").write_text(json.dumps(preprocess))
    assert main(flags) == 0 and (tmp_path / "site" / "onnxruntime" / RUNTIME_FILES[0]).exists()
    assert "sdk: \"static\"" in (tmp_path / "site" / "README.md").read_text()
    assert main(flags) == 2 and "--overwrite" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("site.")]


def test_a_port_that_cannot_be_is_named_in_one_sentence(tmp_path, capsys):
    assert main(["--output", str(tmp_path), "--serve", "70000"]) == 2
    assert capsys.readouterr().err == "error: --serve expects a port from 0 to 65535, got 70000.\n"


def test_a_package_of_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "HF_HOME", str(tmp_path / "home"))
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="its SHA-512 differs"):
        runtime_folder(str(tmp_path / "package.tgz"))
    assert not (tmp_path / "home").exists()


def test_scripts_and_pictures_from_elsewhere_are_forbidden_and_names_are_text():
    page = (web_page.STATIC / "index.html").read_text()
    assert "default-src 'none'" in page and "unsafe-inline" not in page and "://" not in page
    script = (web_page.STATIC / "page.js").read_text()
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "eval(" not in script
