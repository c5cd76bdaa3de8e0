"""What is published hangs together: the pictures in figures/, the rows in figures/results.csv, and the book."""

import html
import re
from pathlib import Path

import pytest

from aae_prior.results import (
    drawn_by,
    key_of,
    means,
    notebook_of,
    numbers,
    picture_note,
    read_rows,
    seeds_of,
    topic_of,
    training_of,
)

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "figures"
ROWS = read_rows(FIGURES / "results.csv")
SHOWN = means(ROWS)
NOTEBOOKS = [path.stem for path in (ROOT / "nbs").glob("*.ipynb")]
PICTURES = sorted(path.name for path in FIGURES.glob("*.png"))
NUMBER = re.compile(r"(?<![\w./-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w/-])")


def test_every_row_can_be_made_again_and_has_its_picture():
    assert ROWS
    for row in ROWS:
        assert notebook_of(row) in NOTEBOOKS, f"no notebook in the command {row['command']!r}"
        assert {f"{notebook_of(row)}_{row['dataset']}.png", f"{notebook_of(row)}.png"} & set(PICTURES), (
            f"no picture for {row['command']}"
        )
        assert row["preset"] in ("quick", "cpu", "paper") and row["n"] and row["hardware"], row
        assert (
            all(seed.isdigit() for seed in seeds_of(row))
            and row["statistics"] in ("", "mixed", "own")
            and (row["statistics"] == "" or row["epochs"])
        ), row
        assert re.fullmatch(NUMBER, row["value"]), f"{row['metric']} = {row['value']!r}"


def test_scores_name_their_extractor_and_stand_beside_real_images():
    for row in ROWS:
        if row["metric"] not in ("inception_score", "fid", "kid", "precision", "recall"):
            continue
        assert row["extractor"], row
        if row["model"].startswith("real ") or row["claim"] == "plausible reconstructions":
            continue
        same = {c: row[c] for c in ("dataset", "figure", "metric", "extractor", "n")}
        assert any(same.items() <= other.items() and other["model"].startswith("real ") for other in ROWS), row


def test_every_picture_is_on_a_page_of_the_book(book):
    pages = [path.read_text(encoding="utf-8") for path in (book.SOURCE / "nbs").glob("*.ipynb")]
    shown = {name for text in pages for name in re.findall(r"\]\(\.\./figures/([^)]+\.png)\)", text)}
    assert not set(PICTURES) - shown


def test_every_picture_of_results_stands_in_its_notebook():
    for name in PICTURES:
        notebook, rest = drawn_by(name, NOTEBOOKS)
        if rest:
            assert f"../figures/{name})" in (ROOT / "nbs" / f"{notebook}.ipynb").read_text(encoding="utf-8"), (
                f"{notebook} does not show {name}"
            )


def test_every_picture_of_results_has_rows():
    for name in PICTURES:
        notebook, rest = drawn_by(name, NOTEBOOKS)
        if notebook in {"architecture_figures", "tables2_4_architectures"}:
            continue
        assert any(
            notebook_of(row) == notebook and (rest in ("", row["dataset"]) or rest.startswith(f"{row['dataset']}_"))
            for row in ROWS
        ), f"no row belongs to {name}"


@pytest.mark.parametrize("page, rows", [("results", ROWS), ("means", SHOWN)])
def test_the_book_shows_every_number(book, page, rows):
    text = (book.SOURCE / f"{page}.md").read_text(encoding="utf-8")
    columns = [name.replace(" ", "_") for name in re.findall(r"<th>(.*?)</th>", text)]
    assert {"figure", "claim", "dataset", "model", "metric", "value", "spread"} <= set(columns)
    lines = [[html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", line)] for line in text.splitlines()]
    assert [line for line in lines if line] == [[row[name] for name in columns] for row in rows]


@pytest.mark.parametrize("name", PICTURES)
def test_caption_in_the_book_is_that_of_the_rows(book, name):
    notebook, rest = drawn_by(name, NOTEBOOKS)
    said = picture_note(notebook, rest, ROWS).strip()
    assert said in book.pictures_of(notebook)
    mine = [row for row in ROWS if (notebook_of(row), row["dataset"]) == (notebook, rest)]
    values = {row[column] for row in SHOWN for column in ("value", "spread")}
    if notebook in ("ablations", "beyond_priors"):
        values |= {
            word for row in mine for word in NUMBER.findall(row["claim"])
        }  # 'lr 2e-4', 'mixture of 100' are names, too
    assert set(NUMBER.findall(numbers(mine))) <= values | set("0123456789") | {"10"}  # recall@10 is a name


def test_no_number_stands_twice():
    keys = [key_of(row) for row in ROWS]
    assert len(keys) == len(set(keys)), {key for key in keys if keys.count(key) > 1}


def test_one_mean_is_over_one_training():
    for topic in {topic_of(row) for row in ROWS}:
        mine = [row for row in ROWS if topic_of(row) == topic]
        assert len(mine) == 1 or all(
            len(seeds_of(row)) == 1 and training_of(row) == training_of(mine[0]) for row in mine
        ), topic
