"""The book as a reader's browser finds it: every page, every link, every picture, and nothing from another host."""

import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from aae_prior.results import read_rows
from aae_prior.verdicts import CLAIMS

pytest.importorskip("sphinx_book_theme", reason="the book's tools are not installed: pip install -e '.[book]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "out/book"
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}  # what a browser fetches


class Page(HTMLParser):
    "Language, title, anchors, links, pictures and fetched addresses of one page"

    def __init__(self, path):
        super().__init__()
        self.path, self.language, self.title, self.inside = path, None, "", False
        self.anchors, self.links, self.loaded, self.pictures = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
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

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def built():
    "(seconds, exit status and output) of building the book"
    begin = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "book/make.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    return time.monotonic() - begin, done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def pages(built):
    "All pages by their address; those of the explorer are tested by themselves"
    files = [path for path in SITE.rglob("*.html") if not {"_static", "explorer"} & set(path.relative_to(SITE).parts)]
    return {path: Page(path) for path in files}


def test_builds_without_a_warning(built):
    seconds, status, text = built
    assert status == 0 and "WARNING" not in text, text[-3000:]


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
