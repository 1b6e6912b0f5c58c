"""Looks for what hinders people on the page, in each of its states.

  python -m tests.accessibility AXE [SCREENSHOTS]

AXE is the file axe.min.js of axe-core; `make a11y` brings it. The second
argument is a folder for a picture of each state. Ends with 1 if axe-core finds
anything serious.
"""

import itertools
import sys
import tempfile
from pathlib import Path

from playwright import sync_api

from tests import page_process
from tests.page_process import OTHER, UNKNOWN
from tests.test_demo_browser import CARD, CHROMIUM, QUIETLY, search

SIZES = {"desktop": (1280, 800), "phone": (360, 740)}
SERIOUS = ("serious", "critical")


def states(page, text):
    """Brings the page into one state after the other; yields their names."""
    page.wait_for_selector(".chips button")
    yield "start"
    search(page)
    yield "found"
    page.locator(CARD).first.click()
    page.wait_for_selector("#timeline .bar")
    yield "watching"
    page.click("#add-sentence")
    page.keyboard.type(f"{OTHER} {UNKNOWN}")
    page.keyboard.press("Enter")
    page.wait_for_selector("#timeline .bar.q1")
    yield "two sentences"
    page.set_input_files("#files", text)
    page.wait_for_selector("#uploads [role=alert]")
    yield "refused upload"
    page.click("#help-open")
    yield "keys"
    page.keyboard.press("Escape")
    page.locator(".sentence button", has_text="Remove").click()
    page.fill("input[type=search]", UNKNOWN)
    page.keyboard.press("Enter")
    page.wait_for_selector(".group .bad")
    yield "no known word"
    page.route("**/api/**", lambda route: route.abort())
    page.keyboard.press("Enter")
    page.wait_for_selector("#notice button")
    yield "server gone"


def look(page, axe):
    """Prints the serious findings of one state; returns how many."""
    page.wait_for_timeout(300)
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    found = [one for one in found if one["impact"] in SERIOUS]
    for one in found:
        places = [node["target"] for node in one["nodes"]]
        print(f"  {one['impact']}: {one['help']}: {places[:5]}")  # noqa: T201
    return len(found)


def main(axe, pictures=None):
    axe = Path(axe).read_text(encoding="utf-8")
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        page_process.make_library(folder)
        text = folder / "text.mp4"
        text.write_text("This is no video.")
        served = page_process.Page(folder)
        try:
            served.wait_until_ready()
            with sync_api.sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=QUIETLY
                )
                for size, scheme in itertools.product(SIZES, ("light", "dark")):
                    width, height = SIZES[size]
                    page = browser.new_page(
                        viewport={"width": width, "height": height},
                        color_scheme=scheme,
                        bypass_csp=True,  # or else axe could not come in
                    )
                    page.goto(served.url)
                    for name in states(page, text):
                        name = f"{size}, {scheme}, {name}"
                        print(name)  # noqa: T201
                        count += look(page, axe)
                        if pictures is not None:
                            path = Path(pictures) / f"{name}.png"
                            page.screenshot(path=path, full_page=True)
                    page.close()
                browser.close()
        finally:
            served.close()
    print(f"{count} serious findings")  # noqa: T201
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
