"""Runs made small: what is kept, what is said, and figures from them where the data are not at hand."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aae_prior import pretrained
from aae_prior.batches import sample_noise
from aae_prior.cli import main
from aae_prior.config import Config
from aae_prior.results import HEADER, about, read_rows
from aae_prior.runs import fit, load
from aae_prior.sampling import classify, encode, generate, reconstruct

ROOT = Path(__file__).resolve().parents[1]
KEPT = sorted(path.parent for path in (ROOT / "pretrained").glob("*/record.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    return fit(Config(preset="smoke", steps=12), root=folder, progress=False)


def images(run):
    return generate(run.nets, sample_noise(run.config, 20, condition_dim=10), torch.eye(10).repeat(2, 1))


def test_the_same_images_from_half_the_bits(run, tmp_path):
    small = load(pretrained.export(run, tmp_path / "small"))
    kernels = [p for p in small.nets.parameters() if p.ndim > 1]
    assert kernels and all(torch.equal(p, p.bfloat16().float()) for p in kernels)
    assert 0 < (images(run) - images(small)).abs().max() < 0.05
    assert (
        small.complete
        and small.step == run.step
        and small.history == run.history
        and list(small.frames) == list(run.frames)
    )
    assert all(torch.equal(small.frames[i], frame[:20]) for i, frame in run.frames.items())
    whole, half = ((r.dir / "weights.safetensors").stat().st_size for r in (run, small))
    assert half < whole / 4


def test_what_is_not_kept_is_named(run, tmp_path):
    small = load(pretrained.export(run, tmp_path / "a", ["dec", "CG"]))
    x = images(run)
    for use, name in ((encode, "enc"), (reconstruct, "enc"), (classify, "D_I")):
        with pytest.raises(ValueError, match=f"no {name} here"):
            use(small.nets, x)
    more = load(pretrained.export(run, tmp_path / "b", ["dec", "CG", "enc", "D_I"]))
    assert (encode(more.nets, x) - encode(run.nets, x)).abs().max() < 0.1
    assert (classify(more.nets, x) - classify(run.nets, x)).abs().max() < 0.1


def test_exports_that_are_refused(run, folder, tmp_path):
    with pytest.raises(ValueError, match="has no decoder; it has enc, dec, CG, D_I, D_C"):
        pretrained.export(run, tmp_path / "a", ["decoder"])
    half = fit(Config(preset="smoke", seed=1), root=folder, progress=False, until=2)
    with pytest.raises(ValueError, match="at step 2 of 4"):
        pretrained.export(half, tmp_path / "b")
    small = load(pretrained.export(run, tmp_path / "c"))
    with pytest.raises(ValueError, match="export itself"):
        pretrained.export(small, tmp_path / "d")
    aae = fit(Config(preset="smoke", model="aae"), root=folder, progress=False)
    with pytest.raises(ValueError, match="has no D_I; it has enc, dec, CG, D_C"):
        pretrained.export(aae, tmp_path / "e", ["dec", "D_I"])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_run_is_not_exported_over(run, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(folder))
    other = fit(Config(preset="smoke", seed=1), root=tmp_path, progress=False, until=2)
    for there in (run.dir, other.dir):
        before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
        assert main(["export", str(run.dir), "--to", str(there)]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{there} is the folder of a run" in said and "give another folder" in said
        assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    small = pretrained.export(run, tmp_path / "small")
    assert (
        pretrained.export(run, small, ["dec", "CG", "enc"]) == small and load(small).nets.enc is not None
    )  # an export may be replaced


@pytest.mark.parametrize("names, missing", [(["enc"], "dec"), (["dec"], "CG"), (["CG"], "dec")])
def test_nothing_is_drawn_without_the_networks_that_draw(run, tmp_path, capsys, names, missing):
    small = pretrained.export(run, tmp_path / "small", names)
    assert main(["sample", str(small), "--to", str(tmp_path / "a.png")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"nothing can be drawn from {small}: it has no {missing}, only {names[0]}" in said
    with pytest.raises(ValueError, match=f"it has no {missing}, only {names[0]}"):
        fit(Config(run_dir=str(small)))


def test_the_card_shows_the_rows_of_its_own_run_alone(run, tmp_path):
    row = dict.fromkeys(HEADER, "x") | dict(dataset="digits", model="ours", seed="0", value="0.123") | about(run)
    rows = [
        row,
        row | dict(value="0.456", wall_time="another run's"),
        row | dict(value="0.789", model="maae"),
        row | dict(value="0.987", seed="1"),
    ]
    said = (pretrained.export(run, tmp_path / "a", rows=rows) / "README.md").read_text(encoding="utf-8")
    assert "0.123" in said and "0.456" not in said and "0.789" not in said and "0.987" not in said and "seed 0" in said
    assert [kept["value"] for kept in read_rows(tmp_path / "a" / "results.csv")] == ["0.123"]


def test_the_command(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(run.dir.parent))
    assert main(["export", run.dir.name, "--to", str(tmp_path / "a"), "--networks", "dec, CG"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a")
    assert main(["export", run.dir.name, "--to", str(tmp_path / "b"), "--networks", "dec,cg"]) == 2
    assert "has no cg" in capsys.readouterr().err and not (tmp_path / "b").exists()


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_every_pretrained_folder_is_whole_and_its_card_true(kept):
    record, card = (
        json.loads((kept / "record.json").read_text(encoding="utf-8")),
        (kept / "README.md").read_text(encoding="utf-8"),
    )
    assert (
        hashlib.sha256((kept / "weights.safetensors").read_bytes()).hexdigest() == record["weights_sha256"]
        and record["weights_sha256"] in card
    )
    run = load(kept)
    rows = read_rows(kept / "results.csv")
    assert rows and pretrained.measured_with(run, rows) == rows and pretrained.card(run, record, rows) == card
    assert images(run).std() > 0.1


def test_all_pretrained_weights_are_small_together():
    assert KEPT and sum(path.stat().st_size for folder in KEPT for path in folder.rglob("*")) < 16e6


@pytest.mark.parametrize(
    "notebook, kept, ends",
    [
        ("fig8_supervised", "mnist-label-ours", True),
        pytest.param("fig9_supervised_codes", "mnist-label-ours", False, marks=pytest.mark.slow),
        ("fig11_unsupervised", "mnist-category-maae", True),
    ],
)
def test_figures_without_the_data(notebook, kept, ends, tmp_path):
    env = os.environ | dict(
        AAE_PRIOR_DATA=str(tmp_path / "nothing"), AAE_PRIOR_RUNS=str(tmp_path / "runs"), OMP_NUM_THREADS="1"
    )
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "nbs" / f"{notebook}.ipynb"),
        str(tmp_path / "out.ipynb"),
        "-p",
        "out_dir",
        str(tmp_path / "pictures"),
        "-p",
        "run_dir",
        str(ROOT / "pretrained" / kept),
        "-p",
        "n_eval",
        "40",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "pictures" / f"{notebook}_mnist.png").stat().st_size > 10_000
    assert ("The notebook ends here" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")) == ends
    assert (tmp_path / "pictures" / "results.csv").exists() != ends
    assert not (tmp_path / "runs").exists() and not (tmp_path / "nothing").exists()
