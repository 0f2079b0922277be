"""The picture of the page in the README: a character that it does not know, and what it says once it was taught.

python tests/benchmarks/draw_web_page.py --site SITE --picture PICTURE --lessons FOLDER --name NAME --output FILE.png
"""

import argparse
import io
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_mfdn.publishing.web_page import page_server  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("site", "picture", "lessons", "name", "output"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    with page_server(Path(args.site), 0) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1130})
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
        page.set_input_files("#file", args.picture)
        expect(page.locator("#status")).to_contain_text("Done", timeout=60_000)
        lessons = sorted(map(str, Path(args.lessons).iterdir()))
        page.set_input_files("#lesson-files", lessons)
        expect(page.locator("#lesson-pictures li")).to_have_count(len(lessons), timeout=60_000)
        expect(page.locator("#teach-status")).to_have_text("")
        page.fill("#name", args.name)
        page.locator("#name").blur()
        page.evaluate("scrollTo(0, 0)")
        shots = [page.screenshot(), None]
        page.click("#teach")
        expect(page.locator("#taught li")).to_have_count(1)
        shots[1] = page.locator("#results").screenshot()
        browser.close()
        server.shutdown()
    before, after = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots)
    after = after.crop((0, 0, after.width, min(after.height, before.height - 125)))
    whole = Image.new("RGB", (before.width + after.width + 20, before.height), before.getpixel((0, 0)))
    whole.paste(before, (0, 0))
    whole.paste(after, (before.width, 125))
    whole.quantize(192).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
