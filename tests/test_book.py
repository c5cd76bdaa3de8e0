"""The book as a reader's browser finds it: every page, every link, every picture, and nothing from another host."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from aae_prior.glance import SIGNS
from aae_prior.results import read_rows
from aae_prior.verdicts import CLAIMS

pytest.importorskip("sphinx_book_theme", reason="the book's tools are not installed: pip install -e '.[book]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "out/book"
WIDTHS = (390, 1280)
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}  # what a browser fetches


class Page(HTMLParser):
    "Language, title, anchors, links, pictures, fetched addresses and text (without code) of one page"

    def __init__(self, path):
        super().__init__()
        self.path, self.language, self.title, self.inside = path, None, "", False
        self.anchors, self.links, self.loaded, self.pictures, self.text, self.code = set(), [], [], [], "", 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.code += tag in ("pre", "code", "script", "style")
        self.anchors |= {found.get("id"), found.get("name")}
        self.inside = tag == "title" and not self.title
        if tag == "html":
            self.language = found.get("lang")
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.pictures.append(found)
        if found.get(LOADED.get(tag)) and found.get("rel") not in ("canonical", "search", "next", "prev"):
            self.loaded.append(found[LOADED[tag]])

    def handle_data(self, text):
        if self.inside:
            self.title += text
        if not self.code:
            self.text += text

    def handle_endtag(self, tag):
        self.inside = False
        self.code -= tag in ("pre", "code", "script", "style")


def run(script):
    "Status and output of a script of the book"
    words, environment = [sys.executable, script], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def explorer():
    "What stopped the explorer from being built, which the book then includes; nothing if it was built"
    status, text = run("book/explorer/build.py")
    return text if status else ""


@pytest.fixture(scope="module")
def built(explorer):
    "Exit status and output of building the book"
    return run("book/make.py")


@pytest.fixture(scope="module")
def pages(built):
    "All pages by their address; those of the explorer are tested by themselves"
    files = [path for path in SITE.rglob("*.html") if not {"_static", "explorer"} & set(path.relative_to(SITE).parts)]
    return {path: Page(path) for path in files}


def test_builds_without_a_warning(built):
    status, text = built
    assert status == 0 and "WARNING" not in text, text[-3000:]


def test_no_markdown_is_left(pages):
    assert [str(path) for path, page in pages.items() if "](" in page.text] == []


@pytest.fixture(scope="module")
def make():
    "The builder as a module"
    spec = importlib.util.spec_from_file_location("book_make", ROOT / "book/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_verdict_has_a_sign_in_a_colour_of_the_style(make):
    assert set(make.COLOURS) == {sign.strip("()") for sign in SIGNS.values()}
    style = (ROOT / "book/_static/book.css").read_text(encoding="utf-8")
    assert [colour for colour in make.COLOURS.values() if f".verdict.{colour}" not in style] == []
    assert make.coloured("**partly reproduced, not by every model**") == '<span class="verdict fair">◐</span>'


def test_a_claim_is_one_click_from_what_holds(pages):
    links = pages[SITE / "claims/index.html"].links
    for path in (SITE / "claims").glob("*.html"):
        assert path.stem == "index" or any(link.startswith(f"{path.name}#") for link in links)


def test_size(built):
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
    assert 1e6 < size < 40e6


def test_every_page_has_language_and_title(pages):
    assert len(pages) > 100
    assert [str(path) for path, page in pages.items() if page.language != "en" or not page.title.strip()] == []


def test_every_picture_has_words(pages):
    bare = [
        f"{path.relative_to(SITE)}: {picture.get('src')}"
        for path, page in pages.items()
        for picture in page.pictures
        if len(picture.get("alt") or "") < 5 or re.search(r"\.(png|svg)$", picture["alt"])
    ]
    assert bare == []
    assert sum(len(page.pictures) for page in pages.values()) > 60


def test_nothing_comes_from_another_host(pages):
    addresses = [(path.name, address) for path, page in pages.items() for address in page.loaded]
    assert [pair for pair in addresses if urlsplit(pair[1]).netloc] == []
    styles = [path for path in SITE.rglob("*.css")]
    foreign = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")
    assert styles and [path.name for path in styles if foreign.search(path.read_text("utf-8"))] == []


def test_every_internal_link_leads_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(SITE)}: {address}")
    assert broken == []


def test_every_notebook_claim_and_row_is_there(pages):
    for notebook in (ROOT / "nbs").glob("*.ipynb"):
        assert notebook.stem == "index" or SITE / f"nbs/{notebook.stem}.html" in pages
    assert len([path for path in pages if path.parent.name == "claims"]) == len(CLAIMS) + 1
    rows = read_rows(ROOT / "figures/results.csv")
    text = (SITE / "results.html").read_text(encoding="utf-8")
    assert text.count("<tr>") == len(rows) + 1
    for row in rows:
        assert f"<td>{row['value']}</td>" in text


# ---- in a browser ----

SHOWN = {
    "start": "index.html",
    "holds": "claims/index.html",
    "claim": "claims/labels-control-the-image.html",
    "results": "results.html",
    "figure": "nbs/fig8_supervised.html",
    "notebook": "nbs/02_losses.html",
    "api": "reference/training.html",
    "search": "search.html?q=label",
}


@pytest.fixture(scope="module")
def browser(start_browser):
    return start_browser()


@pytest.fixture(scope="module")
def home(built, serve):
    "Address of the book"
    return f"{serve(SITE)}/"


def wait_for(browser, script, seconds=30):
    "What `script` returns, as soon as it is true; AssertionError after so many `seconds`."
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)
    return found


def paint(browser, scheme):
    "Light or dark, as the book's button sets it"
    browser.execute_script(
        "localStorage.setItem('mode', arguments[0]); localStorage.setItem('theme', arguments[0])", scheme
    )


def screenshot(browser, name):
    "Kept in the folder AAE_PRIOR_SCREENSHOTS, if that is set"
    if folder := os.environ.get("AAE_PRIOR_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {})
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


def background(browser):
    "Brightness of the page's background, 0 to 255"
    words = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", words)[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_screen_and_ask_no_other_host(browser, home, width, scheme):
    phone = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(home)
    paint(browser, scheme)
    browser.get_log("browser")
    browser.get_log("performance")
    for name, page in SHOWN.items():
        browser.get(home + page)
        wait_for(browser, "return document.readyState === 'complete' && document.documentElement.dataset.theme")
        if name == "results":
            wait_for(browser, "return document.querySelector('.dt-container')")
        if name == "search":
            wait_for(browser, "return document.querySelector('#search-results li p.context')")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
        assert (background(browser) < 128) == (scheme == "dark"), page
        screenshot(browser, f"{name}_{width}_{scheme}")
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((home, "data:", "about:"))] == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_search_finds_pages_before_names(browser, home):
    browser.get(home + "search.html?q=label")
    wait_for(browser, "return document.querySelectorAll('#search-results li').length > 20")
    first = [item.text for item in browser.find_elements("css selector", "#search-results li a")[:10]]
    assert not [text for text in first if text.startswith("aae_prior.")]
    assert any("label" in text for text in first)


def test_results_filter_and_sort(browser, home):
    browser.get(home + "results.html")
    wait_for(browser, "return document.querySelector('.dt-container')")
    field = browser.find_elements("css selector", ".dt-container thead input")[2]
    field.send_keys("svhn")
    rows = "return Array.from(document.querySelectorAll('#rows tbody tr'), (row) => row.cells[2].textContent)"
    wait_for(browser, rows + ".every((text) => text === 'svhn')")
    assert len(browser.execute_script(rows)) > 5


def test_explorer_in_the_book(browser, home, explorer):
    if explorer:
        pytest.skip(explorer)
    browser.get(home)
    paint(browser, "dark")
    browser.find_element("link text", "Explorer").click()
    frame = "document.querySelector('iframe.explorer').contentWindow"
    wait_for(browser, f"return {frame}.explorer && {frame}.explorer.shown.ours")
    for scheme in ("dark", "light"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", scheme)
        wait_for(browser, f"return {frame}.document.documentElement.style.colorScheme === '{scheme}'")
        screenshot(browser, f"explorer_{scheme}")
    browser.execute_script(f"{frame}.explorer.change({{ label: 6, seed: 42 }})")
    wait_for(browser, "return location.hash.includes('seed=42')")
    browser.refresh()
    wait_for(browser, f"return {frame}.explorer && {frame}.explorer.state.seed === 42")
    assert browser.execute_script(f"return {frame}.explorer.state.label") == 6
    assert wait_for(browser, f"return {frame}.document.documentElement.classList.contains('framed')")
