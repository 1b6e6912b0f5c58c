"""The page as a person uses it, in Chromium."""

import contextlib
import itertools
import shutil
import threading
import time

import pytest

from acnn_tf.models import load_model
from acnn_tf.servable import export
from tests import page_process
from tests.page_process import OTHER, SENTENCE, UNKNOWN, Page

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("av")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt-get install chromium"
    ),
]
# What it would otherwise ask of the network at its start.
QUIETLY = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--no-first-run",
    "--no-sandbox",  # which does not start for root
)
CARD = "[data-video][data-start][data-end][data-score]"
TIME = "document.querySelector('video').currentTime"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    page_process.make_library(folder)
    (folder / "text.mp4").write_text("This is no video.")
    shutil.copy(
        next((folder / "videos").iterdir()), folder / "my <b>holiday.mp4"
    )
    return folder


@pytest.fixture(scope="module")
def served(folder):
    page = Page(folder)
    page.wait_until_ready()
    yield page
    page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=QUIETLY
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, url, **settings):
    """A page of its own, in which nothing fails unseen."""
    context = browser.new_context(**settings)
    context.set_default_timeout(20_000)
    page = context.new_page()
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on(
        "console",
        lambda line: (
            failures.append(line.text)
            if "Content Security Policy" in line.text
            else None
        ),
    )
    page.goto(url)
    yield page
    assert not failures
    context.close()


@pytest.fixture
def page(browser, served):
    with opened(browser, served.url) as page:
        yield page


def search(page, text=SENTENCE):
    page.fill("input[type=search]", text)
    page.keyboard.press("Enter")
    page.wait_for_selector(CARD)
    return page.locator(CARD)


def wait_until(page, condition):
    """`page.wait_for_function`, which the page's policy does not allow."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(10)


def wait_for_time(page, start):
    """Until the player stands at a time, to a tenth of a second."""
    wait_until(page, f"Math.abs({TIME} - {start}) < 0.1")


def seconds(card):
    return tuple(
        float(card.get_attribute(f"data-{x}")) for x in ("start", "end")
    )


def test_a_click_plays_the_moment_and_loops_it(page):
    card = search(page).nth(1)
    start, end = seconds(card)
    card.click()
    wait_for_time(page, start)
    assert page.locator("video").count() == 1
    assert not page.evaluate("document.querySelector('video').paused")
    # From just before its end it goes on at its start.
    page.evaluate(f"document.querySelector('video').currentTime = {end - 0.2}")
    wait_for_time(page, start)
    page.click("#loop")
    page.evaluate(f"document.querySelector('video').currentTime = {end - 0.2}")
    wait_until(page, f"{TIME} > {end}")


def test_the_timeline_shows_curve_moments_and_truth(page):
    search(page).first.click()
    page.click("#add-sentence")
    page.keyboard.type(OTHER)
    page.keyboard.press("Enter")
    page.wait_for_selector("#timeline .curve.s1")
    points = page.get_attribute("#timeline .curve.s0", "points").split()
    assert len(points) > 20
    assert page.locator("#timeline .bar.q0").count()
    known = page.locator("#timeline .bar.truth")
    sentences = [bar.get_attribute("aria-label") for bar in known.all()]
    known.first.click()
    assert page.inner_text("#now").split("“")[1] in sentences[0]
    bar = page.locator("#timeline .bar.q1").first
    assert "Sentence 2, moment 1" in bar.get_attribute("aria-label")
    bar.click()
    page.wait_for_selector("#timeline .bar.q1[aria-current=true]")
    # None lies over another.
    bars = "document.querySelectorAll('#timeline .bar')"
    hidden = (
        f"[...{bars}]"
        """.filter((bar) => {
      bar.scrollIntoView({ block: 'center' });
      const { x, y, width, height } = bar.getBoundingClientRect();
      return document.elementFromPoint(x + width / 2, y + height / 2) !== bar;
    }).length"""
    )
    assert page.evaluate(hidden) == 0
    # A model of one that looks at its context says how far.
    page.wait_for_selector("#attention tr")
    assert "the moment alone" in page.inner_text("#attention")


def test_an_address_reopens_what_it_shows(browser, page):
    card = search(page).nth(1)
    start, _ = seconds(card)
    card.click()
    wait_for_time(page, start)
    page.select_option("#top", "3")
    wait_until(page, f"document.querySelectorAll('{CARD}').length == 3")
    page.locator(CARD).nth(1).click()
    wait_for_time(page, start)
    with opened(browser, page.url) as other:
        other.wait_for_selector(f"{CARD}[aria-current=true]")
        assert other.input_value("input[type=search]") == SENTENCE
        assert other.locator(CARD).count() == 3
        assert seconds(other.locator(f"{CARD}[aria-current=true]"))[0] == start
        wait_for_time(other, start)
    # To the search before, whatever was watched of this one.
    page.go_back()
    wait_until(page, f"document.querySelectorAll('{CARD}').length == 5")
    assert page.input_value("input[type=search]") == SENTENCE


def test_who_is_faster_than_the_library_loses_nothing(browser, served):
    with opened(browser, "about:blank") as page:
        page.route(
            "**/api/videos",
            lambda route: (time.sleep(1), route.continue_()),
        )
        page.goto(served.url)
        search(page)
        page.wait_for_selector(".video")
        assert page.input_value("input[type=search]") == SENTENCE
        # The titles are known now.
        page.wait_for_selector(f"{CARD} .title:text-matches('mp4$')")
        wait_until(page, "location.search.includes('q=')")


def test_the_keyboard_alone_is_enough(page):
    page.wait_for_selector(".chips button")
    page.keyboard.press("/")
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_selector(CARD)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    start, _ = seconds(page.locator(CARD).nth(1))
    wait_for_time(page, start)
    paused = "document.querySelector('video').paused"
    wait_until(page, f"!{paused}")
    page.keyboard.press("Space")
    wait_until(page, paused)
    page.keyboard.press("n")
    wait_for_time(page, seconds(page.locator(CARD).nth(2))[0])
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    # Each place that Tab comes to can be seen.
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_uploads_are_indexed_and_others_refused(page, folder, served):
    page.wait_for_selector(".chips button")
    page.set_input_files(
        "#files", [folder / "text.mp4", folder / "my <b>holiday.mp4"]
    )
    alert = page.wait_for_selector("#uploads [role=alert]")
    assert "text.mp4 was not taken: The file is text" in alert.inner_text()
    row = page.locator(".video", has_text="my <b>holiday.mp4")
    row.wait_for()
    served.wait_until_ready()
    page.reload()
    page.select_option("#scope", label="my <b>holiday.mp4")
    found = search(page)
    assert found.first.get_attribute("data-video").startswith("upload-")
    assert "my <b>holiday.mp4" in found.first.inner_text()
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Remove").click()
    row.wait_for(state="detached")
    assert len(served.videos()) == 3


def test_a_phone_is_wide_enough_in_both_schemes(browser, served):
    grounds = set()
    for scheme in ("light", "dark"):
        settings = {
            "viewport": {"width": 360, "height": 740},
            "color_scheme": scheme,
        }
        with opened(browser, served.url, **settings) as page:
            search(page).first.click()
            page.wait_for_selector("#timeline .bar")
            for width in (360, 400, 480, 600, 768):
                page.set_viewport_size({"width": width, "height": 740})
                wide = "document.documentElement.scrollWidth"
                assert page.evaluate(wide) <= width
                check_options(page)
            ground = "getComputedStyle(document.body).backgroundColor"
            grounds.add(page.evaluate(ground))
    assert len(grounds) == 2


def check_options(page):
    """That the options can be read, and none lies over another."""
    boxes = [one.bounding_box() for one in page.locator(".options > *").all()]
    for one, other in itertools.combinations(boxes, 2):
        assert any(
            min(one[at] + one[size], other[at] + other[size])
            <= max(one[at], other[at])
            for at, size in (("x", "width"), ("y", "height"))
        )
    for box, least in zip(boxes, (200, 90)):
        assert box["width"] >= least
    assert page.locator("#scope").bounding_box()["width"] >= 100


def test_sentences_keep_their_numbers(browser, served):
    with opened(browser, f"{served.url}?q={UNKNOWN}&q={OTHER}") as page:
        page.wait_for_selector("#timeline .bar.q1")
        assert page.locator("#timeline .bar.q0").count() == 0
        # An empty box makes room for the next, which is the first then.
        page.fill("input[type=search]", "")
        page.locator("#sentences input").nth(1).press("Enter")
        page.wait_for_selector("#timeline .bar.q0")
        assert page.input_value("input[type=search]") == OTHER
        assert page.locator("#sentences input").count() == 1


def test_a_library_that_changes_takes_no_focus_away(page):
    page.locator(".chips button").nth(1).focus()
    asked = []

    def change(route):
        told = route.fetch().json()
        told["videos"][0] |= {"state": "indexing", "progress": len(asked) / 9}
        asked.append(route)
        route.fulfill(json=told)

    page.route("**/api/videos", change)
    change_seen = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(change_seen)
    wait_until(page, "document.querySelector('.video progress') !== null")
    assert page.evaluate("document.activeElement.matches('.chips button')")
    # Nor does it hide that a search goes on.
    held = []
    page.route("**/api/search**", lambda route: held.append(route))
    page.fill("input[type=search]", SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Searching…")
    number = len(asked)
    page.evaluate(change_seen)
    progress = "document.querySelector('.video progress').value"
    wait_until(page, f"{progress} >= {number / 9 - 0.01}")
    assert page.inner_text("#status") == "Searching…"
    held[0].fallback()
    page.wait_for_selector(CARD)
    page.unroute_all(behavior="wait")


def test_what_is_typed_before_the_videos_came_stays(browser, served):
    context = browser.new_context()
    page = context.new_page()
    held = []
    page.route("**/api/videos", lambda route: held.append(route))
    page.goto(served.url + "?q=" + OTHER.replace(" ", "+"))
    assert page.input_value("input[type=search]") == OTHER
    page.fill("input[type=search]", SENTENCE)
    while not held:
        page.wait_for_timeout(10)
    held[0].fallback()
    page.wait_for_selector(".video")
    page.wait_for_selector(".chips button")
    assert page.input_value("input[type=search]") == SENTENCE
    page.keyboard.press("Enter")
    page.wait_for_selector(CARD)
    page.unroute_all(behavior="wait")
    context.close()


def test_a_video_that_did_not_load_is_asked_for_again(page):
    page.route("**/media/**", lambda route: route.abort())
    card = search(page).first
    page.wait_for_selector("text=This video could not be loaded")
    page.unroute("**/media/**")
    card.click()
    wait_for_time(page, seconds(card)[0])


def test_it_says_what_is_wrong(page):
    # From the start: requests that are under way when it begins may hang.
    is_gone = threading.Event()
    page.route(
        "**/api/**",
        lambda route: route.abort() if is_gone.is_set() else route.continue_(),
    )
    page.wait_for_selector(".chips button")
    page.press("input[type=search]", "Enter")
    page.wait_for_selector("text=Type a sentence that says what happens")
    page.fill("input[type=search]", UNKNOWN)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The model knows none of these words")
    search(page, f"{SENTENCE} {UNKNOWN}")
    page.wait_for_selector(f"text=The model does not know “{UNKNOWN}”")
    is_gone.set()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The page's server does not answer")
    page.wait_for_selector("text=The search did not come through")
    # It is asked again as soon as the server is there, also by nobody.
    is_gone.clear()
    page.wait_for_selector(CARD, timeout=10_000)
    page.wait_for_selector("#notice", state="hidden")
    page.unroute_all(behavior="wait")


def test_it_asks_in_words_of_the_model_and_says_when_they_are_few(page):
    def calibrated(route):
        route.fulfill(json=route.fetch().json() | {"calibrated": True})

    page.route("**/api/videos", calibrated)
    page.reload()
    example = page.locator(".chips button").first.inner_text()
    box = page.locator("input[type=search]")
    assert box.get_attribute("placeholder") == f"For example: {example}"
    assert "The model knows" in page.inner_text("#results .known")
    assert "% likely right" in search(page).first.inner_text()
    box.fill(f"the {UNKNOWN}")
    box.press("Enter")
    page.wait_for_selector("text=too few to say how likely a moment is right")
    assert "likelihood not known" in page.inner_text("#results")
    assert "likely right" not in page.inner_text("main")
    page.unroute_all(behavior="wait")


@pytest.mark.soak
def test_a_page_outlives_its_server(browser, folder, tmp_path):
    first = Page(folder, f"--library={tmp_path / 'library'}")
    try:
        first.wait_until_ready()
        with opened(browser, first.url) as page:
            search(page)
            first.close()
            page.keyboard.press("Enter")
            page.wait_for_selector("text=The page's server does not answer")
            port = first.url.split(":")[-1].strip("/")
            first = Page(
                folder, f"--library={tmp_path / 'library'}", f"--port={port}"
            )
            first.wait_until_ready()
            page.click("#notice button")
            page.wait_for_selector(CARD)
    finally:
        first.close()


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_a_page_outlives_the_server_of_its_model(
    browser, folder, tmp_path, kind
):
    pytest.importorskip("grpc")
    from tests.server_process import Server

    model = load_model(folder / "run" / "model.keras")
    export(model, tmp_path / "acnn" / "1")
    server = Server(tmp_path / "acnn")
    address = getattr(server, kind).split("/")[-1]
    scheme = {"grpc": "grpc", "rest": "http"}[kind]
    flags = f"--server={scheme}://{address}", f"--library={tmp_path / 'own'}"
    served = Page(folder, *flags)
    try:
        served.wait_until_ready()
        with opened(browser, served.url) as page:
            page.wait_for_selector("#scope option + option", state="attached")
            page.select_option("#scope", index=1)
            expected = seconds(search(page).first)
            server.close()
            page.keyboard.press("Enter")
            gone = "The server with the model does not answer"
            page.wait_for_selector(f"text={gone}")
            flag = {"grpc": "port", "rest": "rest_api_port"}[kind]
            port = address.rpartition(":")[2]
            server = Server(tmp_path / "acnn", f"--{flag}={port}")
            page.wait_for_timeout(2500)  # how often gRPC knocks
            page.click("#notice button")
            page.wait_for_selector(CARD)
            page.wait_for_selector("#notice", state="hidden")
            assert seconds(page.locator(CARD).first) == expected
    finally:
        served.close()
        server.close()
