"""The book: gathers notebooks, pictures and generated pages in out/book_source, and lets Sphinx build out/book.

python book/make.py
"""

import html
import inspect
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from PIL import Image

from aae_prior.captions import DIFFERS
from aae_prior.config import settings_table
from aae_prior.files import markdown_table
from aae_prior.glance import MEASURES, count_verdicts, deciding, judged, legend, sign, slug
from aae_prior.plan import commands_table
from aae_prior.recipes import PRESETS
from aae_prior.results import (
    HEADER,
    drawn_by,
    figure_order,
    figure_title,
    means,
    notebook_of,
    picture_note,
    read_rows,
    title_of,
)
from aae_prior.training import aae_phase, prior_phase
from aae_prior.verdicts import CLAIMS

ROOT = Path(__file__).resolve().parents[1]
BOOK, NOTEBOOKS, FIGURES = ROOT / "book", ROOT / "nbs", ROOT / "figures"
SOURCE, TARGET = ROOT / "out/book_source", ROOT / "out/book"

METHOD = "01 02 02a 02b 03 03a 03b 02d 02c 04 04b 05 06 06b".split()
# data, settings, runs, sweeps, and what writes the pictures and numbers down
HOUSE = [n for n in sorted(p.stem.split("_")[0] for p in NOTEBOOKS.glob("[0-9]*_*.ipynb")) if n not in METHOD]
BEYOND = ["beyond_priors", "trials", "ablations", "stability", "benchmark", "authors_pictures"]
SAID = {
    "digits": "the embedded digits",
    "mnist": "MNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR-10",
    "flowers102": "Flowers-102",
}
COLOURS = {"✓": "good", "◐": "fair", "✗": "bad", "?": "open"}  # of a sign, as classes of book.css
WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"  # a page without the contents at its right
MEANS = "figure claim dataset model metric value spread seeds n extractor preset epochs paper".split()
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


# ---- notebooks as pages ----


def library(number):
    "Name of the library notebook with that number"
    return next(path.stem for path in NOTEBOOKS.glob(f"{number}_*.ipynb"))


def titled(name):
    "Title of a library notebook in the book: 02b_norm_stats is Norm stats"
    return title_of(NOTEBOOKS / f"{name}.ipynb").capitalize().replace("_", " ")


def paper_notebooks():
    "Names of the notebooks that draw a figure or a table of the paper, in its order"
    names = [path.stem for pattern in ("fig*", "table*") for path in NOTEBOOKS.glob(f"{pattern}.ipynb")]
    return ["architecture_figures", *sorted(names, key=figure_order)]


def alternative(picture, names):
    "What a published picture shows, in words"
    name, rest = drawn_by(picture, names)
    data = next((said for key, said in SAID.items() if rest.startswith(key)), "")
    more = rest.removeprefix(next((key for key in SAID if rest.startswith(key)), "")).strip("_").replace("_", " ")
    title = title_of(NOTEBOOKS / f"{name}.ipynb")
    return title + (f", on {data}" if data else "") + (f": {more}" if more else "")


def pictures_of(name, link="../figures", only=None):
    """Markdown: the published pictures of a notebook, each with its caption.

    `only`: those of one data set, and of a caption the length of the training alone"""
    names, rows = [path.stem for path in NOTEBOOKS.glob("*.ipynb")], read_rows(FIGURES / "results.csv")
    shown = []
    for path in sorted(FIGURES.glob("*.png"), key=figure_order):
        drew, rest = drawn_by(path, names)
        if drew == name and (only is None or rest.split("_")[0] == only):
            text = picture_note(name, rest, rows).strip()
            text = text.partition(". ")[0] if only else text
            shown.append(f"![{alternative(path, names)}]({link}/{path.name})\n\n{text}")
    return "\n\n".join(shown)


def linked(text):
    "Markdown of a notebook with its links as the book has them: README is the first page, anchors in lower case"

    def link(found):
        picture, label, target = found.groups()
        if target.endswith("README.md") and target.startswith("../README"):
            return f"[{label}](../index.md)"
        file, _, anchor = target.partition("#")
        if anchor and (not file or file.endswith(".ipynb")) and "/" not in file:
            return f"[{label}]({file}#{anchor.lower()})"
        if target.startswith("../") and not picture:  # a file that no page is made of
            inside = (SOURCE / "nbs" / target).resolve()
            if not inside.exists():
                inside.parent.mkdir(parents=True, exist_ok=True)
                text = (NOTEBOOKS / target).read_text(encoding="utf-8")
                orphan = "---\norphan: true\n---\n" * (inside.suffix == ".md")
                inside.write_text(orphan + text, encoding="utf-8")
        return found[0]

    return LINK.sub(link, text)


def page_of(path):
    """The notebook as a page: without what nbdev alone reads, a name for every cell, words for every picture.

    A paper notebook shows its published pictures first."""
    notebook = nbformat.read(path, as_version=4)
    cells, about = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            continue
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source)
            about = plain(cell.source) or about
            cells.append(cell)
            continue
        directives = re.findall(r"^#\|\s*(.*)\n?", cell.source, re.M)
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
        if any(word.split()[0] in ("hide", "default_exp") for word in directives if word) or not cell.source:
            continue
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), *["remove-input"] * ("echo: false" in directives)]
        cell.metadata["mystnb"] = {"image": {"alt": about}}
        cells.append(nbformat.v4.new_markdown_cell(f"(cell-{cell.id})="))
        cells.append(cell)
    pictures = pictures_of(path.stem)
    if pictures and not re.match(r"\d", path.stem):
        title, _, rest = cells[0].source.partition("\n")
        cells[0].source = f"{title}\n\n{pictures}\n\n## The notebook\n{rest}"
    if re.match(r"\d", path.stem):  # a module's name, which is its title for nbdev, becomes one for readers
        title, _, rest = cells[0].source.partition("\n")
        cells[0].source = f"# {titled(path.stem)}\n{rest}"
    notebook.cells = cells
    (SOURCE / "nbs").mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, SOURCE / "nbs" / path.name)


def plain(text):
    "The first sentence of Markdown, without its marks"
    lines = [line.lstrip("#> ") for line in text.splitlines() if line.strip() and line[0] not in "|$!"]
    sentence = re.split(r"(?<=[.:])\s", " ".join(lines[-1:]))[0]
    return re.sub(r"[`*$\[\]]|\([^)]*\.ipynb\)", "", sentence)[:160].strip()


# ---- pages of claims ----


def coloured(verdict):
    "HTML of the sign of a verdict, in its colour"
    shown = sign(verdict)
    return f'<span class="verdict {COLOURS[shown.strip("()")]}">{shown}</span>'


def claim_page(claim, rows):
    "Page of a claim: sentence, verdicts, numbers, pictures, what differs, commands"
    lines = list(judged(claim, rows))
    said = claim.said if claim.said[0] == '"' else claim.said[0].upper() + claim.said[1:]
    figure = figure_title(claim.figure)
    name = notebook_of(lines[0][-1][-1])
    rule = claim.rule.format(short="the short code", long="the long one")
    parts = [
        f"# {claim.key[0].upper() + claim.key[1:]}",
        f"> {said}",
        f"The paper says this of {claim.of}. [{figure}](../nbs/{name}.ipynb) shows it."
        if claim.of != "our question, over all sizes of a sweep"
        else f"This is our question, over all sizes of a sweep; [{figure}](../nbs/{name}.ipynb) shows it.",
        f"**Reproduced**: {rule}." + (f" **Not decided**: where {claim.undecided}." if claim.undecided else ""),
        "## At a glance",
        markdown_table(
            [
                ("data set, preset", "verdict", MEASURES[claim.key][0], "seeds"),
                *[
                    (about, f"{coloured(verdict)}\N{NO-BREAK SPACE}{verdict}", deciding(claim, mine), seeds)
                    for _, about, verdict, _, _, seeds, mine in lines
                ],
            ]
        ),
    ]
    for dataset in dict.fromkeys(line[0] for line in lines):
        parts += [f"({slug(claim.key)}-{dataset})=", f"## On {SAID.get(dataset, dataset)}"]
        mine = [line for line in lines if line[0] == dataset]
        for _, about, verdict, ours, beside, seeds, _ in mine:
            parts.append(f"{about}, {seeds} seed{'s' * (seeds != '1')}: {verdict}")
            said = (f"`ours`: {ours}" if ours else "", *beside.split("; "))
            parts.append("\n".join(f"- {numbers}" for numbers in said if numbers))
        parts.append(pictures_of(name, only=dataset))
        commands = dict.fromkeys(row["command"] for line in mine for row in line[-1])
        hours = {row["command"]: row["wall_time"] for line in mine for row in line[-1]}
        parts += ["```bash\n" + "\n".join(f"# it took {hours[c]}\n{c}" if hours[c] else c for c in commands) + "\n```"]
    parts += [
        "## What differs from the paper",
        DIFFERS[claim.figure],
        "Settings beyond the paper stand beside the data set in the table above.",
    ]
    return "\n\n".join(parts)


def claims(rows):
    "Writes the pages of all claims; returns what the page over them shows"
    datasets, table = list(SAID), []
    for claim in CLAIMS.values():
        lines = list(judged(claim, rows))
        write(f"claims/{slug(claim.key)}.md", claim_page(claim, rows))
        cells = dict.fromkeys(datasets, "")
        for dataset, _, verdict, *_, mine in lines:
            address = f"{slug(claim.key)}.html#{slug(claim.key)}-{dataset}"
            link = f'<a href="{address}">{coloured(verdict)} {deciding(claim, mine)}</a>'
            cells[dataset] = " ".join(filter(None, [cells[dataset], link]))
        measure = f"[{figure_title(claim.figure)}, {MEASURES[claim.key][0]}]{{.measure}}"
        table.append((f"[{claim.key}]({slug(claim.key)}.md) {measure}", *cells.values()))
    head = ("claim", *[SAID[name].removeprefix("the embedded ") for name in datasets])
    return dict(
        count=count_verdicts(rows) + ". Each time is one data set and one length of training.",
        legend=legend(rows)
        + ". The number is that of `ours`, or of `ours` : the baseline. Several signs in a cell are several lengths of "
        "training or, in Table 1, several extractors.",
        table=markdown_table([head, *table]),
    )


# ---- results, reference, contents ----


def results_page(title, about, rows, columns):
    "`rows` as a table that sorts and filters in the page, under `title` and a paragraph `about` it"
    columns = [name for name in columns if any(row[name] for row in rows)]
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(row[name])}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"""{WIDE}# {title}

{about} A click on a heading sorts, the field below it filters, the field above searches in all columns.

```{{raw}} html
<link rel="stylesheet" href="_static/dt_bundle.css">
<div class="results">
<table id="rows" class="display compact nowrap">
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
<script type="module" src="_static/results.js"></script>
```
"""


def notebooks_table():
    "Every notebook with a link and the one line that it opens with"
    table = [("notebook", "about")]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if path.stem != "index":
            opening = nbformat.read(path, as_version=4).cells[:3]
            text = next(cell.source for cell in opening if cell.cell_type == "markdown")
            about = next((line[2:] for line in text.splitlines() if line.startswith("> ")), title_of(path))
            table.append((f"[{path.stem}](../nbs/{path.name})", about))
    return markdown_table(table)


def api_page(module):
    "Reference of one module"
    notebook = re.search(r"# AUTOGENERATED.*nbs/(\w+)\.ipynb", (ROOT / f"aae_prior/{module}.py").read_text("utf-8"))
    return f"""# {module}

Written in [{notebook[1]}](../nbs/{notebook[1]}.ipynb); *[source]* leads to the cell that defines a name.

```{{eval-rst}}
.. automodule:: aae_prior.{module}
```
"""


def toctree(caption, pages):
    "A part of the book in the margin; pages as addresses, or as (title, address)"
    lines = [page if isinstance(page, str) else f"{page[0]} <{page[1]}>" for page in pages]
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(lines) + "\n```"


def contents(explorer):
    "The parts of the book"

    def numbered(number):
        name = library(number)
        return (titled(name), f"nbs/{name}")

    return "\n\n".join(
        [
            toctree(
                "Start",
                [*(f"start/{name}" for name in ("install", "first_figure", "own_data", "commands", "notebooks"))]
                + ["explorer"] * explorer,
            ),
            toctree("The method", ["start/method", *map(numbered, METHOD)]),
            toctree("The figures", [f"nbs/{name}" for name in paper_notebooks()]),
            toctree("What holds", ["claims/index"]),
            toctree("Results", ["results", "means"]),
            toctree("Beyond the paper", [f"nbs/{name}" for name in BEYOND]),
            toctree("How it is made", map(numbered, HOUSE)),
            toctree("Reference", ["reference/settings", "reference/api"]),
        ]
    )


TURN = "- **[Explorer](explorer.md)**: draw from both models here in the browser, and move the noise.\n"

EXPLORER = f"""{WIDE}# Explorer

The networks of Figures [8](nbs/fig8_supervised.ipynb) and [11](nbs/fig11_unsupervised.ipynb) run in this page, and
nothing is sent anywhere. A noise z and a label s go through the prior to a code, and through the decoder to an image.
`ours` learns its prior; `maae` takes [s, z] itself as the code.

```{{raw}} html
<p><a href="explorer/index.html">Open it in a page of its own</a></p>
<iframe class="explorer" src="explorer/index.html" title="Explorer of the learned prior"></iframe>
```
"""


# ---- all of it ----


def write(name, text):
    "A page of the book's source"
    path = SOURCE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def filled(text, **values):
    "`text` with {{ name }} replaced"
    for name, value in values.items():
        text = text.replace("{{ " + name + " }}", value)
    return text


def gather():
    "All pages of the book in out/book_source, made anew"
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(FIGURES, SOURCE / "figures", ignore=shutil.ignore_patterns("*.md"))
    (SOURCE / "extra").mkdir()
    built = ROOT / "out/explorer"  # book/explorer/build.py makes it
    explorer = (built / "index.html").exists()
    if explorer:
        shutil.copytree(built, SOURCE / "extra/explorer")
        write("explorer.md", EXPLORER)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if path.stem != "index":
            page_of(path)
    shutil.copy(NOTEBOOKS / "plan.toml", SOURCE / "nbs")
    rows = read_rows(FIGURES / "results.csv")
    presets = markdown_table(
        [("preset", "steps", "width of the networks")]
        + [(f"`{name}`", f"{preset['steps']:,}", f"{preset['width']:g}") for name, preset in PRESETS.items()]
    )
    algorithm = "\n\n".join(f"```python\n{inspect.getsource(phase)}```" for phase in (aae_phase, prior_phase))
    values = dict(commands=commands_table(), presets=presets, algorithm=algorithm, notebooks=notebooks_table())
    for path in sorted((BOOK / "start").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        write(f"start/{path.name}", filled(text, **values))
    shown = claims(rows)
    pages = [slug(key) for key in CLAIMS]
    text = WIDE + filled((BOOK / "claims.md").read_text(encoding="utf-8"), **shown)
    write("claims/index.md", f"{text}\n```{{toctree}}\n:hidden:\n\n" + "\n".join(pages) + "\n```")
    seeds = (
        f"All {len(rows)} numbers behind the figures, one row a seed, with the command, the hardware and the time of "
    )
    seeds += "each. {download}`The same as a file <figures/results.csv>`."
    write("results.md", results_page("Results", seeds, rows, HEADER))
    over_seeds = "The numbers of [Results](results.md), with mean and spread where there are several seeds."
    write("means.md", results_page("Means over seeds", over_seeds, means(rows), MEANS))
    write(
        "reference/settings.md",
        "# Settings\n\nEvery setting of every experiment, and whether its value is the paper's, assumed or tuned; "
        f"[Config](../nbs/07_config.ipynb) has the rules.\n\n{settings_table()}",
    )
    modules = sorted(path.stem for path in (ROOT / "aae_prior").glob("*.py") if path.stem[0] != "_")
    for module in modules:
        write(f"reference/{module}.md", api_page(module))
    api = "# Modules\n\nThe package `aae_prior`, a module a notebook.\n\n```{toctree}\n:maxdepth: 1\n\n"
    write("reference/api.md", api + "\n".join(modules) + "\n```")
    text = (BOOK / "index.md").read_text(encoding="utf-8")
    write("index.md", filled(text, explorer=TURN * explorer, toctrees=contents(explorer)))


def build():
    "Sphinx's exit status; a warning is an error"
    shutil.rmtree(TARGET, ignore_errors=True)
    return subprocess.call(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "auto", "-c", BOOK, "-E"]
        + ["-d", ROOT / "out/book_doctrees", SOURCE, TARGET]
    )


def slim():
    "Less to load: pictures as WebP, which loses nothing and is smaller by a third; no maps of minified files"
    for path in TARGET.rglob("*.map"):
        path.unlink()

    def convert(path):
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".webp"), lossless=True, method=2)
        path.unlink()

    with ThreadPoolExecutor() as pool:
        list(pool.map(convert, sorted((TARGET / "_images").glob("*.png"))))
    for path in TARGET.rglob("*.html"):
        if "explorer" not in path.relative_to(TARGET).parts:
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"(_images/[^\s\"]+)\.png", r"\1.webp", text), encoding="utf-8")


if __name__ == "__main__":
    gather()
    status = build()
    if not status:
        slim()
        size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
        print(f"{TARGET / 'index.html'} ({len(list(TARGET.rglob('*.html')))} pages, {size / 1e6:.1f} MB)")
    sys.exit(status)
