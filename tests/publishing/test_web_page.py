"""The page in a real browser: it names what Python names, follows hints, and says what it cannot read."""

import io
import json
import shutil
import threading
from functools import partial

import pytest
import torch
from character_factory import draw, fitted_gallery, give_statistics, picture_of
from conftest import CHARACTERS, TAGS, make_config, make_model
from PIL import Image

from modeling_mfdn import MultiLabelConfig, MultiLabelModel, commands
from modeling_mfdn.gallery_mfdn import CharacterGallery
from modeling_mfdn.pictures_mfdn import pad_to_square
from modeling_mfdn.publishing import web_page
from modeling_mfdn.publishing.web_page import RUNTIME_FILES, build_page, page_server, runtime_folder
from modeling_mfdn.training.tag_tokenizer import build_processor

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def mfdn(command: str, argv: list[str]) -> int:
    return commands.main([command, *argv])


main = partial(mfdn, "page")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(model, processor, address) of a page on this machine, built once; its answers differ between pictures."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("playwright.sync_api")
    export = partial(mfdn, "export")

    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    try:
        runtime = runtime_folder(None)
    except OSError as error:
        pytest.skip(f"onnxruntime-web cannot be had: {error}")
    folder = tmp_path_factory.mktemp("page")
    config = make_config(TAGS, CHARACTERS)
    model, processor = make_model(config), build_processor(config, TAGS)
    with torch.no_grad():
        model.character_head.weight.mul_(0.8)  # best scores on both sides of 50 %
    processor.characters = CHARACTERS
    processor.tag_threshold = 0  # the page shows every tag, whatever the random weights say
    give_statistics(model, processor)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    assert export(["--model", str(folder / "model"), "--output", str(folder / "onnx")]) == 0
    (folder / "site").mkdir()
    (folder / "onnx" / "samples").mkdir()
    for number in (1, 2):
        picture_of(number, 50).resize((720, 480)).save(folder / "onnx" / "samples" / f"{number}.png")
    build_page(folder / "onnx", folder / "site", "Who?", False, runtime)
    with page_server(folder / "site", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield model, processor, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(served):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser_page(served, browser):
    """The page in headless Chromium, its model loaded."""
    from playwright.sync_api import expect

    address = served[2]
    page = browser.new_page(viewport={"width": 360, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if is_foreign(request.url, address) else None)
    page.expect = lambda place: expect(page.locator(place))
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
    yield page
    page.close()
    assert not problems


def is_foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "blob:", "data:"))


def shown_scores(page) -> dict[str, int]:
    """{character: percent} as the page shows them."""
    rows = [line.all_inner_texts() for line in (row.locator("span") for row in page.locator("#characters li").all())]
    return {name: 0 if score == "less than 1 %" else int(score.split()[0]) for name, score in rows}


def wanted_scores(model, processor, picture, tags=None) -> dict[str, float]:
    with torch.no_grad():
        outputs = model(**processor(images=picture, tags=tags))
    return {entry["label"]: 100 * entry["score"] for entry in processor.post_process(outputs)[0]["characters"]}


def assert_alike(found, wanted):
    assert list(found)[0] == list(wanted)[0] and set(found) == set(wanted)
    # A browser's canvas rounds to 8 bits where Pillow does not, and the page rounds to whole percents.
    assert all(abs(found[name] - wanted[name]) < 2.5 for name in wanted), (found, wanted)


@pytest.mark.slow
def test_the_page_names_what_python_names_and_follows_hints(browser_page, served, tmp_path):
    page, (model, processor, _) = browser_page, served
    gradient = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    gradient.paste((200, 30, 60), (10, 10, 50, 40))
    gradient.save(tmp_path / "wide.png")
    page.set_input_files("#file", tmp_path / "wide.png")
    page.expect("#characters li").to_have_count(5)
    alone = shown_scores(page)
    assert_alike(alone, wanted_scores(model, processor, gradient))

    page.fill("#hint", "Long")
    page.expect("#suggestions li").to_have_text(["long_hair"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.expect("#hints li").to_have_count(1)
    page.expect("#results").to_have_attribute("aria-busy", "false")
    page.expect("#status").to_contain_text("Done")
    hinted = shown_scores(page)
    assert hinted != alone
    assert_alike(hinted, wanted_scores(model, processor, gradient, [["long_hair"]]))
    assert "long_hair" not in page.inner_text("#tags")
    page.click("#hints button")
    page.expect("#hints li").to_have_count(0)
    page.expect("#status").to_contain_text("Done")
    assert shown_scores(page) == alone
    assert page.evaluate_handle("document.documentElement.scrollWidth").json_value() <= 360  # nothing sticks out


@pytest.mark.slow
def test_a_dropped_picture_becomes_the_numbers_of_the_processor(browser_page, served, tmp_path):
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
        wanted = served[1].image_processor(pad_to_square(picture), resample=resample, return_tensors="pt")
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
    page.set_input_files("#file", {"name": "photo.heic", "mimeType": "image/heic", "buffer": b"\0\0\0\x18ftypheic"})
    page.expect("#status").to_have_text("photo.heic is no picture that this browser can read.")
    page.expect("#characters li").to_have_count(0)
    page.fill("#hint", "no_such_tag")
    page.keyboard.press("Enter")
    page.expect("#status").to_have_text("The model does not know the tag no_such_tag.")
    clear = io.BytesIO()
    Image.new("RGBA", (31, 20), (0, 0, 0, 0)).save(clear, "PNG")
    drop(page, clear.getvalue())
    page.expect("#characters li").to_have_count(5)
    page.expect("#preview").to_have_attribute("alt", "Your picture: clear.png")


def drop(page, *files: bytes, name: str = "clear.png") -> None:
    """As if files were dragged onto the page."""
    make = """([files, name]) => { const transfer = new DataTransfer();
        for (const bytes of files)
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
        return transfer; }"""
    handle = page.evaluate_handle(make, [list(map(list, files)), name])
    page.dispatch_event("#drop", "drop", {"dataTransfer": handle})


def png(seed: int, size=(60, 90)) -> bytes:
    colors = torch.randint(0, 256, (4, 3, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors.numpy()).resize(size, Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def known_png(character: int) -> bytes:
    """A picture of a character that the statistics know."""
    picture_of(character, 50).resize((96, 64), Image.Resampling.NEAREST).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def look_at(page, data: bytes, name: str) -> None:
    drop(page, data, name=name)
    page.expect("#preview").to_have_attribute("alt", f"Your picture: {name}")
    page.expect("#status").to_contain_text("Done")


def add_hint(page, tag: str) -> None:
    page.fill("#hint", tag)
    page.keyboard.press("Enter")


@pytest.mark.slow
def test_hints_and_strikes_are_of_one_picture(browser_page, served):
    page, (model, processor, _) = browser_page, served
    first, second = (Image.open(io.BytesIO(png(seed))) for seed in (1, 2))
    add_hint(page, "smile")  # before any picture: for the first
    page.expect("#hints li").to_have_count(1)
    look_at(page, png(1), "first.png")
    assert_alike(shown_scores(page), wanted_scores(model, processor, first, [["smile"]]))
    page.locator("#tags li").first.locator("button").last.click()
    number = page.locator("#tags li").count()
    look_at(page, png(2), "second.png")
    page.expect("#hints li").to_have_count(0)
    assert page.locator("#tags li").count() == number + 2  # what was struck and what was a hint
    assert_alike(shown_scores(page), wanted_scores(model, processor, second))


@pytest.mark.slow
def test_the_slower_of_two_pictures_does_not_overwrite_the_later_one(browser_page, served):
    page, (model, processor, _) = browser_page, served
    page.evaluate("""() => { const original = window.createImageBitmap; let calls = 0;
        window.createImageBitmap = async (...given) => {
            if (calls++ === 0) await new Promise((done) => setTimeout(done, 700));
            return original(...given); }; }""")
    drop(page, png(1), name="slow.png")
    drop(page, png(2), name="quick.png")
    page.expect("#status").to_contain_text("Done")
    page.wait_for_timeout(1000)
    page.expect("#preview").to_have_attribute("alt", "Your picture: quick.png")
    assert_alike(shown_scores(page), wanted_scores(model, processor, Image.open(io.BytesIO(png(2)))))
    # Five at once, each before the one before is looked at: the last is shown, with its own names.
    for seed in range(3, 8):
        drop(page, png(seed), name=f"{seed}.png")
    page.expect("#preview").to_have_attribute("alt", "Your picture: 7.png")
    page.expect("#status").to_contain_text("Done")
    assert_alike(shown_scores(page), wanted_scores(model, processor, Image.open(io.BytesIO(png(7)))))


@pytest.mark.slow
def test_no_names_of_one_picture_stand_beside_another(browser_page):
    """While a picture is being looked at, and when the model fails, nothing of the picture before is shown."""
    page = browser_page
    look_at(page, png(1), "first.png")
    page.evaluate("""async () => {
        const ort = await import("./onnxruntime/ort.wasm.min.mjs");
        const session = Object.getPrototypeOf(await ort.InferenceSession.create("model.onnx"));
        const run = session.run;
        window.result = new Promise((resolve) => { window.answer = resolve; });
        session.run = async function (...given) { await window.result; return run.apply(this, given); }; }""")
    drop(page, png(2), name="second.png")
    page.expect("#preview").to_have_attribute("alt", "Your picture: second.png")
    page.expect("#status").to_have_text("Looking…")
    page.expect("#characters li").to_have_count(0)
    page.expect("#tags li").to_have_count(0)
    page.expect("#results").to_have_attribute("aria-busy", "true")
    drop(page, b"none", name="broken.png")
    page.expect("#status").to_have_text("broken.png is no picture that this browser can read.")
    page.evaluate("window.answer()")
    page.expect("#characters li").to_have_count(5)
    page.expect("#status").to_have_text("broken.png is no picture that this browser can read.")
    page.evaluate("() => { window.result = Promise.reject(new Error('no memory')); window.result.catch(() => {}); }")
    drop(page, png(3), name="third.png")
    page.expect("#status").to_have_text("The model stopped with an error. Reload the page.")
    page.expect("#characters li").to_have_count(0)
    page.expect("#tags li").to_have_count(0)
    page.expect("#copy").to_be_hidden()


@pytest.mark.slow
def test_what_is_copied_has_the_character_and_a_clipboard_that_refuses_is_said(browser_page, served):
    page, (model, processor, address) = browser_page, served
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    seen = set()
    for number, data in enumerate([*map(png, range(3)), *map(known_png, range(6))]):
        with torch.no_grad():
            outputs = model(**processor(images=Image.open(io.BytesIO(data))))
        result = processor.post_process(outputs)[0]
        name, score = result["characters"][0].values()
        is_sure = score >= 0.5 and result["unknown"] <= 0.5
        if abs(score - 0.5) < 0.03 or is_sure in seen:
            continue
        seen.add(is_sure)
        look_at(page, data, f"{number}.png")
        page.expect("#copy").to_have_text("Copy character and tags" if is_sure else "Copy tags")
        page.click("#copy")
        page.expect("#copied").to_contain_text(f"Copied: {name if is_sure else 'no character'}")
        tags = [chip.rsplit(" ", 2)[0] for chip in page.locator("#tags li > span").all_inner_texts()]
        assert len(tags) > 5
        assert page.evaluate("navigator.clipboard.readText()") == ", ".join([name] * is_sure + tags)
    assert seen == {True, False}
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')); }")
    page.click("#copy")
    page.expect("#copied").to_contain_text("does not let a page copy. Here is the line: ")
    assert page.inner_text("#copied").endswith(", ".join([name] * is_sure + tags))


@pytest.mark.slow
def test_a_tagger_names_several_characters_and_the_rating(browser, tmp_path):
    from playwright.sync_api import expect

    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    names = {"id2label": dict(enumerate(CHARACTERS)), "num_tags": len(TAGS), "rating_names": ["general", "explicit"]}
    model = MultiLabelModel(MultiLabelConfig(**sizes, **names, num_vision_layers=1, num_fusion_layers=1)).eval()
    with torch.no_grad():
        model.character_head.bias.copy_(torch.tensor([-4.0, 4, -4, 3, -4, -4]))
        model.rating_head.bias.copy_(torch.tensor([-2.0, 2]))
    processor = build_processor(model.config, TAGS)
    processor.character_activation, processor.character_threshold = "sigmoid", 0.85
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert mfdn("export", ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "onnx")]) == 0
    (tmp_path / "site").mkdir()
    build_page(tmp_path / "onnx", tmp_path / "site", "Who?", False, runtime_folder(None))
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    with page_server(tmp_path / "site", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
        page.set_input_files("#file", tmp_path / "red.png")
        expect(page.locator("#rating")).to_have_text("Rating: explicit (88 %)", timeout=60_000)
        shown = shown_scores(page)
        assert list(shown)[:2] == ["rem_(re:zero)", "kaname_madoka"]
        assert 95 <= shown["kaname_madoka"] <= shown["rem_(re:zero)"] <= 99
        expect(page.locator("#copy")).to_have_text("Copy characters and tags")
        page.screenshot(path=tmp_path / "page.png")
        page.close()
        server.shutdown()


@pytest.mark.slow
def test_the_same_file_can_be_chosen_again_and_several_at_once_are_refused(browser_page, tmp_path):
    page = browser_page
    (tmp_path / "a.png").write_bytes(png(1))
    for _ in range(2):
        page.set_input_files("#file", tmp_path / "a.png")
        page.expect("#status").to_contain_text("Done")
        add_hint(page, "hat")
        page.expect("#hints li > span").to_have_text(["hat"])  # not hatsune_miku_(append), which begins so too
        page.expect("#status").to_contain_text("Done")
        assert page.input_value("#file") == ""  # else the browser sees no change when it is chosen again
        add_hint(page, "Hat")
        page.expect("#status").to_have_text("hat is a hint already.")
    drop(page, png(1), png(2))
    page.expect("#status").to_have_text("One picture at a time: these were 2 files.")
    page.expect("#preview").to_have_attribute("alt", "Your picture: a.png")


@pytest.mark.slow
def test_who_only_looks_around_finds_samples_and_all_names(browser_page, served):
    page = browser_page
    page.expect("#samples button").to_have_count(2)
    assert page.evaluate("document.querySelector('#samples img').naturalWidth") == 512, "small enough to load at once"
    page.click("#names-part summary")
    page.expect("#names li").to_have_count(len(CHARACTERS))
    page.click("#names button >> nth=0")
    page.expect("#status").to_contain_text("Give a picture first")
    page.locator("#samples button").first.click()
    page.expect("#preview").to_have_attribute("alt", "Your picture: sample 1")
    page.expect("#status").to_contain_text("Done")
    for _ in range(60):  # it scrolls smoothly
        top = page.evaluate("document.querySelector('#results').getBoundingClientRect().top")
        if -1 <= top < 200:
            break
        page.wait_for_timeout(50)
    assert -1 <= top < 200, "in view on a phone"
    last = next(name for name in CHARACTERS if name not in shown_scores(page))
    page.fill("#names-filter", last[:4])
    page.click(f"#names button:text-is('{last}')")
    page.expect("#characters li").to_have_count(6)
    page.expect("#characters .asked").to_contain_text(f"6. {last}")
    assert "0 %" not in page.locator("#characters li span + span").all_inner_texts()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.slow
def test_hints_are_kept_tags_chosen_and_the_line_spelled_as_one_wants(browser_page, served):
    page, address = browser_page, served[2]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.check("#keep")
    look_at(page, png(1), "first.png")
    add_hint(page, "long hair")
    page.expect("#hints li").to_have_count(1)
    look_at(page, png(2), "second.png")
    page.expect("#hints li > span").to_have_text(["long_hair"])
    number = page.locator("#tags li").count()
    page.locator("#threshold").fill("0.5")
    page.expect("#threshold-said").to_have_text("50 %")
    few = page.locator("#tags li").count()
    assert few < number
    scores = [int(chip.split()[-2]) for chip in page.locator("#tags li > span").all_inner_texts()]
    assert all(score >= 50 for score in scores)
    page.click("#threshold-reset")
    page.expect("#tags li").to_have_count(number)
    page.check("#spaces")
    page.check("#escape")
    page.click("#copy")
    page.expect("#copied").to_contain_text("Copied")
    line = page.evaluate("navigator.clipboard.readText()").split(", ")
    assert "long hair" in line and ">_<" in line and "hatsune miku \\(append\\)" in line
    assert "long hair" in line[: len(line) - number], "hints stand before what was found"


@pytest.mark.slow
def test_arrow_keys_go_through_the_tags_and_tab_goes_past_them(browser_page):
    page = browser_page
    look_at(page, png(1), "first.png")
    buttons = page.locator("#tags button")
    assert buttons.count() > 10 and page.locator("#tags button[tabindex='0']").count() == 1
    buttons.first.focus()
    where = "[...document.querySelectorAll('#tags button')].indexOf(document.activeElement)"
    for key, place in (("ArrowRight", 1), ("ArrowDown", 3), ("ArrowLeft", 2), ("ArrowUp", 0), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.evaluate(where) == place, key
    page.keyboard.press("End")
    assert page.evaluate(where) == buttons.count() - 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "spaces", "one stop for all of them"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(where) == buttons.count() - 1


def test_samples_that_are_none_are_a_sentence(tmp_path):
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="Expected pictures"):
        web_page.write_samples(tmp_path / "void", tmp_path)


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
    assert 'sdk: "static"' in (tmp_path / "site" / "README.md").read_text()
    assert main(flags) == 2 and "--overwrite" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("site.")]


def test_a_port_that_cannot_be_is_named_in_one_sentence(tmp_path, capsys):
    assert main(["--output", str(tmp_path), "--serve", "70000"]) == 2
    assert capsys.readouterr().err == "error: --serve expects a port from 0 to 65535, got 70000.\n"


def test_a_port_that_is_taken_is_named(tmp_path, capsys):
    (tmp_path / "page.json").write_text("{}")
    with page_server(tmp_path, 0) as server:
        assert main(["--output", str(tmp_path), "--serve", str(server.server_port)]) == 2
        assert f"error: Port {server.server_port} cannot be used: Address already in use." in capsys.readouterr().err


def test_a_package_of_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "HF_HOME", str(tmp_path / "home"))
    (tmp_path / "package.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="its SHA-512 differs"):
        runtime_folder(str(tmp_path / "package.tgz"))
    assert not (tmp_path / "home").exists()


def test_scripts_and_pictures_from_elsewhere_are_forbidden_and_names_are_text():
    page = (web_page.STATIC / "index.html").read_text()
    assert "default-src 'none'" in page and "unsafe-inline" not in page and "://" not in page
    scripts = "".join(path.read_text() for path in web_page.STATIC.glob("*.js"))
    assert "innerHTML" not in scripts and "insertAdjacentHTML" not in scripts and "eval(" not in scripts


# ---------------------------------------------------------------- characters that are taught


def save_pictures(folder, character: int, numbers) -> list:
    """Files of a character, of a size that canvas and Pillow bring to the model's alike."""
    paths = []
    for number in numbers:
        paths.append(folder / f"{character}_{number}.png")
        picture_of(character, number).resize((96, 64), Image.Resampling.NEAREST).save(paths[-1])
    return paths


def give(page, path) -> None:
    page.set_input_files("#file", path)
    page.expect("#preview").to_have_attribute("alt", f"Your picture: {path.name}")
    page.expect("#status").to_contain_text("Done")


def teach(page, paths, name: str) -> None:
    page.set_input_files("#lesson-files", paths)
    page.expect("#lesson-pictures li").to_have_count(len(paths))
    page.expect("#teach-status").to_have_text("")
    page.fill("#name", name)
    page.click("#teach")


@pytest.mark.slow
def test_a_character_is_taught_named_kept_and_forgotten(browser_page, served, tmp_path):
    page, (model, processor, _) = browser_page, served
    *lessons, sixth = save_pictures(tmp_path, 9, range(6))
    give(page, sixth)
    page.expect("#unknown").to_contain_text("Unknown: none of the characters it knows")
    page.expect("#characters li").to_have_count(5)  # the nearest
    teach(page, lessons, "kiki")
    page.expect("#teach-status").to_have_text("kiki is taught.")
    page.expect("#taught li").to_have_count(1)
    assert list(shown_scores(page))[0] == "kiki"
    page.expect("#unknown").not_to_have_class("answer")

    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "exported.safetensors")
    gallery = CharacterGallery(processor.gallery.statistics)
    assert gallery.load(tmp_path / "exported.safetensors") == ["kiki"] and gallery.counts.tolist() == [5]
    with torch.no_grad():  # Python says of it what the page says
        outputs = model(**processor(images=Image.open(sixth)))
        taught = gallery.taught_log_odds(gallery.statistics.axes(outputs.picture_embedding)).item()
    assert taught > 3 and gallery.thumbnails[0].startswith(b"\xff\xd8")

    page.reload()
    page.expect("#status").to_have_text("Ready.")
    page.expect("#taught li").to_have_count(1)
    give(page, sixth)
    assert list(shown_scores(page))[0] == "kiki"
    page.click("#taught button")
    page.expect("#teach-status").to_have_text("kiki is forgotten.")
    page.expect("#unknown").to_have_class("answer")
    page.set_input_files("#import", tmp_path / "exported.safetensors")
    page.expect("#teach-status").to_have_text("1 character is imported.")
    assert list(shown_scores(page))[0] == "kiki"
    assert page.evaluate_handle("document.documentElement.scrollWidth").json_value() <= 360
    page.click("#taught button")  # the next test begins with nobody
    page.expect("#taught li").to_have_count(0)


@pytest.mark.slow
def test_a_gallery_that_python_made_is_read_and_that_of_another_model_refused(browser_page, served, tmp_path):
    page, (model, processor, _) = browser_page, served
    with torch.no_grad():
        outputs = model(**processor(images=[picture_of(9, number) for number in range(5)]))
    gallery = CharacterGallery(processor.gallery.statistics)
    gallery.teach("kiki", outputs.picture_embedding)
    gallery.save(tmp_path / "mine.safetensors")
    other = fitted_gallery()
    other.teach("nobody", draw(1, 3, 0)[0])
    other.save(tmp_path / "other.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"no gallery")
    page.set_input_files("#import", tmp_path / "other.safetensors")
    page.expect("#teach-status").to_contain_text("other.safetensors: Another model made this gallery")
    page.set_input_files("#import", tmp_path / "none.safetensors")
    page.expect("#teach-status").to_contain_text("none.safetensors: This is no gallery")
    page.expect("#taught li").to_have_count(0)
    page.set_input_files("#import", tmp_path / "mine.safetensors")
    page.expect("#taught li").to_have_count(1)
    (asked,) = save_pictures(tmp_path, 9, [50])
    give(page, asked)
    assert list(shown_scores(page))[0] == "kiki"
    page.click("#taught button")
    page.expect("#taught li").to_have_count(0)


@pytest.mark.slow
def test_what_cannot_be_taught_is_said_and_a_stranger_is_named(browser_page, tmp_path):
    page = browser_page
    assert page.is_disabled("#teach")
    page.set_input_files("#lesson-files", {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.expect("#teach-status").to_have_text("notes.png is no picture that this browser can read.")
    teach(page, [*save_pictures(tmp_path, 9, range(5)), *save_pictures(tmp_path, 40, [0])], " ")
    page.expect("#teach-status").to_have_text("Give the character a name, in one line.")
    page.fill("#name", "kiki")
    page.click("#teach")
    page.expect("#teach-status").to_contain_text("Unlike the others: 40_0.png.")
    teach(page, save_pictures(tmp_path, 11, [0]), "ponyo")
    page.expect("#teach-status").to_contain_text("From one picture it will be missed often")
    teach(page, save_pictures(tmp_path, 11, [1]), "ponyo")
    page.expect("#teach-status").to_contain_text("now it has 2 pictures")
    page.expect("#taught li").to_have_count(2)
    for left in (1, 0):
        page.locator("#taught button").first.click()
        page.expect("#taught li").to_have_count(left)
