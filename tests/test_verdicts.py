"""What the notebook of the verdicts cannot show.

They agree with the paper notebooks and with the published rows.
"""

import json
import re
from pathlib import Path

import pytest

from aae_prior.captions import rules
from aae_prior.results import HEADER, read_rows
from aae_prior.verdicts import CHANNELS, CLAIMS, COLUMNS, claims_of, decide, groups_of, verdict, verdicts_table

ROOT = Path(__file__).resolve().parents[1]
ROWS = read_rows(ROOT / "figures" / "results.csv")
WORDS = ("one seed, ", "reproduced", "partly reproduced", "not reproduced", "not decided, ")
each_claim = pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)


def notebook_of(figure):
    "Code of the one notebook that draws a figure"
    [path] = (ROOT / "nbs").glob("table1_*.ipynb" if figure == "Table 1" else f"fig{figure}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def a_data_set(claim):
    "One that the claim is judged on"
    return next(name for name in CHANNELS if claim.key in claims_of(claim.figure, name))


def lines(table):
    header, _, *found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return [dict(zip(header, cells, strict=True)) for cells in found]


def rows_of(claim, **models):
    "Rows pooled over three seeds from model=dict(metric=value)"
    facts = dict(
        figure=CLAIMS[claim].figure, claim=CLAIMS[claim].claim, dataset="digits", preset="quick", seed="0;1;2", n="100"
    )
    return [
        dict.fromkeys(HEADER, "") | facts | dict(model=model, metric=metric, value=str(value))
        for model, values in models.items()
        for metric, value in values.items()
    ]


@each_claim
def test_notebook_quotes_the_sentence_and_asks_the_rule(claim):
    text = notebook_of(claim.figure)
    assert f'closing("{claim.figure}", results.rows' in text and claim.said in rules(claim.figure, a_data_set(claim))
    assert '"reproduced"' not in text and "not reproduced" not in text, "a notebook has no rule of its own"


@each_claim
def test_rows_bear_the_name_that_the_rule_looks_for(claim):
    assert any((row["figure"], row["claim"]) == (claim.figure, claim.claim) for row in ROWS), claim.claim


@each_claim
def test_without_rows_nothing_is_decided(claim):
    for model in claim.models:
        assert verdict(claim.key, [], model).startswith("not decided, no ")


UNJUDGED = {"benchmark", "priors", "ablations", "stability", "authors' pictures"}  # no figures of the paper


def test_every_published_figure_is_judged():
    assert {row["figure"] for row in ROWS} - UNJUDGED == {claim.figure for claim in CLAIMS.values()}
    judged = lines(verdicts_table(ROWS))
    for figure, dataset, preset in {
        (row["figure"], row["dataset"], row["preset"]) for row in ROWS if row["figure"] not in UNJUDGED
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
        said = {row["claim"] for row in ROWS if (row["figure"], row["dataset"]) == (figure, dataset)}
        measured = [key for key in claims_of(figure, dataset) if figure != "Table 1" or CLAIMS[key].claim in said]
        assert len(mine) == len(measured) * len(rulers) - len(silent), (figure, dataset)
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


def test_one_seed_reproduces_nothing():
    for row in lines(verdicts_table(ROWS)):
        one, said = "1" in row["seeds"].split(", "), row["verdict"].strip("*")
        if said.startswith("one seed"):
            assert one and said.removeprefix("one seed, ").startswith(("as", "partly as", "not as")), row
    [key] = claims_of("8", "digits")
    rows = rows_of(key, ours=dict(label_consistency=0.95, diversity=0.8))
    alone = [row | dict(seed="2") for row in rows]
    assert [verdict(key, rows), verdict(key, alone)] == ["reproduced", "one seed, as claimed"]
    poor = [row | dict(value="0.3") for row in alone]
    assert verdict(key, poor) == "one seed, not as claimed"


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
        assert tuple(line) == COLUMNS and line["figure"] and line["verdict"]
        assert (line["numbers of `ours`"] and line["seeds"]) or line["verdict"].startswith("**not decided, no ")


@each_claim
def test_a_rule_is_one_sentence_of_at_most_40_words(claim):
    said = claim.rule.format(short="8-D", long="100-D")
    assert len(said.split()) <= 40 and not re.search(r"[.!?]\s", said) and not said.endswith(".")


def test_evidence_holds_only_what_decides():
    for line in lines(verdicts_table(ROWS)):
        assert "channels" not in line["beside them"]
        clear = "draws little that is recognizable" not in line["verdict"]
        assert line["figure"] not in "56" or not (clear and "inception score" in line["numbers of `ours`"])
