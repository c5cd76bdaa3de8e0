"""The front door: README.md is read in one sitting, and what does not fit into it stands in the pages of the book."""

import inspect
import re
import shutil
from pathlib import Path

import pytest

from aae_prior import training
from aae_prior.captions import DATASET_NAMES
from aae_prior.glance import (
    MEASURES,
    OUR_QUESTION,
    SAME_LINE,
    SIGNS,
    TITLES,
    book_address,
    claim_address,
    count_verdicts,
    deciding,
    glance_cell,
    glance_table,
    judged,
    kind_of,
    legend,
    sign,
    slug,
    why_undecided,
)
from aae_prior.plan import figures_table, read_plan, select_entries
from aae_prior.results import read_rows
from aae_prior.verdicts import CLAIMS, verdicts_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = read_rows(ROOT / "figures" / "results.csv")
NOTEBOOKS = sorted(path.stem for path in (ROOT / "nbs").glob("*.ipynb") if path.stem != "index")
RUN_AGAIN = "run index.ipynb again, then make readme"


def lines_of(table):
    "The lines of a Markdown table without its head."
    return table.splitlines()[2:]


# ---- README ----


def test_readme_is_read_in_one_sitting():
    assert len(README.split()) <= 1200, f"{len(README.split())} words"
    assert len(README.encode("utf-8")) <= 15_000
    assert README.count("![") == 1, "one picture"


def test_what_holds_is_one_table_of_at_most_14_lines():
    table = glance_table(ROWS)
    assert table in README and f"{count_verdicts(ROWS)}**" in README and legend(ROWS) in README, RUN_AGAIN
    assert len(lines_of(table)) <= 14
    assert figures_table() in README, RUN_AGAIN


def test_links_of_the_readme_lead_somewhere():
    targets = re.findall(r"""(?:\]\(|src="|href=")(?![a-z]+:|#)([^)"#]+)""", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_links_into_the_book_lead_to_a_page_of_it(book):
    addresses = re.findall(rf"\]\({re.escape(book_address())}([^)]*)\)", README)
    assert len(addresses) > 40
    for address in addresses:
        page, _, anchor = address.partition("#")
        if page == "explorer.html":  # a page only where `make explorer` has built it
            assert (ROOT / "book/explorer/index.html").exists()
            continue
        [source] = [
            path for kind in (".md", ".ipynb") if (path := (book.SOURCE / page).with_suffix(kind)).exists()
        ] or pytest.fail(f"no page {page}")
        assert not anchor or f"({anchor})=" in source.read_text(encoding="utf-8"), address


def test_python_of_the_readme_draws_digits(tmp_path, monkeypatch):
    [source] = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in source.splitlines() if line]) <= 8
    shutil.copytree(ROOT / "pretrained/mnist-label-ours", tmp_path / "pretrained/mnist-label-ours")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(source, "README.md", "exec"), names)
    [said] = re.findall(r"\.shape  # \(([\d, ]+)\)", source)
    assert names["digits"].shape == tuple(map(int, said.split(", ")))
    assert -1 <= names["digits"].min() < 0 < names["digits"].max() <= 1
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"{i}.png" for i in range(10)]
    assert names["threes"].std(dim=0).max() > 0.1, "ten handwritings"


def test_commands_of_the_readme_make_a_part_of_the_plan():
    figures = re.findall(r"`make paper FIGURE=(\w+)`", figures_table())
    assert len(figures) == len(set(figures)) > 5
    made = [{entry.notebook for entry in select_entries(read_plan(), figure)} for figure in figures]
    assert all(len(notebooks) == 1 for notebooks in made) and len(set.union(*made)) == len(figures)
    for target in re.findall(r"`make (\w+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), target


# ---- what holds, at a glance ----


def test_every_verdict_is_in_the_table_at_a_glance():
    judgements = {(claim.key, line[0]): kind_of(line[2]) for claim in CLAIMS.values() for line in judged(claim, ROWS)}
    table = glance_table(ROWS)
    for (key, dataset), kind in judgements.items():
        if key == OUR_QUESTION:
            continue
        line = next(line for line in lines_of(table) if TITLES[SAME_LINE.get(key, key)] in line)
        cell = line.strip("|").split(" | ")[2 + list(DATASET_NAMES).index(dataset)]
        assert re.search(rf"\[\d?{re.escape(SIGNS[kind])}[\]\N{{NO-BREAK SPACE}}]", cell), (key, dataset, kind, cell)


def test_every_claim_has_a_number_and_a_line():
    assert set(MEASURES) == set(CLAIMS)
    assert set(TITLES) | set(SAME_LINE) == set(CLAIMS) - {OUR_QUESTION} and set(SAME_LINE.values()) <= set(TITLES)


def test_counts_are_those_of_the_full_table():
    cells = [line.split(" | ") for line in lines_of(verdicts_table(ROWS))]
    full = [line[3].strip("*") for line in cells if CLAIMS[OUR_QUESTION].of not in line[1]]
    assert len(full) < len(cells)
    for word, kind in (("reproduced", "reproduced"), ("partly", "partly reproduced")):
        assert f"{sum(verdict.startswith(word) for verdict in full)} {kind}" in count_verdicts(ROWS)
    assert f"judged {len(full)} times" in count_verdicts(ROWS)
    reasons = [int(count) for count in re.findall(r"\d+", why_undecided(ROWS))]
    assert sum(reasons) == sum(verdict.startswith("not decided") for verdict in full)


def test_what_is_not_measured_is_not_judged():
    unsupervised = CLAIMS["higher score, unsupervised"]
    without = [row for row in ROWS if row["claim"] != unsupervised.claim]
    assert not list(judged(unsupervised, without)) and list(judged(unsupervised, ROWS))
    only_maae = [row for row in ROWS if row["model"] != "ours"]
    assert all("no inception score of `ours`" in line[2] for line in judged(unsupervised, only_maae))
    assert "with a number missing" in why_undecided(only_maae)


def test_a_changed_number_changes_the_table():
    changed = [
        row | dict(value="0.4") if (row["figure"], row["metric"]) == ("8", "label_consistency") else row for row in ROWS
    ]
    assert glance_table(changed) != glance_table(ROWS) and count_verdicts(changed) != count_verdicts(ROWS)


def test_cell_shows_each_sign_once_and_the_number_of_the_last():
    claim, other = CLAIMS["labels control the image"], CLAIMS["labels matched better"]
    rows = [row for row in ROWS if (row["figure"], row["dataset"], row["preset"]) == ("8", "digits", "quick")]
    worse = [row | dict(value="0.42") if row["metric"] == "label_consistency" else row for row in rows]
    link = f"]({claim_address(claim.key, 'digits')})"
    space, number = "\N{NO-BREAK SPACE}", deciding(claim, rows)
    assert re.fullmatch(r"[01]\.\d\d", number)
    assert glance_cell([(claim, "**reproduced**", rows)]) == f"[✓{space}{number}{link}"
    assert (
        glance_cell([(claim, "**reproduced**", worse), (claim, "**reproduced**", rows)]) == f"[2✓{space}{number}{link}"
    )
    both = glance_cell([(claim, "**not reproduced**", worse), (claim, "**reproduced**", rows)])
    assert both == f"[✓{space}{number}{link} [✗{space}0.42{link}"
    assert glance_cell([(claim, "**not decided**", rows), (other, "**not decided**", rows)]).startswith("[2?](")
    assert glance_cell([(claim, "**reproduced**", [row | dict(metric="") for row in rows])]) == f"[✓{link}"


def test_a_verdict_in_new_words_is_no_crash():
    assert [
        sign(f"**{text}**") for text in ("one seed, not as claimed", "withdrawn", "not decided, no FID of `aae`")
    ] == [
        "(✗)",
        "?",
        "?",
    ]


# ---- what the README leaves to the book ----


def test_the_book_lists_every_notebook(book):
    text = (book.SOURCE / "start/notebooks.md").read_text(encoding="utf-8")
    assert [name for name in NOTEBOOKS if f"[{name}](../nbs/{name}.ipynb)" not in text] == []


def test_the_book_shows_algorithm_1_as_it_runs(book):
    text = (book.SOURCE / "start/method.md").read_text(encoding="utf-8")
    for phase in (training.aae_phase, training.prior_phase):
        assert inspect.getsource(phase).strip() in text


def test_every_verdict_is_on_the_page_of_its_claim(book):
    for claim in CLAIMS.values():
        page = (book.SOURCE / f"claims/{slug(claim.key)}.md").read_text(encoding="utf-8")
        for _, about, verdict, ours, beside, seeds, mine in judged(claim, ROWS):
            assert re.search(rf"^\| {re.escape(about)} \|.*{re.escape(verdict)} \|.* {seeds} \|$", page, re.M), about
            assert deciding(claim, mine) in page
            assert [numbers for numbers in [ours, *beside.split("; ")] if numbers not in page] == []


def test_every_command_of_the_plan_is_in_the_book(book):
    text = (book.SOURCE / "start/commands.md").read_text(encoding="utf-8")
    assert book.commands_table() in text and "{{" not in text


def test_what_a_user_needs_is_in_the_book(book):
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (book.SOURCE / "start").glob("*.md")}
    for word in ("AAE_PRIOR_DATA", "AAE_PRIOR_RUNS", "x_train", "class_names", "train/", "background", "non_square"):
        assert f"`{word}" in pages["own_data"], word
    for word in ("aae-prior sweep", "PLAN=1", "aae-prior runs", "--log-output", "--help-notebook"):
        assert word in pages["commands"], word
    for word in ("No such kernel", "CUDA is not available", "make clean", "OMP_NUM_THREADS=1"):
        assert word in pages["install"], word
    assert "-p run_dir pretrained/mnist-label-ours" in pages["first_figure"]
