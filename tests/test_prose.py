"""What is written in the notebooks stays short, and the captions stay those of the published rows."""

import json
import re
from pathlib import Path

import pytest

from aae_prior.captions import MARK, SHOWS, added_in, caption, own_rows, published, words
from aae_prior.results import notebook_of, read_rows

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").glob("*.ipynb") if path.stem != "index")
ROWS = read_rows(ROOT / "figures" / "results.csv")
PUBLISHED = sorted({(notebook_of(row), row["dataset"]) for row in ROWS if row["figure"] in SHOWS})


def prose(notebook):
    "Texts of the markdown cells of a notebook"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def sentences(text):
    "Sentences of Markdown: without code, tables and formulas; a list item, a heading and a quotation stand alone"
    text = re.sub(r"(```|~~~).*?\1", "", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$", "\n\n", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    lines = ["" if line.startswith("|") else line for line in text.splitlines()]
    lines = [f"\n{line}\n" if re.match(r"#|>|-{3}", line) else line for line in lines]
    lines = [f"\n{line}" if re.match(r"\s*(-|\*|\d+\.)\s", line) else line for line in lines]
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        yield from re.split(r"(?<=[.!?])[\"*)]*\s+(?=[A-Z`$*\"\[(])", paragraph.replace("\n", " ").strip())


def test_sentences_are_told_apart():
    text = "# A title\nOne sentence. Another, of $x$ and `y.z`.\n\n| a | table |\n\n- an item\n- the next one"
    assert list(filter(None, sentences(text))) == [
        "# A title",
        "One sentence.",
        "Another, of $x$ and `y.z`.",
        "- an item",
        "- the next one",
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_sentence_has_more_than_50_words(notebook):
    texts = [text for text in prose(notebook) if not text.startswith(MARK)]
    assert not [said for text in texts for said in sentences(text) if len(said.split()) > 50]


@pytest.mark.parametrize("notebook, dataset", PUBLISHED)
def test_a_caption_has_at_most_120_words_however_many_seeds(notebook, dataset):
    rows = own_rows(notebook, dataset, ROWS)
    said = caption(rows[-1]["figure"], rows, added_in(rows))
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    three = [
        row | dict(seed=seed, value=str(float(row["value"]) * (1 + 0.01 * seed))) for seed in (1, 2, 3) for row in first
    ]
    assert "*The paper claims*" in said and "*Measured*" in said and "*What differs:*" in said
    assert max(map(words, (said, caption(rows[-1]["figure"], three, added_in(rows))))) <= 120


@pytest.mark.parametrize("notebook", sorted({notebook for notebook, _ in PUBLISHED}))
def test_captions_are_those_of_the_published_rows(notebook):
    [text] = [text for text in prose(ROOT / "nbs" / f"{notebook}.ipynb") if text.startswith(MARK)]
    assert text == f"{MARK}\n\n{published(notebook, ROOT / 'figures')}", "run make captions"


def test_a_changed_row_changes_the_caption():
    rows = own_rows("fig8_supervised", "digits", ROWS)
    changed = [row | dict(value="0.4") if row["metric"] == "label_consistency" else row for row in rows]
    before, after = (caption("8", some) for some in (rows, changed))
    assert before != after and "label consistency 0.4" in after and "**not reproduced**" in after
