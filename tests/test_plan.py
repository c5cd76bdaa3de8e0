"""The plan of what is published: that it is whole, what a part of it is, what is said and run. Nothing is trained."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from aae_prior import cli
from aae_prior import plan as planning
from aae_prior.cli import main
from aae_prior.plan import (
    Entry,
    alike,
    commands_table,
    count_finished_runs,
    entry_cells,
    entry_command,
    entry_config,
    entry_rows,
    entry_state,
    expected_duration,
    expected_times,
    is_command_of,
    read_plan,
    row_seeds,
    run_times,
    seeds_made,
    select_entries,
)
from aae_prior.results import read_rows

ROOT = Path(__file__).resolve().parents[1]
PLAN = read_plan()
MADE = [entry for entry in PLAN if not entry.by_hand]
PUBLISHED = sorted(
    path.name for path in (ROOT / "figures").iterdir() if path.name != "results.csv" and not path.name.startswith(".")
)
each_entry = pytest.mark.parametrize("entry", MADE, ids=lambda entry: entry.name)


ROWS = read_rows(ROOT / "figures" / "results.csv")


# ---- the plan is whole ----


def test_every_file_in_figures_belongs_to_one_entry():
    owned = [name for entry in PLAN for name in entry.pictures]
    assert sorted(owned) == PUBLISHED


def owners(row):
    "Entries that make `row`."
    return [
        entry
        for entry in MADE
        if entry_rows(entry, [row])
        and set(row_seeds(row)) <= {seed for first in entry.seeds for seed in seeds_made(entry, first)}
    ]


def test_every_row_belongs_to_one_entry():
    assert ROWS
    for row in ROWS:
        assert len(owners(row)) == 1, f"{[entry.name for entry in owners(row)]} own {row}"


def test_a_row_of_a_seed_that_is_not_planned_has_no_owner():
    row = ROWS[0] | dict(seed="77")
    assert not owners(row)


@each_entry
def test_every_entry_has_its_rows(entry):
    mine = entry_rows(entry, ROWS)
    assert bool(mine) == bool(entry.rows)
    assert {row["dataset"] for row in mine} == set(entry.rows)
    for seed in entry.seeds:
        if entry.rows:
            assert any(seed in row_seeds(row) for row in mine), f"no row of seed {seed}"


@each_entry
def test_pictures_are_named_after_notebook_and_data_set(entry):
    for name in entry.pictures:
        if name.endswith(".png") and entry.dataset:
            assert name.startswith(f"{entry.notebook}_{entry.dataset}")


@each_entry
def test_its_notebook_takes_the_parameters_and_the_command_says_them(entry):
    for seed in entry.seeds:
        command = entry_command(entry, seed)
        assert command.startswith(f"papermill nbs/{entry.notebook}.ipynb out/{entry.notebook}.ipynb") and is_command_of(
            entry, seed, command
        )
        if entry.dataset:
            assert (
                entry_config(entry, seed).dataset,
                entry_config(entry, seed).preset,
                entry_config(entry, seed).seed,
            ) == (
                entry.dataset,
                entry.preset,
                seed,
            )
    assert len({entry_command(entry, seed) for seed in entry.seeds}) == len(entry.seeds)
    kinds = planning.read_notebook(planning.notebook_path(entry.notebook)).types
    words = entry_command(entry, entry.seeds[-1]).split()
    assert {words[i + 1] for i, word in enumerate(words) if word == "-p"} <= set(kinds)


def test_no_two_entries_are_alike():
    keys = [(entry.notebook, entry.dataset, entry.preset, entry.parameters.get("settings")) for entry in PLAN]
    assert len(keys) == len(set(keys))
    assert all(entry.parameters.get("settings") for entry in PLAN if len(alike(entry, PLAN)) > 1)


def test_a_damaged_plan_is_said_in_one_line(tmp_path):
    (tmp_path / "plan.toml").write_text("[fig8\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"plan.toml: .*line 1"):
        read_plan(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text(
        '[fig8_supervised]\nfigure = "8"\nentries = [{ datasets = "mnist" }]\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match="has an entry with datasets; known are dataset, "):
        read_plan(tmp_path / "plan.toml")


# ---- a part of it ----


@pytest.mark.parametrize("words", ["8", "fig8", "Fig. 8", "figure 8", "fig8_supervised"])
def test_a_figure_goes_by_several_names(words):
    assert {entry.notebook for entry in select_entries(PLAN, words)} == {"fig8_supervised"}


def test_other_names():
    assert (
        {e.notebook for e in select_entries(PLAN, "table1")}
        == {"table1_inception_score"}
        == {e.notebook for e in select_entries(PLAN, "Table 1")}
    )
    assert {e.notebook for e in select_entries(PLAN, "1")} == {"architecture_figures"} and {
        e.notebook for e in select_entries(PLAN, "table 3")
    } == {"tables2_4_architectures"}
    assert {e.notebook for e in select_entries(PLAN, "ablations")} == {"ablations"} and {
        e.notebook for e in select_entries(PLAN, "authors_pictures")
    } == {"authors_pictures"}


def test_what_is_in_the_plan_is_published_and_nothing_else():
    [entry] = select_entries(PLAN, "8", "cifar10", "quick")
    assert entry.published and entry in PLAN
    [entry] = select_entries(PLAN, "8", "cifar10", "cpu")
    assert not entry.published and (entry.dataset, entry.preset, entry.pictures, entry.parameters) == (
        "cifar10",
        "cpu",
        (),
        {},
    )
    [entry] = select_entries(PLAN, "6", "mnist", "smoke")
    assert not entry.published and not entry.parameters
    [entry] = select_entries(PLAN, "fig8", "svhn", seed=5)
    assert not entry.published and entry.seeds == (5,)
    [entry] = select_entries(PLAN, "fig8", "mnist", seed=2)
    assert entry.published and entry.seeds == (2,) and not entry.pictures  # those of seed 0 stay
    assert [e.pictures for e in select_entries(PLAN, "fig8", "mnist", seed=0)] == [("fig8_supervised_mnist.png",)]
    assert not any(entry.published for entry in select_entries(PLAN, preset="smoke"))


def test_one_preset_of_a_data_set_is_what_is_planned_of_it():
    assert {e.figure for e in select_entries(PLAN, dataset="cifar10", preset="cpu")} == {
        "11",
        "12",
        "authors' pictures",
    }
    assert {e.figure for e in select_entries(PLAN, dataset="mnist", preset="smoke")} == {
        "5",
        "6",
        "8",
        "9",
        "11",
        "12",
        "priors",
    }


BAD = {
    "no such figure": (["--figure", "88"], "figure = '88': not in the plan; it has 1, 2"),
    "no such data set": (
        ["--dataset", "cifar11"],
        "dataset = 'cifar11': nothing is published of it; there is digits, mnist, cifar10",
    ),
    "no data set at all": (["--figure", "8", "--dataset", "cifar11"], "Figure 8, cifar11, quick: dataset = 'cifar11'"),
    "no such preset": (
        ["--figure", "8", "--dataset", "mnist", "--preset", "fast"],
        "Figure 8, mnist, fast: preset = 'fast'",
    ),
    "no preset": (["--figure", "architecture_figures", "--preset", "quick"], "has no preset; leave it out"),
    "Slurm's option": (["--figure", "8", "--dataset", "mnist", "--memory", "4"], "only Slurm can honour them"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(case, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "entry_folder", lambda entry: tmp_path)
    words, line = BAD[case]
    assert main(["paper", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and line in said[0], said


# ---- what is there, and how long it takes ----

ONE = Entry("fig8_supervised", "8", "digits", "quick", seeds=(0, 1), rows=("digits",))
ROW = dict(
    figure="8",
    claim="labels",
    dataset="digits",
    model="ours",
    metric="fid",
    preset="quick",
    wall_time="100 s",
    seed="0",
    command=entry_command(ONE),
)


def test_times_come_from_rows():
    rows = [
        ROW,
        ROW | dict(metric="diversity"),
        ROW | dict(model="maae", wall_time="50 s"),
        ROW | dict(model="real test images", wall_time=""),
    ]
    assert list(run_times(ONE, rows).values()) == [100, 50]
    later = [row | dict(seed="1") for row in rows]
    assert (
        sum(expected_times(ONE, [ONE], rows).values()) == 150
        and sum(
            expected_times(
                ONE, [ONE], rows + [later[0] | dict(wall_time="120 s"), later[2] | dict(wall_time="60 s")]
            ).values()
        )
        == 165
    )
    assert expected_duration(ONE, [ONE], rows) == "5 min" and expected_duration(ONE, [ONE], []) == "unknown"
    longer = Entry(
        "fig8_supervised", "8", "mnist", "quick", parameters=dict(steps=2 * entry_config(ONE).steps), rows=("mnist",)
    )
    assert sum(expected_times(longer, [longer, ONE], rows).values()) == 300
    shorter = [row | dict(command=row["command"] + f" -p steps {entry_config(ONE).steps // 2}") for row in rows]
    assert sum(expected_times(ONE, [ONE], shorter).values()) == 300
    wider = replace(longer, preset="cpu", parameters={})
    assert expected_times(wider, [wider, ONE], rows) == {}


def test_runs_that_figures_share_are_counted_once():
    nine = Entry("fig9_supervised_codes", "9", "digits", "quick", seeds=(0, 1), rows=("digits",))
    rows = [ROW, ROW | dict(figure="9", command=entry_command(nine))]
    assert (
        planning.total_duration([ONE], [ONE, nine], rows)
        == planning.total_duration([ONE, nine], [ONE, nine], rows)
        == "3 min"
    )


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    "Sweeps of the plan in a folder of their own; what is run is noted, and is done."
    made = []
    folder = planning.entry_folder
    monkeypatch.setattr(planning, "entry_folder", lambda entry: tmp_path / folder(entry).name)

    def run_sweep(notebook, cells, folder, a, command, publish, pictures=None):
        made.append((notebook.path.stem, [cell.parameters for cell in cells], publish))
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            (cell.folder / "cell.json").write_text(json.dumps(dict(state="done")), encoding="utf-8")
        return 0

    monkeypatch.setattr(cli, "run_sweep", run_sweep)
    return made


def test_states(elsewhere):
    assert entry_state(ONE, 1, []) == "to run" and entry_state(ONE, 1, [ROW]) == "to run"
    assert entry_state(ONE, 0, [ROW]) == "to run; published"
    assert entry_state(ONE, 0, [ROW | dict(command=ROW["command"] + " -p lr 0.1")]) == "to run; rows of another command"
    assert (
        entry_state(
            ONE,
            1,
            [ROW | dict(seed="0;1", command="aae-prior sweep nbs/fig8_supervised.ipynb --grid seed=0,1 --publish")],
        )
        == "to run; published"
    )
    assert (
        entry_state(ONE, 0, [ROW | dict(command="papermill nbs/fig8_supervised.ipynb out/a.ipynb -p none_such 1")])
        == "to run; rows of another command"
    )
    cell = entry_cells(ONE)[0].folder
    cell.mkdir(parents=True)
    for said, words in dict(
        done="done here", running="running here, resumes", interrupted="interrupted here, resumes", failed="to run"
    ).items():
        (cell / "cell.json").write_text(json.dumps(dict(state=said)), encoding="utf-8")
        assert entry_state(ONE, 0, []) == words


def test_finished_runs_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path))

    def run(name, complete=True, **settings):
        (tmp_path / name).mkdir()
        record = dict(complete=complete, config=entry_config(ONE, 1).to_dict() | settings)
        (tmp_path / name / "record.json").write_text(json.dumps(record), encoding="utf-8")

    (
        run("ours"),
        run("maae", model="maae"),
        run("another seed", seed=5),
        run("longer", steps=10**4),
        run("half", complete=False),
    )
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "record.json").write_text("{", encoding="utf-8")
    assert count_finished_runs(ONE) == 2


def test_the_plan_names_every_picture_and_runs_nothing(elsewhere, capsys):
    assert main(["paper", "--plan"]) == 0
    said = capsys.readouterr().out
    for name in PUBLISHED:
        assert name in said
    assert said.count("\n") == len(PLAN) + 2 and not elsewhere


def test_the_commands_of_the_table_are_those_of_the_entries():
    table = commands_table()
    for entry in MADE:
        assert f"`{entry_command(entry, entry.seeds[0])}`" in table
    assert len(table.splitlines()) == len(MADE) + 2


# ---- what is run ----


def test_what_is_asked_for_is_run_with_its_seeds_and_published(elsewhere, capsys):
    assert main(["paper", "--figure", "8", "--dataset", "mnist"]) == 0
    assert elsewhere == [
        (
            "fig8_supervised",
            [
                dict(dataset="mnist", preset="cpu"),
                dict(dataset="mnist", preset="cpu", seed=1),
                dict(dataset="mnist", preset="cpu", seed=2),
            ],
            True,
        )
    ]
    assert "== Figure 8, mnist, cpu: papermill nbs/fig8_supervised.ipynb" in capsys.readouterr().out


def test_a_smoke_run_is_not_published(elsewhere, capsys):
    assert main(["paper", "--dataset", "digits", "--preset", "smoke"]) == 0
    assert {name for name, _, _ in elsewhere} == {e.notebook for e in PLAN if e.dataset == "digits"} and not any(
        publish for _, _, publish in elsewhere
    )
    assert "not in nbs/plan.toml, so not published" in capsys.readouterr().out


def test_what_is_done_and_published_is_not_done_again(elsewhere, monkeypatch):
    [entry] = select_entries(PLAN, "5", "digits")
    published = [ROW | dict(figure="5", seed=str(seed), command=entry_command(entry, seed)) for seed in entry.seeds]
    monkeypatch.setattr("aae_prior.plan.read_rows", lambda path: published)
    for _ in range(2):
        assert main(["paper", "--figure", "5", "--dataset", "digits"]) == 0
    assert len(elsewhere) == 1
    published.clear()  # done, but its rows are gone: they are published again
    assert main(["paper", "--figure", "5", "--dataset", "digits"]) == 0 and len(elsewhere) == 2


def test_missing_leaves_out_what_has_rows(elsewhere, monkeypatch):
    [entry] = select_entries(PLAN, "8", "digits")
    monkeypatch.setattr(
        "aae_prior.plan.read_rows",
        lambda path: [ROW | dict(seed=str(seed), command=entry_command(entry, seed)) for seed in (0, 2)],
    )
    assert main(["paper", "--figure", "8", "--dataset", "digits", "--missing"]) == 0
    assert elsewhere == [("fig8_supervised", [dict(dataset="digits", seed=1)], True)]


def test_another_version_of_a_notebook_or_of_parameters_starts_anew(monkeypatch):
    assert len({planning.entry_folder(e) for e in MADE}) == len(MADE)
    assert planning.entry_folder(replace(ONE, parameters=dict(steps=5))) != planning.entry_folder(ONE)
    read = planning.read_notebook
    before = planning.entry_folder(ONE)
    monkeypatch.setattr(planning, "read_notebook", lambda path: replace(read(path), digest="another"))
    assert planning.entry_folder(ONE) != before


def test_make_hands_over_the_part(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "installed").touch()
    (tmp_path / "bin" / "aae-prior").write_text('#!/bin/sh\nprintf "[%s]" "$@"\n', encoding="utf-8")
    (tmp_path / "bin" / "aae-prior").chmod(0o755)

    def make(*words):
        return subprocess.run(
            ["make", "--no-print-directory", "paper", f"VENV={tmp_path}", "-o", f"{tmp_path}/installed", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert make() == "[paper]" and make("PLAN=0") == "[paper]"
    assert (
        make("FIGURE=Table 1", "DATASET=mnist", "PRESET=cpu", "SEED=0", "PLAN=1", "ARGS=--jobs 2")
        == "[paper][--figure][Table 1][--dataset][mnist][--preset][cpu][--seed][0][--plan][--jobs][2]"
    )
    assert make("MISSING=1", "DATASET=mnist") == "[paper][--dataset][mnist][--missing]"
