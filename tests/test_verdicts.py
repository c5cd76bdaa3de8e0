"""What the notebook of the verdicts cannot show.

They agree with the paper notebooks and with the published rows.
"""

import json
from pathlib import Path

import pytest

from aae_prior.results import HEADER, read_rows
from aae_prior.verdicts import CHANNELS, CLAIMS, COLUMNS, claims_of, decide, groups_of, verdict, verdicts_table

ROOT = Path(__file__).resolve().parents[1]
ROWS = read_rows(ROOT / "figures" / "results.csv")
WORDS = ("reproduced", "partly reproduced", "not reproduced", "not decided, ")
each_claim = pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)


def notebook_of(figure):
    "Text of the code and prose of the one notebook that draws a figure"
    [path] = (ROOT / "nbs").glob("table1_*.ipynb" if figure == "Table 1" else f"fig{figure}_*.ipynb")
    text = "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    return text.replace("\\\n", "")  # a line that goes on in the next


def lines(table):
    header, _, *found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return [dict(zip(header, cells, strict=True)) for cells in found]


def rows_of(claim, **models):
    "Rows of one seed from model=dict(metric=value)"
    facts = dict(
        figure=CLAIMS[claim].figure, claim=CLAIMS[claim].claim, dataset="digits", preset="quick", seed="0", n="100"
    )
    return [
        dict.fromkeys(HEADER, "") | facts | dict(model=model, metric=metric, value=str(value))
        for model, values in models.items()
        for metric, value in values.items()
    ]


@each_claim
def test_notebook_quotes_the_sentence_and_asks_the_rule(claim):
    text = notebook_of(claim.figure)
    assert claim.said in text
    assert '"reproduced"' not in text and "not reproduced" not in text, "a notebook has no rule of its own"


@each_claim
def test_rows_bear_the_name_that_the_rule_looks_for(claim):
    assert any((row["figure"], row["claim"]) == (claim.figure, claim.claim) for row in ROWS), claim.claim


@each_claim
def test_without_rows_nothing_is_decided(claim):
    for model in claim.models:
        assert verdict(claim.key, [], model).startswith("not decided, no ")


UNJUDGED = {"benchmark", "ablations", "stability", "authors' pictures"}  # no figures of the paper


def test_every_published_figure_is_judged_or_named():
    named = {"13", "14"}  # judged in their own notebooks
    assert {row["figure"] for row in ROWS} - named - UNJUDGED == {claim.figure for claim in CLAIMS.values()}
    judged = lines(verdicts_table(ROWS))
    for figure, dataset, preset in {
        (row["figure"], row["dataset"], row["preset"]) for row in ROWS if row["figure"] not in named | UNJUDGED
    }:
        mine = [
            line
            for line in judged
            if line["figure"] == figure and line["data set, preset"].startswith(f"{dataset}, {preset}")
        ]
        silent = [
            key for key in claims_of(figure, dataset) if key == "plausible reconstructions" and CHANNELS[dataset] == 1
        ]
        rulers = (
            {
                row["extractor"]
                for row in ROWS
                if (row["figure"], row["dataset"], row["preset"]) == (figure, dataset, preset)
            }
            if figure == "Table 1"
            else {""}
        )
        assert len(mine) == len(claims_of(figure, dataset)) * len(rulers) - len(silent), (figure, dataset)
    for line in judged:
        assert line["verdict"].strip("*").startswith(WORDS), line


def test_a_changed_number_changes_the_table():
    [key] = claims_of("8", "digits")
    changed = [
        row | dict(value="0.4")
        if (row["figure"], row["dataset"], row["metric"]) == ("8", "digits", "label_consistency")
        else row
        for row in ROWS
    ]
    assert verdicts_table(changed) != verdicts_table(ROWS)

    def about(rows):
        return dict(groups_of(CLAIMS[key], rows))["digits, quick"]

    assert (verdict(key, about(ROWS)), verdict(key, about(changed))) == ("reproduced", "not reproduced")


def test_means_over_seeds_are_judged_like_single_seeds():
    seeds = [
        rows_of("labels control the image", ours=dict(label_consistency=consistency, diversity=0.8))
        for consistency in (0.85, 0.93, 0.95)
    ]
    rows = [row | dict(seed=str(seed)) for seed, of_seed in enumerate(seeds) for row in of_seed]
    said, used = decide("labels control the image", rows)
    assert said == "reproduced" and {row["seeds"] for row in used} == {"3"}
    assert "label consistency 0.91 ± 0.053" in lines(verdicts_table(rows))[0]["numbers of `ours`"]


def test_a_class_that_one_seed_misses_is_missed_in_the_mean():
    seeds = [
        rows_of(
            "categories are classes",
            ours=dict(clustering_accuracy=0.95, purity=0.95, diversity=0.9, classes_drawn=drawn),
            **{"real test images": dict(classes_to_draw=10)},
        )
        for drawn in (10, 9, 10)
    ]
    assert [verdict("categories are classes", rows) for rows in seeds] == [
        "reproduced",
        "partly reproduced",
        "reproduced",
    ]
    assert (
        verdict(
            "categories are classes",
            [row | dict(seed=str(seed)) for seed, of_seed in enumerate(seeds) for row in of_seed],
        )
        == "partly reproduced"
    )


def test_presets_and_extractors_are_judged_apart():
    quick = rows_of("labels control the image", ours=dict(label_consistency=0.6, diversity=0.8))
    both = quick + [row | dict(preset="cpu", value="0.95") for row in quick]
    assert [(line["data set, preset"], line["verdict"]) for line in lines(verdicts_table(both))] == [
        ("digits, quick", "**partly reproduced**"),
        ("digits, cpu", "**reproduced**"),
    ]
    scores = rows_of("higher score, supervised", ours=dict(inception_score=8), maae=dict(inception_score=7))
    scores += [row | dict(claim="the score of real images", model="real test images") for row in scores[:1]]
    both = [row | dict(extractor=name, spread=spread) for name, spread in (("a", ".1"), ("b", "2")) for row in scores]
    found = {
        line["data set, preset"]: line["verdict"]
        for line in lines(verdicts_table(both))
        if line["claim (of)"].startswith("supervised")
    }
    assert found == {"digits, quick, a": "**reproduced**", "digits, quick, b": "**not decided, within the spread**"}


def test_cells_hold_no_bar_and_every_line_is_whole():
    for line in lines(verdicts_table(ROWS)):
        assert tuple(line) == COLUMNS and all(
            line[name] for name in ("figure", "verdict", "numbers of `ours`", "seeds")
        )
