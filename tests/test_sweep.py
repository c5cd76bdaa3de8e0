"""Sweeps without a cluster and without training: what is refused, submitted when, averaged, and drawn."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import papermill
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sweep_notebooks import CHECK, PARAMETERS, TRAINS, notebook

from aae_prior import notebooks, progress, report, runs, samples, sweep
from aae_prior.batches import sample_noise
from aae_prior.cli import main
from aae_prior.config import Config
from aae_prior.data import quantise
from aae_prior.files import read_json
from aae_prior.jobs import Job, Local, Resources
from aae_prior.notebooks import read_notebook
from aae_prior.parameters import parameters_cell
from aae_prior.results import HEADER, merge_rows, read_rows
from aae_prior.sampling import generate
from aae_prior.sweep import Sweep, checked_cells, claim_folder, grid_cells

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def plain(tmp_path):
    return notebook(tmp_path / "plain.ipynb", PARAMETERS, CHECK)


# ---- what is refused ----

BAD = {
    "no such notebook": (["no.ipynb", "--grid", "seed=0"], "no.ipynb: no such notebook"),
    "no notebook": (["text.ipynb", "--grid", "seed=0"], "this is no notebook"),
    "nothing declared": (["bare.ipynb", "--grid", "seed=0"], "cannot be swept"),
    "unknown name": (["plain.ipynb", "--grid", "sed=0"], "sed = 0: unknown parameter; did you mean seed?"),
    "not the notebook's": (["plain.ipynb", "--grid", "seed=0", "-p", "ema", "0.5"], "ema = 0.5: "),
    "value of one cell of many": (
        ["plain.ipynb", "--grid", "seed=0,1,2", "steps=5,0"],
        "steps = 0: must be at least 1",
    ),
    "contradiction in a cell": (
        ["plain.ipynb", "--grid", "preset=quick,smoke", "--publish"],
        "a smoke run is no result",
    ),
    "has no effect in a cell": (
        ["open.ipynb", "--grid", "consistency=0,1"],
        "consistency = 0.0: has no effect with condition label",
    ),
    "an unknown override": (["open.ipynb", "-p", "overrides", "bta1=0"], "did you mean beta1"),
    "an override out of range": (["open.ipynb", "--grid", "lr=1e-3,2"], "lr = 2: must be > 0 and < 1"),
    "in overrides too": (
        ["open.ipynb", "--grid", "lr=1e-3,2e-3", "-p", "overrides", "lr=1e-4"],
        "stands in overrides too; give it once",
    ),
    "no value": (["plain.ipynb", "--grid", "seed"], "--grid seed: write name=value"),
    "a cell twice": (
        ["plain.ipynb", "--grid", "model=ours,OURS", "seed=0"],
        "--grid: the cells model=ours,seed=0 and model=OURS,seed=0 have the same settings",
    ),
    "a default given": (
        ["plain.ipynb", "--grid", "steps=None,600"],
        "the cells steps=None and steps=600 have the same settings",
    ),
    "a cell twice, elsewhere": (
        ["plain.ipynb", "--grid", "device=cuda:0,CUDA:0", "--cluster", "slurm"],
        "the cells device=cuda:0 and device=CUDA:0 have the same settings",
    ),
    "no literal": (["plain.ipynb", "-p", "seed", "{[]}"], "seed = '{[]}': must be a whole number"),
    "too deep a literal": (["plain.ipynb", "-p", "seed", "1" + "+1" * 20000], "seed = '1+1+1"),
    "value twice": (["plain.ipynb", "--grid", "seed=1,1"], "--grid seed=1,1: 1 stands there twice"),
    "name twice": (["plain.ipynb", "--grid", "seed=0", "seed=1"], "seed stands there twice"),
    "in both": (["plain.ipynb", "--grid", "seed=0", "-p", "seed", "1"], "give it once"),
    "out_dir": (["plain.ipynb", "--grid", "out_dir=a,b"], "give --out"),
    "a smoke run published": (
        ["plain.ipynb", "--grid", "seed=0", "-p", "preset", "smoke", "--publish"],
        "a smoke run is no result",
    ),
    "rows without a place": (["plain.ipynb", "--grid", "steps=5,6", "--publish"], "rows that differ in steps"),
    "no such device here": (["plain.ipynb", "--grid", "device=cuda:77"], "device = 'cuda:77': not on this machine"),
    "no such engine": (["plain.ipynb", "--grid", "seed=0", "--cluster", "cloud"], "invalid choice: 'cloud'"),
    "no Slurm": (
        ["plain.ipynb", "--grid", "seed=0", "device=cuda,cuda:1", "--cluster", "slurm"],
        "there is no sbatch here",
    ),
    "no jobs": (["plain.ipynb", "--grid", "seed=0", "--jobs", "0"], "must be a whole number of 1 or more"),
    "negative retries": (
        ["plain.ipynb", "--grid", "seed=0", "--retries", "-1"],
        "--retries: -1: must be a whole number of 0 or more",
    ),
    "negative cards": (
        ["plain.ipynb", "--grid", "seed=0", "--gpus", "-1"],
        "--gpus: -1: must be a whole number of 0 or more",
    ),
    "half a card": (
        ["plain.ipynb", "--grid", "seed=0", "--gpus", "0.5"],
        "--gpus: 0.5: must be a whole number of 0 or more",
    ),
    "Slurm's option": (["plain.ipynb", "--grid", "seed=0", "--memory", "4"], "only Slurm can honour them"),
    "no option": (["plain.ipynb", "--grid", "seed=0", "--slurm", "gpu"], "gpu: must be name=value"),
    "cards": (["plain.ipynb", "--grid", "seed=0,1", "--gpus", "99"], "graphics cards are needed"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line_before_anything_is_submitted(case, tmp_path, plain, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch
    monkeypatch.setattr(sweep.submitit.LocalExecutor, "submit", None)  # whoever submits fails
    Path("text.ipynb").write_text("no JSON", encoding="utf-8")
    notebook(tmp_path / "bare.ipynb", "x = 1")
    notebook(tmp_path / "open.ipynb", parameters_cell(), CHECK)
    words, line = BAD[case]
    try:
        status = main(["sweep", *words, "--out", "there"])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err.splitlines()
    assert status == 2 and len(said) == 1 and line in said[0], said
    assert not list(tmp_path.glob("there/jobs/*"))


def test_a_cell_keeps_to_its_notebook_and_parameters(tmp_path, plain):
    def prepared(*pairs):
        return [
            claim_folder(cell, read_notebook(plain))
            for cell in checked_cells(read_notebook(plain), ["seed=0,1"], pairs, tmp_path)
        ]

    prepared(("steps", "5"))
    prepared(("steps", "5"))
    with pytest.raises(ValueError, match=r"seed=0 holds a cell with the parameters .*5.*; give another --out"):
        prepared(("steps", "6"))
    notebook(plain, PARAMETERS, CHECK, "print(1)")
    with pytest.raises(ValueError, match="another version of the notebook"):
        prepared(("steps", "5"))
    (tmp_path / "cells" / "seed=0" / "cell.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cell.json is damaged; remove it"):
        prepared(("steps", "5"))


def test_one_sweep_at_a_time_in_a_folder(tmp_path, plain, capsys):
    with filelock.FileLock(tmp_path / "lock"):
        assert main(["sweep", str(plain), "--grid", "seed=0", "--out", str(tmp_path)]) == 2
    assert "another sweep works in this folder" in capsys.readouterr().err


def test_values_come_as_the_notebook_declares_them(plain, tmp_path):
    made = checked_cells(read_notebook(plain), ["steps=1e1,20"], [("dataset", "digits")], tmp_path)
    assert [cell.parameters for cell in made] == [dict(dataset="digits", steps=10.0), dict(dataset="digits", steps=20)]
    assert (
        sweep.parse_value("2024", "str") == "2024"
        and sweep.parse_value("[0,1]") == sweep.parse_value("0,1") == [0, 1]
        and sweep.parse_value("true") == "true"
    )


def test_settings_that_are_not_declared_go_through_overrides(tmp_path):
    open_ = read_notebook(notebook(tmp_path / "open.ipynb", parameters_cell(), CHECK))
    made = checked_cells(
        open_, ["lr=1e-4,2e-4", "seed=0"], [("overrides", "beta1=0, r1=1"), ("batch_size", "32")], tmp_path
    )
    assert [cell.name for cell in made] == ["lr=0.0001,seed=0", "lr=0.0002,seed=0"]
    assert made[1].parameters == dict(seed=0, overrides=dict(beta1="0", r1="1", batch_size=32, lr=2e-4))
    assert notebooks.check_parameters(open_, made[1].parameters)["config"] == Config(
        seed=0, beta1=0, r1=1, batch_size=32, lr=2e-4
    )
    assert checked_cells(open_, ["seed=0"], [("overrides", "r1=1")], tmp_path)[0].parameters == dict(
        seed=0, overrides="r1=1"
    )


def test_importing_it_takes_no_torch():
    code = "import sys, aae_prior.cli; sys.exit(bool({'torch', 'matplotlib', 'papermill'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_is_installed_by_that_name():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"aae-prior": "aae_prior.cli:main"}


# ---- who is submitted when ----


class Played:
    "An engine without processes: job n of a cell ends, after some looks, as `script` (cell -> outcomes) says."

    grace, script, looks, most = 0.0, {}, [], 0

    def __init__(self, folder, resources):
        self.resources, self.left, self.submitted, Played.last = resources, {}, {}, self

    def submit(self, works, active):
        assert len(works) + len(active) <= self.resources.jobs, "more jobs at a time than asked for"
        made = []
        for work in works:
            name = work.folder.name
            n = self.submitted[name] = self.submitted.get(name, 0) + 1
            job = SimpleNamespace(job_id=f"{name}-{n}", work=work, outcome=self.script[name][n - 1])
            self.left[job.job_id] = self.looks[len(self.left) % len(self.looks)]
            made.append(job)
        return made

    def queue(self, jobs):
        for job in jobs:
            self.left[job.job_id] -= 1
            if self.left[job.job_id] < 0 and job.outcome:
                self.end(job)
        return {job.job_id: "running" for job in jobs if self.left[job.job_id] >= 0}

    def end(self, job):
        path = job.work.folder / "cell.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(
            json.dumps(
                record
                | dict(
                    state=job.outcome,
                    error="E: no" * (job.outcome == "failed"),
                    starts=[*record["starts"], dict(job=job.job_id, at="2020-01-01T00:00:00")],
                )
            ),
            encoding="utf-8",
        )

    def cancel(self, jobs):
        assert not list(jobs)


OUTCOMES = st.lists(st.sampled_from(["done", "failed", None, "interrupted"]), min_size=4, max_size=4)


@settings(max_examples=25)
@given(
    st.lists(OUTCOMES, min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
)
def test_nothing_is_run_twice_and_nothing_is_forgotten(outcomes, jobs, retries, looks):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        folder = Path(folder)
        source = read_notebook(notebook(folder / "plain.ipynb", PARAMETERS, CHECK))
        made = checked_cells(source, [f"seed={','.join(map(str, range(len(outcomes))))}"], [], folder)
        patch.setitem(sweep.ENGINES, "local", Played)
        Played.script, Played.looks = {cell.folder.name: o for cell, o in zip(made, outcomes)}, looks
        swept = Sweep(source, made, folder, "local", Resources(jobs), retries)
        swept.run(lambda s: s.finished or report.state_rows(s), every=0)
        for cell, planned_ends in zip(made, outcomes):
            ends = planned_ends[: retries + 1]
            final = next((e for e in ends if e in ("done", "failed")), "lost")
            assert swept.states[cell.name] == final
            assert Played.last.submitted[cell.name] == (ends.index(final) + 1 if final != "lost" else retries + 1)
        again = Sweep(source, made, folder, "local", Resources(jobs), retries)  # the same command again
        Played.script = {name: ["done"] * 9 for name in Played.script}
        again.run(lambda s: None, every=0)
        assert set(Played.last.submitted) == {cell.name for cell in made if swept.states[cell.name] != "done"}
        assert set(again.states.values()) == {"done"}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, OSError])
def test_what_was_started_ends_with_a_sweep_that_is_ended_while_it_submits(tmp_path, plain, monkeypatch, end):
    class Ended(Played):
        def submit(self, works, active):
            made = super().submit(works, active)
            if len(self.submitted) < 2:
                return made
            if end is OSError:
                raise OSError("disk full")
            signal.raise_signal(end)
            return made

        def cancel(self, jobs):
            if end is not OSError:
                signal.raise_signal(end)  # somebody is impatient
            self.cancelled = [job.job_id for job in jobs]

    monkeypatch.setitem(sweep.ENGINES, "local", Ended)
    Played.script, Played.looks = {f"seed={i}": ["done"] for i in range(3)}, [9]
    source = read_notebook(plain)
    swept = Sweep(source, checked_cells(source, ["seed=0,1,2"], [], tmp_path), tmp_path, "local", Resources(3))
    before = signal.signal(end, signal.default_int_handler) if end is not OSError else None
    try:
        with pytest.raises(OSError if end is OSError else KeyboardInterrupt):
            swept.run(lambda s: None, every=0)
        assert end is OSError or signal.getsignal(end) is signal.default_int_handler
    finally:
        if before:
            signal.signal(end, before)
    assert list(Played.last.submitted) == ["seed=0", "seed=1"]
    assert Played.last.cancelled == (["seed=0-1"] if end is OSError else ["seed=0-1", "seed=1-1"])


def test_a_queue_that_does_not_answer_changes_nothing(tmp_path, plain, monkeypatch):
    monkeypatch.setitem(sweep.ENGINES, "local", Played)
    Played.script, Played.looks = {"seed=0": ["done"]}, [0]
    swept = Sweep(
        read_notebook(plain),
        checked_cells(read_notebook(plain), ["seed=0"], [], tmp_path),
        tmp_path,
        "local",
        Resources(1),
        0,
    )
    swept.refresh(), swept.submit_waiting()
    with monkeypatch.context() as patch:
        patch.setattr(swept.engine, "queue", lambda jobs: None)
        assert swept.refresh() == {"seed=0": "running"} and not swept.queue_answers
    assert swept.refresh() == {"seed=0": "done"}


def fake(folder, name, script):
    "A command of that name in `folder`."
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_slurm_gets_one_array_with_its_limit_and_resources(tmp_path, plain, monkeypatch):
    for name in ("srun", "sbatch"):
        fake(tmp_path, name, "echo Submitted batch job 7")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    source = read_notebook(plain)
    swept = Sweep(
        source,
        checked_cells(source, ["seed=0,1,2"], [], tmp_path),
        tmp_path / "s",
        "slurm",
        Resources(2, cpus=3, gpus=1, minutes=90, memory=1.5, slurm=(("partition", "long"),)),
    )
    fake(tmp_path, "squeue", "true")
    swept.refresh(), swept.submit_waiting()
    text = next((tmp_path / "s" / "jobs").glob("*submission.sh")).read_text(encoding="utf-8")
    for line in (
        "--array=0-2%2",
        "--cpus-per-task=3",
        "--gpus-per-node=1",
        "--time=90",
        "--mem=1536M",
        "--partition=long",
        "--requeue",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}" in text
    assert "srun" in text and text.count("--cpus-per-task=3") == 2
    fake(tmp_path, "squeue", "printf '7_0 RUNNING\\n7_1 PENDING\\n8 RUNNING\\n7_2 COMPLETING\\n'")
    assert list(swept.refresh().values()) == ["running", "queued", "running"]
    swept.submit_waiting()  # nothing is waiting
    resumed = Sweep(source, swept.cells, tmp_path / "s", "slurm", Resources(2))
    assert list(resumed.refresh().values()) == [
        "running",
        "queued",
        "running",
    ]  # found in the queue, not submitted again
    fake(tmp_path, "squeue", "exit 1")
    assert swept.engine.queue(list(swept.jobs.values())) is None
    fake(tmp_path, "sbatch", "echo 'sbatch: error: one' >&2; echo 'sbatch: error: no such partition' >&2; exit 1")
    with pytest.raises(ValueError, match="^--cluster slurm: sbatch refuses: sbatch: error: no such partition$"):
        swept.engine.submit([print], [])


def test_local_jobs_get_cards_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    engine = Local(tmp_path, Resources(2, gpus=2))
    monkeypatch.setattr(
        engine.executor, "submit", lambda work: SimpleNamespace(sees=engine.executor.parameters["visible_gpus"])
    )
    first, second = engine.submit([1, 2], [])
    assert (first.sees, second.sees) == ([4, 5], [6, 7]) and engine.submit([3], [second])[0].sees == [4, 5]
    with pytest.raises(ValueError, match="--gpus 2 --jobs 3: 6 graphics cards are needed, this machine has 4"):
        Local(tmp_path, Resources(3, gpus=2))


# ---- a job ----


@pytest.fixture
def job(tmp_path, plain, monkeypatch):
    "A job, the calls of papermill it made, and the environment of a worker."
    source = read_notebook(plain)
    (cell,) = grid_cells(dict(seed=[0]), {}, tmp_path)
    claim_folder(cell, source)
    calls = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: calls.append(a))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in dict(SUBMITIT_EXECUTOR="local", SUBMITIT_LOCAL_JOB_ID="77").items():
        monkeypatch.setenv(name, value)
    return Job(plain, cell.folder, cell.parameters, 2), calls


def record(job):
    return json.loads((job.folder / "cell.json").read_text(encoding="utf-8"))


def test_a_job_runs_its_cell_once(job):
    work, calls = job
    work(), work()
    assert [call[2] for call in calls] == [dict(seed=0, out_dir=str(work.folder / "out"))]
    assert (
        record(work)["state"] == "done"
        and [s["job"] for s in record(work)["starts"]] == ["77"]
        and os.environ["OMP_NUM_THREADS"] == "2"
    )
    assert work.checkpoint().function is work


def test_a_job_says_how_it_ended(job, monkeypatch):
    work, _ = job

    class DeadKernelError(RuntimeError):
        pass

    def raising(*errors):
        left = list(errors)

        def execute(*a, **k):
            if left:
                raise left.pop(0)

        return execute

    def trouble(name):
        return papermill.PapermillExecutionError(0, 1, "", name, "first\nlast", [])

    waits = []
    monkeypatch.setattr(notebooks.time, "sleep", waits.append)
    for errors, state, said in [
        ([trouble("ValueError")], "failed", "ValueError: last"),
        ([DeadKernelError("x")], "interrupted", "its kernel died: killed, or out of memory"),
        ([OSError("disk full")], "failed", "OSError: disk full"),
        ([trouble("RunLocked")] * 2, "done", ""),
    ]:
        monkeypatch.setattr(papermill, "execute_notebook", raising(*errors))
        work()
        assert (record(work)["state"], record(work)["error"]) == (state, said)
    assert len(waits) == 2  # another cell trained the same run: it waited


# ---- the mean over seeds, and publishing ----


def finished(folder, plain, monkeypatch, words, pairs=(), publish=False, **script):
    "A sweep whose cells have a row of results and are done, or end as `script` (a cell's folder -> outcomes) has it."
    source = read_notebook(plain)
    made = checked_cells(source, words, list(pairs), folder)
    monkeypatch.setitem(sweep.ENGINES, "local", Played)
    Played.script, Played.looks = {cell.folder.name: script.get(cell.folder.name, ["done"]) for cell in made}, [0]
    swept = Sweep(source, made, folder, "local", Resources(9), publish=publish)
    for cell in made:
        p = cell.parameters
        merge_rows(
            cell.folder / "out" / "results.csv",
            [
                dict.fromkeys(HEADER, "")
                | dict(
                    figure="8",
                    dataset="digits",
                    model=p["model"],
                    metric="diversity",
                    preset=p.get("preset", "quick"),
                    seed=str(p["seed"]),
                    value=str(p["seed"] + 10 * (p["model"] == "maae")),
                    command=f"papermill -p seed {p['seed']}",
                )
            ],
        )
        for name in ("plain_digits.png", "table_digits.md", "plain_digits.txt", "another_digits.png"):
            (cell.folder / "out" / name).write_text(cell.name, encoding="utf-8")
    swept.run(lambda s: None, every=0)
    return swept


def test_the_summary_shows_means_over_seeds(tmp_path, plain, monkeypatch, capsys):
    swept = finished(tmp_path, plain, monkeypatch, ["model=ours,maae", "seed=1,2,6"])
    command = sweep.repeating_command(swept.notebook, ["model=ours,maae", "seed=1,2,6"], [("steps", "5")], True)
    assert command == "aae-prior sweep plain.ipynb --grid model=ours,maae seed=1,2,6 -p steps 5 --publish"
    assert report.summarise(swept, command) == 0
    with open(tmp_path / "summary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["value"], r["spread"], r["seeds"], r["seed"], r["command"]) for r in rows] == [
        ("ours", "3", "2.6", "3", "1;2;6", "papermill -p seed 1"),
        ("maae", "13", "2.6", "3", "1;2;6", "papermill -p seed 1"),
    ]
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert command in page and "| digits | ours | diversity | 3 | 2.6 | 3 |" in page and page.count("| done |") == 6
    assert "6 of 6 cells are done" in capsys.readouterr().out
    assert not any(read_json(cell.folder / "cell.json").get("published") for cell in swept.cells)


@pytest.fixture
def figures(tmp_path, monkeypatch):
    "The folder of published pictures and rows, with a row of seed 1 and a mean that is older than the column `seed`."
    monkeypatch.setattr(sweep, "project_root", lambda: tmp_path)
    (tmp_path / "figures").mkdir()
    row = dict.fromkeys(HEADER, "") | dict(
        figure="8", dataset="digits", metric="diversity", preset="quick", value="0.1"
    )
    merge_rows(
        tmp_path / "figures" / "results.csv",
        [row | dict(model="ours", seed="1"), row | dict(model="maae", seed="0;1;2")],
    )
    return tmp_path / "figures"


def published(figures):
    return [(r["model"], r["seed"], r["value"]) for r in read_rows(figures / "results.csv")]


def test_every_cell_is_published_under_its_own_seed(tmp_path, plain, monkeypatch, figures):
    finished(tmp_path, plain, monkeypatch, ["model=ours,maae", "seed=1,2"], publish=True)
    assert sorted(published(figures)) == [
        ("maae", "1", "11"),
        ("maae", "2", "12"),
        ("ours", "1", "1"),
        ("ours", "2", "2"),
    ]
    assert read_rows(figures / "results.csv")[0]["command"].endswith(" -p publish true")
    assert not list(figures.glob("*.png"))  # each cell has a part of it


def test_a_cell_that_is_done_is_published_while_another_fails(tmp_path, plain, monkeypatch, figures):
    swept = finished(
        tmp_path, plain, monkeypatch, ["seed=1,2,6"], [("model", "ours")], publish=True, **{"seed=2": ["failed"]}
    )
    assert report.summarise(swept, "aae-prior") == 1
    assert published(figures) == [("maae", "0;1;2", "0.1"), ("ours", "1", "1"), ("ours", "6", "6")]
    assert {
        path.name: path.read_text(encoding="utf-8")
        for path in figures.iterdir()
        if path.suffix in (".png", ".md", ".txt")
    } == {"plain_digits.png": "seed=1", "table_digits.md": "seed=1"}


def test_a_cell_is_published_as_soon_as_it_is_done_and_once(tmp_path, plain, monkeypatch, figures):
    made = checked_cells(read_notebook(plain), ["seed=1,2"], [("model", "ours")], tmp_path)
    monkeypatch.setitem(sweep.ENGINES, "local", Played)
    swept = finished(tmp_path, plain, monkeypatch, ["seed=1,2"], [("model", "ours")])  # done without --publish
    (made[1].folder / "cell.json").write_text(
        json.dumps(read_json(made[1].folder / "cell.json") | dict(state="waiting")), encoding="utf-8"
    )
    Played.script, Played.looks, seen = {"seed=2": ["done"]}, [5], []
    again = Sweep(swept.notebook, made, tmp_path, "local", Resources(1), publish=True)
    again.run(lambda s: seen.append((s.states["seed=2"], published(figures)[-1])), every=0)
    assert seen[0] == ("running", ("ours", "1", "1")) and seen[-1] == ("done", ("ours", "2", "2"))
    newer = read_rows(figures / "results.csv")[-1] | dict(value="0.2")  # published since then by other means
    merge_rows(figures / "results.csv", [newer])
    Sweep(swept.notebook, made, tmp_path, "local", Resources(1), publish=True).run(lambda s: None, every=0)
    assert published(figures)[-1] == ("ours", "2", "0.2")


def test_a_cell_whose_rows_were_displaced_is_published_again(tmp_path, plain, monkeypatch, figures):
    args = tmp_path, plain, monkeypatch, ["seed=1,2"], [("model", "ours")]
    swept = finished(*args, publish=True)
    before = published(figures)
    row = read_rows(figures / "results.csv")[-1]
    merge_rows(figures / "results.csv", [row | dict(seed="9", epochs="99")])  # of another training
    assert before != published(figures) and ("ours", "1", "1") not in published(figures)
    Sweep(swept.notebook, swept.cells, tmp_path, "local", Resources(1), publish=True).run(lambda s: None, every=0)
    assert published(figures) == before


def test_what_else_varies_stays_apart(tmp_path, plain, monkeypatch):
    swept = finished(tmp_path, plain, monkeypatch, ["steps=5,6", "seed=1,2"], [("model", "ours")])
    report.summarise(swept, "aae-prior")
    with open(tmp_path / "summary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["steps"], r["value"], r["seeds"]) for r in rows] == [("5", "1.5", "2"), ("6", "1.5", "2")]


def test_columns_of_results_that_vary_are_shown(tmp_path, plain, monkeypatch, capsys):
    notebook(plain, PARAMETERS.replace("seed:", "epochs: float = None  # passes\nseed:"), CHECK)
    swept = finished(tmp_path, plain, monkeypatch, ["epochs=1,5", "preset=quick,cpu", "seed=1,2"], [("model", "ours")])
    report.summarise(swept, "aae-prior")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(["epochs", "preset", "dataset", "model", "metric", "value", "spread", "seeds", "n"])
    assert [line[:3] for line in lines[at + 1 : at + 5]] == [
        [epochs, preset, "digits"] for epochs in "15" for preset in ("quick", "cpu")
    ]
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| epochs | preset | dataset |" in page and "| 5 | cpu | digits | ours | diversity | 1.5 |" in page


def test_the_table_is_drawn_over_itself_and_fits_the_terminal(tmp_path, plain, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "6")
    swept = finished(tmp_path, plain, monkeypatch, ["seed=1,2,3,4,5,6"], [("model", "ours")])
    swept.states["seed=6"], swept.records["seed=6"]["error"] = "failed", "ValueError: " + "long " * 20
    table = report.Screen()
    table(swept), table(swept)
    first, second = capsys.readouterr().out.split("\x1b[4F\x1b[J")  # four lines up, and clear
    assert first == second and max(map(len, first.splitlines())) < 30
    assert [line.split()[:2] for line in first.splitlines()] == [
        ["cell", "state"],
        ["seed=6", "failed"],
        ["seed=1", "done"],
        ["...", "and"],
    ]


# ---- runs and samples ----


@pytest.fixture(scope="module")
def labelled(runs_folder):
    "A run of a few steps on digits, its labels being conditions."
    return runs.fit(Config(preset="smoke", dataset="digits", seed=4711), progress=False)


def test_samples_are_the_models_own(labelled, tmp_path, capsys):
    arrays, again, picture = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "a.png"
    name = labelled.dir.name[:-4]
    for to in (arrays, again, picture):
        assert main(["sample", name, "--labels", "3,8", "--rows", "5", "--seed", "2", "--to", str(to)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(arrays), str(again), str(picture)]
    z = sample_noise(labelled.config, 5, 2, 10).repeat_interleave(2, 0)
    images = quantise(generate(labelled.nets, z, torch.eye(10)[[3, 8]].repeat(5, 1))).unflatten(0, (5, 2))
    with np.load(arrays) as a, np.load(again) as b:
        assert np.array_equal(a["images"], images) and a["codes"].shape == (5, 2, 64) and a["labels"].tolist() == [3, 8]
        assert all(np.array_equal(a[k], b[k]) for k in a.files)
    assert np.asarray(Image.open(picture).convert("L")).std() > 1


def test_an_interpolation_goes_straight_from_code_to_code(labelled):
    drawn = samples.draw_samples(labelled, rows=3, labels=[3, 8], seed=1, interpolate=5)
    codes = drawn["codes"]
    assert drawn["images"].shape == (3, 5, 1, 32, 32)
    assert torch.allclose(codes[:, 2], (codes[:, 0] + codes[:, 4]) / 2, atol=1e-6)
    ends = generate(labelled.nets, drawn["z"].flatten(0, 1), torch.eye(10)[[3, 8]].repeat(3, 1)).unflatten(0, (3, 2))
    assert torch.allclose(drawn["images"][:, [0, 4]], ends, atol=1e-5)


def test_without_labels_every_image_has_its_own_noise(tmp_path):
    run = runs.fit(
        Config(preset="smoke", dataset="digits", condition="none", model="aae", steps=1), root=tmp_path, progress=False
    )
    drawn = samples.draw_samples(run, rows=2, labels=samples.label_numbers(run, ""))
    assert drawn["images"].shape[:2] == (2, 8) and len(torch.unique(drawn["z"].flatten(0, 1), dim=0)) == 16
    with pytest.raises(ValueError, match="labels = '3': the run has condition none"):
        samples.label_numbers(run, "3")


def test_samples_of_sentences_want_the_embeddings_of_the_training(tmp_path, monkeypatch):
    run = SimpleNamespace(
        dir=tmp_path,
        config=SimpleNamespace(condition="text", dataset="digits"),
        record=dict(data=dict(fingerprint="a")),
    )
    for fingerprint in "ab":
        monkeypatch.setattr(
            samples,
            "prepare_data",
            lambda config: SimpleNamespace(fingerprint=fingerprint, s_train=torch.arange(16)[:, None]),
        )
        if fingerprint == "a":
            assert samples.sample_conditions(run, []).flatten().tolist() == list(range(0, 16, 2))
    with pytest.raises(ValueError, match="trained with other sentence embeddings than those made here"):
        samples.sample_conditions(run, [])


def test_sample_refuses_in_one_line(labelled, tmp_path, capsys):
    for words, line in [
        (["nothing"], "no such run folder"),
        ([""], "runs begin so"),
        ([labelled.dir.name, "--labels", "3,eleven"], "labels = 'eleven': the run has 0, 1"),
        ([labelled.dir.name, "--to", "a.jpg"], "must end in .png"),
        ([labelled.dir.name, "--interpolate", "1"], "give 2 or more"),
        ([labelled.dir.name, "--device", "cuda:77"], "not on this machine"),
    ]:
        if line == "runs begin so":
            runs.fit(labelled.config.replace(steps=1), progress=False)  # a second run
        assert main(["sample", *words]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and line in said[0], said


def test_runs_are_listed_with_settings_state_and_newest_figures(tmp_path, capsys):
    config = Config(preset="smoke", dataset="digits", steps=6, lr=1e-3)
    runs.fit(config, root=tmp_path, progress=False)
    part = runs.fit(config.replace(seed=3), root=tmp_path, progress=False, until=2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text("{", encoding="utf-8")
    assert main(["runs", "--root", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "damaged" in lines["bad"] and "step 2 of 6" in lines[part.dir.name] and "seed 3" in lines[part.dir.name]
    (whole,) = [line for name, line in lines.items() if name.startswith("digits") and name != part.dir.name]
    assert "complete" in whole and "lr 0.001" in whole and "diversity " in whole and "L_rec " in whole
    assert main(["runs", "--root", str(tmp_path / "none")]) == 0 and "no runs in" in capsys.readouterr().out


# ---- what one sees of a training ----


@pytest.fixture
def clock(monkeypatch):
    "Time that passes when told so."
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


@pytest.mark.parametrize("hours, least, most", [(1 / 60, 15, 25), (1, 50, 90), (24, 90, 140), (24 * 7, 100, 170)])
def test_a_log_stays_short_however_long_the_training(clock, hours, least, most):
    pace, lines = progress.Pace(), 0
    while clock.seconds < 1000 + 3600 * hours:
        lines += pace.due()
        clock.seconds += 1
    assert least <= lines <= most


def test_a_sweeps_log_shows_every_running_cell_and_stays_short(clock, monkeypatch, capsys):
    def seconds():
        return int(clock.seconds)

    monkeypatch.setattr(
        report,
        "state_rows",
        lambda _: [
            (f"seed={i}", "running", "1", "0:01", f"ours on digits: step {seconds() + i}/99999") for i in range(6)
        ],
    )
    log = report.Log()
    while clock.seconds < 1000 + 4 * 3600:
        log(None)
        clock.seconds += 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 200 and all(
        sum(f"seed={i}: ours on digits: step" in line for line in lines) >= 10 for i in range(6)
    )


def test_a_running_cell_says_where_its_training_is(tmp_path, plain):
    cell = sweep.Cell("seed=0", tmp_path, {})
    assert report.running_line(cell, plain) == ""
    at = dict(
        title="ours on digits: step",
        step=3,
        steps=60,
        epoch="epoch 0.14",
        losses="L_rec 5.2",
        speed="79 images/s",
        left="00:24 left",
    )
    (tmp_path / "progress").write_text(
        json.dumps(at | dict(step=2)) + "\n" + json.dumps(at) + "\n" + '{"title": "ou', encoding="utf-8"
    )
    assert (
        report.running_line(cell, plain) == "ours on digits: step 3/60  79 images/s  00:24 left  epoch 0.14  L_rec 5.2"
    )


# As somebody types it, since it is the terminal that decides.
RUN = "import sys; from aae_prior.cli import main; sys.exit(main(sys.argv[1:]))"
SAYS = """import json, os, time
for i in range(1, 41):
    at = dict(title="ours on digits: step", step=i, steps=40, epoch="epoch 0.1")
    at |= dict(losses="L_rec 2", speed="79 images/s", left="00:01 left")
    with open(os.environ["AAE_PRIOR_PROGRESS"], "a") as file: file.write(json.dumps(at) + "\\n")
    time.sleep(0.05)"""


def typed(path, *words):
    "The command line `aae-prior run` on the notebook `path`."
    return [sys.executable, "-c", RUN, "run", str(path), str(path.parent / "made" / "executed.ipynb"), *words]


def test_a_training_shows_in_a_log(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path / "runs"))
    command = typed(
        notebook(tmp_path / "trains.ipynb", *TRAINS),
        "-p",
        "preset",
        "smoke",
        "-p",
        "steps",
        "40",
        "-p",
        "batch_size",
        "8",
        "-p",
        "eval_every",
        "40",
        "-p",
        "out_dir",
        str(tmp_path / "out"),
    )
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        assert subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode == 0
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if "ours on digits: step" in line]
    assert len(lines) < 200 and len(shown) >= 2
    assert (
        all(" images/s  " in line and "/40  " in line for line in shown)
        and " left  epoch" in shown[0]
        and "L_rec" in shown[-1]
        and "40/40" in shown[-1]
        and "done" in shown[-1]
    )
    assert (tmp_path / "made" / "executed.ipynb").is_file() and read_rows(tmp_path / "out" / "results.csv")


@pytest.mark.skipif(os.name != "posix", reason="no pseudo-terminal")
def test_a_training_shows_as_a_bar_in_a_terminal(tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    command = typed(notebook(tmp_path / "says.ipynb", PARAMETERS, SAYS))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    process = subprocess.Popen(command, env=os.environ | dict(TERM="xterm"), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break  # the other end is closed
        if not part:
            break
        said += part
    os.close(ours)
    said = said.decode("utf-8")
    assert process.wait() == 0
    assert (
        "Executing:" in said and "ours on digits: step 40/40 |\u2588" in said and "images/s" in said and "L_rec" in said
    )


def test_a_run_that_fails_says_why_in_one_line(tmp_path, capsys):
    path = notebook(tmp_path / "fails.ipynb", PARAMETERS, CHECK)
    assert main(["run", str(path), str(tmp_path / "made.ipynb"), "-p", "steps", "0"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said
        == f"SettingError: steps = 0: must be at least 1 and at most 1000000000; notebook: {tmp_path / 'made.ipynb'}"
    )
    assert (
        main(["run", str(tmp_path / "none.ipynb")]) == 2 and "none.ipynb: no such notebook" in capsys.readouterr().err
    )
    assert main(["run", str(path), str(tmp_path / "made.ipynb"), "--no-such-word"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("'--no-such-word'; papermill --help lists the options")


def test_a_cell_publishes_its_rows_and_the_pictures_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("aae_prior.sweep.project_root", lambda: tmp_path)
    (tmp_path / "figures").mkdir()
    cell = sweep.Cell("all", tmp_path / "cell", {})
    (cell.folder / "out").mkdir(parents=True)
    row = dict.fromkeys(HEADER, "") | dict(
        figure="8", metric="diversity", value="0.9", seed="0", command="papermill nbs/a.ipynb out/a.ipynb"
    )
    merge_rows(cell.folder / "out" / "results.csv", [row])
    for name in ("a_digits.png", "a_digits_other.png", "table.md"):
        (cell.folder / "out" / name).write_bytes(name.encode())
    assert sorted(sweep.picture_names(cell, "a")) == ["a_digits.png", "a_digits_other.png", "table.md"]
    sweep.publish_cell(cell, ["a_digits.png"])
    assert sorted(path.name for path in (tmp_path / "figures").glob("[!.]*")) == ["a_digits.png", "results.csv"]
    [published] = read_rows(tmp_path / "figures" / "results.csv")
    assert published["value"] == "0.9" and published["command"].endswith("-p publish true")


def test_table_1_is_drawn_anew_from_the_rows_of_all_seeds(tmp_path, monkeypatch):
    for module in ("sweep", "table1"):
        monkeypatch.setattr(f"aae_prior.{module}.project_root", lambda: tmp_path)
    (tmp_path / "figures").mkdir()
    facts = dict(figure="Table 1", dataset="digits", metric="inception_score", n="200", extractor="classifier(digits)")
    facts |= dict(preset="quick", epochs="1", command="papermill nbs/table1_inception_score.ipynb out/x.ipynb")
    for seed, scores in enumerate((dict(ours="7", maae="6.5"), dict(ours="8", maae="6.5"))):
        cell = sweep.Cell(f"seed={seed}", tmp_path / f"seed={seed}", {})
        claims = {model: "generation: a learned prior scores higher" for model in scores}
        claims["real test images"] = "the score of real images"
        rows = [
            dict.fromkeys(HEADER, "")
            | facts
            | dict(model=model, claim=claim, value=scores.get(model, "9"), seed=str(seed))
            for model, claim in claims.items()
        ]
        merge_rows(cell.folder / "out" / "results.csv", rows)
        sweep.publish_cell(cell, [])
    text = (tmp_path / "figures" / "table1_digits.md").read_text(encoding="utf-8")
    assert "| generation | `ours` | 2 | 7.500 ± 0.71 | 83.3% |" in text
    assert "| generation | gap |  | 1.000 ± 0.71 |  |" in text
    assert (tmp_path / "figures" / "table1_inception_score_digits.png").is_file()
