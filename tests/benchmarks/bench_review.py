"""What the page of `mfdn review` adds to the time of who checks 100 pictures: scripted keys and clicks in Chromium.

    python tests/benchmarks/bench_review.py --model mfdn_onnx --pictures mini_booru/512px --output bench_review.json

Every picture is left with Enter; before that every 5th gets its second character by a key, and every 7th loses a tag
by a click. Each action waits until the file says so. A person thinks in between: this is what is left of her time.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_mfdn.tagging.picture_folder import find_pictures  # noqa: E402
from modeling_mfdn.tagging.review import review_server  # noqa: E402
from modeling_mfdn.tagging.tag_folder import TagOptions, tag_folder  # noqa: E402


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    seconds, actions, corrected = [], 0, 0
    with tempfile.TemporaryDirectory() as work, sync_playwright() as driver:
        for number, path in enumerate(find_pictures(Path(args.pictures), True)[0][: args.number]):
            shutil.copy(path, Path(work, f"{number:03}{path.suffix}"))
        tag_folder(TagOptions(work, args.model))
        with review_server(Path(work)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            started = time.perf_counter()
            page.goto(server.address)
            expect(page.locator("#pictures-shown > li").first).to_be_visible()
            opened = time.perf_counter() - started
            for number in range(len(server.reviewed.paths)):
                began = time.perf_counter()
                here = page.locator("#pictures-shown > li.here")
                seen = here.get_attribute("data-number")
                card = page.locator(f"[data-number='{seen}']")
                if number % 5 == 4 and card.locator(".choices button").count() > 1:
                    page.keyboard.press("2")
                    second = card.locator(".choices button").nth(1)
                    expect(second).to_have_attribute("aria-pressed", "true")
                    actions, corrected = actions + 1, corrected + 1
                if number % 7 == 6 and card.locator(".words button").count():
                    left = card.locator(".words li").count() - 1
                    card.locator(".words button").last.click()
                    expect(card.locator(".words li")).to_have_count(left)
                    actions, corrected = actions + 1, corrected + 1
                page.keyboard.press("Enter")
                while len(server.reviewed.checked) <= number:
                    page.wait_for_timeout(2)
                actions += 1
                seconds.append(time.perf_counter() - began)
            browser.close()
            server.shutdown()
            checked = len(server.reviewed.checked)
    results = {
        "pictures": len(seconds),
        "checked": checked,
        "corrections": corrected,
        "actions_a_picture": round(actions / len(seconds), 2),
        "seconds_to_open": round(opened, 2),
        "seconds_in_all": round(sum(seconds), 1),
        "milliseconds_a_picture": {
            "median": round(1000 * statistics.median(seconds)),
            "max": round(1000 * max(seconds)),
        },
    }
    print(json.dumps(results, indent=2))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
