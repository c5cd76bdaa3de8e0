"""The paper notebooks as a user runs them: papermill, the smoke preset, any working directory, and parameters that cannot be honoured."""
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAPER = sorted(p for p in (ROOT / "nbs").glob("*.ipynb") if p.name[:2].isalpha() and p.stem != "index")


def papermill(notebook, folder, *words, cwd=None, **environment):
    "Run a notebook with `-p` words (name, value, ...); its pictures and runs lie under `folder`"
    given = [w for name, value in zip(words[::2], words[1::2]) for w in ("-p", name, str(value))]
    env = os.environ | dict(AAE_PRIOR_RUNS=str(folder / "runs"), AAE_PRIOR_DATA=str(folder / "data"), OMP_NUM_THREADS="1") | environment
    command = [sys.executable, "-m", "papermill", str(ROOT / "nbs" / f"{notebook}.ipynb"), str(folder / "out.ipynb"), "-p", "out_dir", str(folder / "pictures"), *given]
    return subprocess.run(command, cwd=cwd or folder, env=env, capture_output=True, text=True, timeout=580)


def snapshot(folder): return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize("notebook", [p.stem for p in PAPER])
def test_runs_from_top_to_bottom_from_any_folder(notebook, tmp_path):
    figures = snapshot(ROOT / "figures")
    declared = (ROOT / "nbs" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    run = papermill(notebook, tmp_path, *(["preset", "smoke"] if '"preset: str' in declared else []))
    assert run.returncode == 0, run.stderr[-2000:]
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert pictures, "no picture was written"
    for picture in pictures: assert np.asarray(Image.open(picture).convert("L")).std() > 5, f"{picture.name} is flat"
    assert snapshot(ROOT / "figures") == figures
    assert "Unknown" not in run.stderr and len(run.stderr.splitlines()) < 200


def test_figure_8_gives_its_rows_and_trains_nothing_twice(tmp_path):
    assert papermill("fig8_supervised", tmp_path, "preset", "smoke").returncode == 0
    rows = list(csv.DictReader((tmp_path / "pictures" / "results.csv").open(encoding="utf-8")))
    assert [(r["model"], r["metric"]) for r in rows] == [(m, k) for m in ("ours", "maae") for k in ("label_consistency", "diversity")]
    assert all(r["preset"] == "smoke" and r["n"] == "200" and r["command"].endswith("-p preset smoke") for r in rows)
    weights = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("weights.safetensors")}
    picture = tmp_path / "pictures" / "fig8_supervised_digits.png"
    first = picture.read_bytes()
    ours = next(p.parent for p in weights if "ours" in p.parent.name)
    again = papermill("fig8_supervised", tmp_path, "preset", "smoke")
    assert again.returncode == 0 and picture.read_bytes() == first                      # same seed, same pixels
    assert papermill("fig8_supervised", tmp_path, "run_dir", ours, "n_eval", 20).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("weights.safetensors")} == weights


def broken_folder(folder):
    "A folder of images, one of them unreadable"
    for label in "ab":
        (folder / "set" / label).mkdir(parents=True)
        for i in range(40): Image.fromarray(np.full((8, 8), 6 * i, np.uint8)).save(folder / "set" / label / f"{i}.png")
    (folder / "set" / "b" / "7.png").write_bytes(b"no picture")
    return folder / "set"


def skipped_class(folder):
    "Arrays whose labels are 0 and 2"
    path = folder / "gap.npz"
    np.savez(path, x_train=np.zeros((80, 8, 8), np.uint8), y_train=np.arange(80) % 2 * 2)
    return path


BAD = {
    "unknown name": (("epcohs", 3), "epcohs = 3: unknown parameter; did you mean epochs?"),
    "unknown data set": (("dataset", "imagenet"), "dataset = 'imagenet': must be one of digits, mnist"),
    "no epochs": (("epochs", 0), "epochs = 0: must be > 0"),
    "batch larger than the data": (("batch_size", 4000), "batch_size = 4000: larger than the 1437 training images"),
    "no such device": (("device", "cuda"), "device = 'cuda': not on this machine"),
    "no such run": (("run_dir", "nowhere"), "run_dir = 'nowhere': no such folder"),
    "unreadable image": (("dataset", broken_folder), "7.png"),
    "labels skip a class": (("dataset", skipped_class), "gap.npz"),
    "data that are nowhere": (("dataset", "mnist"), "mnist.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_honoured_is_refused_in_one_line(case, tmp_path):
    (name, value), line = BAD[case]
    if case == "no such device":
        import torch
        if torch.cuda.is_available(): pytest.skip("this machine has CUDA")
    offline = dict(HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    run = papermill("fig8_supervised", tmp_path, name, value(tmp_path) if callable(value) else value, **offline)
    assert run.returncode != 0
    said = [l for l in run.stderr.splitlines() if line in l]
    assert said, run.stderr[-1500:]
    assert not (tmp_path / "pictures").exists() and not list(tmp_path.glob("runs/*label*"))
