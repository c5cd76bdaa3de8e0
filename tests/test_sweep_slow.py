"""Real sweeps: processes of this machine and a Slurm of one node, with kills, pre-emption, and a sweep that dies."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from sweep_notebooks import TRAINS, notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # a busy machine is no failure

CLUSTER = Path(__file__).with_name("slurm") / "cluster.sh"
GRID = [
    "--grid",
    "model=ours,maae",
    "seed=0,1,2",
    "-p",
    "preset",
    "smoke",
    "-p",
    "steps",
    "30",
    "-p",
    "eval_every",
    "3",
]
MISSING = [
    name
    for name in ("munged", "slurmctld", "slurmd", "sbatch")
    if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
]


def sweep(folder, *words, source=TRAINS, **how):
    "Start `aae-prior sweep` on a notebook in `folder`, with `how` of subprocess.Popen; everything it makes lies there."
    path = folder / "trains.ipynb"
    if not path.exists():
        notebook(path, *source)  # the same file when the same command comes again
    env = os.environ | dict(AAE_PRIOR_RUNS=str(folder / "runs"), PYTHONUNBUFFERED="1")
    command = [
        sys.executable,
        "-c",
        "import sys; from aae_prior.cli import main; sys.exit(main())",
        "sweep",
        str(path),
        "--out",
        str(folder / "sweep"),
        *words,
    ]
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


def record(folder, cell):
    "What a cell says of itself, {} where it says nothing yet."
    path = folder / "sweep" / "cells" / cell / "cell.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def until(condition, process=None, seconds=1500):
    "Wait until `condition()` holds; its value."
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "timed out"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)
    return value


def training(folder, cell):
    "Process number of the worker of `cell` once its run has a checkpoint and is not complete, else None."
    says = record(folder, cell)
    if says.get("state") != "running":
        return None
    model, seed = (word.partition("=")[2] for word in cell.split(","))
    for path in (folder / "runs").glob(f"*-{model}-*/record.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["config"]["seed"] == int(seed) and not run["complete"] and list(path.parent.glob("checkpoints/*.pt")):
            return says["starts"][-1]["pid"]


def ended(process, seconds=1500):
    "Output of a sweep that ended well."
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return out


def assert_ran_once(folder, again):
    """Every cell is done and started once, those of `again` twice.

    Their runs went on from a checkpoint, and no run was trained twice."""
    cells = {p.name: record(folder, p.name) for p in (folder / "sweep" / "cells").iterdir()}
    assert len(cells) == 6 and {c["state"] for c in cells.values()} == {"done"}
    assert {name: len(c["starts"]) for name, c in cells.items()} == {name: 2 if name in again else 1 for name in cells}
    assert all((folder / "sweep" / "cells" / name / "trains.ipynb").is_file() for name in cells)
    runs = [json.loads(p.read_text(encoding="utf-8")) for p in (folder / "runs").glob("digits-*/record.json")]
    assert len(runs) == 6 and all(run["complete"] for run in runs)
    sittings = {
        f"model={r['config']['model']},seed={r['config']['seed']}": [s["first_step"] for s in r["sittings"]]
        for r in runs
    }
    print({name: sittings[name] for name in again})
    assert all(
        len(first) == (2 if name in again else 1) and first[-1] >= (3 if name in again else 0)
        for name, first in sittings.items()
    )


def numbers(folder):
    "The merged rows without what depends on clock and machine."
    with open(folder / "sweep" / "summary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(
        (r["seeds"], r["seed"]) == ("3", "0;1;2") and float(r["spread"]) > 0 and r["command"].startswith("papermill")
        for r in rows
    )
    return [{k: v for k, v in r.items() if k not in ("wall_time", "hardware", "command")} for r in rows]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    "The sweep through processes: one worker is killed, another is told that its time is over."
    folder = tmp_path_factory.mktemp("local")
    process = sweep(folder, *GRID, "--jobs", "3")
    os.kill(until(lambda: training(folder, "model=ours,seed=1"), process), signal.SIGKILL)
    os.kill(until(lambda: training(folder, "model=maae,seed=0"), process), signal.SIGUSR2)
    out = ended(process)
    assert "model=ours,seed=1: running again (start 2)" in out and "6 of 6 cells are done" in out
    return folder


def test_a_sweep_of_processes_survives_a_kill_and_a_preemption(local):
    assert_ran_once(local, {"model=ours,seed=1", "model=maae,seed=0"})
    before = {
        p: p.stat().st_mtime_ns
        for p in local.rglob("*")
        if p.name in ("cell.json", "trains.ipynb", "weights.safetensors")
    }
    ended(sweep(local, *GRID))  # the same command again has nothing to do
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.fixture(scope="module")
def slurm():
    "A Slurm of one node."
    if MISSING:
        pytest.skip(f"no Slurm here: {', '.join(MISSING)} not found (apt-get install munge slurm-wlm)")
    folder = Path(tempfile.mkdtemp())  # not pytest's, which others may not enter: munge insists that they can
    started = subprocess.run([CLUSTER, "start", folder], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.stdout.strip())
        yield folder
        subprocess.run([CLUSTER, "stop", folder], check=True)
    shutil.rmtree(folder)


def test_slurm_gives_the_same_numbers_through_kills_of_worker_and_sweep(slurm, local, tmp_path):
    words = [*GRID, "--jobs", "3", "--cluster", "slurm", "--minutes", "60"]
    first = sweep(tmp_path, *words)
    until(lambda: (tmp_path / "sweep" / "jobs.json").exists(), first)
    first.kill()  # the queue goes on without it
    first.communicate()
    process = sweep(tmp_path, *words)
    os.kill(until(lambda: training(tmp_path, "model=ours,seed=1"), process), signal.SIGKILL)
    pid = until(lambda: training(tmp_path, "model=maae,seed=0"), process)
    job = record(tmp_path, "model=maae,seed=0")["starts"][-1]["job"]
    scancel = subprocess.Popen(
        ["scancel", "--signal=USR2", job]
    )  # asks again for a minute where the job is back in the queue by then,
    until(lambda: not Path(f"/proc/{pid}").exists(), process)  # and would signal its next start as well
    scancel.kill()
    scancel.wait()
    most = 0
    while process.poll() is None:
        running = subprocess.run(
            ["squeue", "--noheader", "--array", "--states=running"], capture_output=True, text=True
        ).stdout
        most = max(most, len(running.splitlines()))
        time.sleep(1)
    ended(process)
    assert most <= 3
    assert_ran_once(tmp_path, {"model=ours,seed=1", "model=maae,seed=0"})
    assert (
        record(tmp_path, "model=maae,seed=0")["starts"][1]["job"] == job
    )  # put back into the queue, not submitted again
    assert numbers(tmp_path) == numbers(local)


def test_slurm_refuses_in_one_line(slurm, tmp_path):
    process = sweep(tmp_path, "--grid", "seed=0,1", "--cluster", "slurm", "--slurm", "partition=nowhere")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 2 and len(err.splitlines()) == 1 and "sbatch refuses" in err and "partition" in err


def test_a_cell_that_fails_is_named_and_the_others_complete(tmp_path):
    process = sweep(tmp_path, "--grid", "batch_size=32,2000", "-p", "preset", "smoke", "--jobs", "3")
    out, err = process.communicate(timeout=1500)
    cell = tmp_path / "sweep" / "cells" / "batch_size=2000"
    error = "SettingError: batch_size = 2000: larger than the 1437 training images; give at most that"
    line = f"batch_size=2000 failed: {error}; notebook: {cell / 'trains.ipynb'}"
    assert process.returncode == 1 and err.splitlines() == [line] and "1 of 2 cells are done" in out
    assert line in (tmp_path / "sweep" / "summary.md").read_text(encoding="utf-8")
    assert "larger than the 1437" in (cell / "trains.ipynb").read_text(encoding="utf-8")
    assert record(tmp_path, "batch_size=32")["state"] == "done"


def ignore_interrupts():
    "What a script's shell does to a command it starts with `&`."
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("started", [None, ignore_interrupts], ids=["foreground", "background"])
def test_local_jobs_end_with_their_sweep(tmp_path, started):
    process = sweep(
        tmp_path,
        "--grid",
        "model=ours",
        "seed=0",
        "-p",
        "preset",
        "smoke",
        "-p",
        "steps",
        "100000",
        "-p",
        "eval_every",
        "20",
        preexec_fn=started,
    )
    pid = until(lambda: training(tmp_path, "model=ours,seed=0"), process)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "rerun the command to resume" in err.splitlines()[-1]
    until(lambda: not Path(f"/proc/{pid}").exists(), seconds=30)
