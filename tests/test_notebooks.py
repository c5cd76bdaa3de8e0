"""The paper notebooks as a user runs them.

With papermill and the smoke preset, from any working directory, and with parameters that cannot be honoured.
"""

import csv
import functools
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from aae_prior import runs, table1
from aae_prior.config import Config

ROOT = Path(__file__).resolve().parents[1]
PAPER = sorted(
    p for p in (ROOT / "nbs").glob("*.ipynb") if p.name[:2].isalpha() and p.stem not in ("index", "benchmark", "trials")
)  # test_benchmark.py runs that one


def papermill(notebook, folder, *words, cwd=None, **environment):
    "Run a notebook with `-p` words (name, value, ...); its pictures and runs lie under `folder`"
    given = [w for name, value in zip(words[::2], words[1::2]) for w in ("-p", name, str(value))]
    env = (
        os.environ
        | dict(AAE_PRIOR_RUNS=str(folder / "runs"), AAE_PRIOR_DATA=str(folder / "data"), OMP_NUM_THREADS="1")
        | environment
    )
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "nbs" / f"{notebook}.ipynb"),
        str(folder / "out.ipynb"),
        "-p",
        "out_dir",
        str(folder / "pictures"),
        *given,
    ]
    return subprocess.run(command, cwd=cwd or folder, env=env, capture_output=True, text=True, timeout=580)


def snapshot(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    "A folder whose runs all notebooks share, as a user's do, with the classifier that most of them ask for"
    from aae_prior.config import Config
    from aae_prior.runs import classifier_of, prepare_data

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"  # one for all of xdist's workers
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        classifier_of(prepare_data(Config(preset="smoke")), folder / "runs")
    return folder


@pytest.fixture(scope="session")
def real_in_the_place_of_the_authors(shared):
    """A folder as the authors' repository has it, but the images are real digits

    A column for each label, with two black pixels around each image.
    """
    from aae_prior.data import load
    from aae_prior.plots import to_pixels

    data = load("digits")
    columns = [data.images((data.y_test == k).nonzero().flatten()[:10], "test") for k in range(10)]
    picture = np.zeros((342, 342, 3), np.uint8)
    for k, images in enumerate(columns):
        for i, image in enumerate(to_pixels(images)):
            picture[2 + 34 * i : 34 + 34 * i, 2 + 34 * k : 34 + 34 * k] = image
    folder = shared / "figure" / "digits"
    with FileLock(shared / "lock"):
        folder.mkdir(parents=True, exist_ok=True)
        for model in ("ours", "maae"):
            Image.fromarray(picture).save(folder / f"{model}_supervised.png")
    return folder.parent


@pytest.fixture(scope="session")
def smoke(shared, real_in_the_place_of_the_authors):
    """Function of a notebook's name: run it once with the smoke preset; (outputs, pictures, warnings of papermill)

    Papermill runs in this process, which saves its start. What one process has run, the others read.
    """

    def execute(notebook, folder):
        import papermill

        logger, said = logging.getLogger("papermill"), io.StringIO()
        handler = logging.StreamHandler(said)
        handler.setLevel(logging.WARNING)
        given = dict(out_dir=str(folder / "pictures")) | PARAMETERS.get(notebook, dict(preset="smoke"))
        if notebook == "authors_pictures":
            given["pictures"] = str(real_in_the_place_of_the_authors)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in dict(
                AAE_PRIOR_RUNS=shared / "runs", AAE_PRIOR_DATA=shared / "data", OMP_NUM_THREADS=1
            ).items():
                patch.setenv(name, str(value))
            logger.addHandler(handler)
            try:
                papermill.execute_notebook(
                    ROOT / "nbs" / f"{notebook}.ipynb", folder / "out.ipynb", given, cwd=folder, progress_bar=False
                )
            finally:
                logger.removeHandler(handler)
        (folder / "warnings.txt").write_text(said.getvalue(), encoding="utf-8")

    @functools.cache
    def run(notebook):
        folder = shared / notebook
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):
            if not (folder / "warnings.txt").exists():
                execute(notebook, folder)
        cells = json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))["cells"]
        outputs = [out for cell in cells for out in cell.get("outputs", [])]
        return outputs, folder / "pictures", (folder / "warnings.txt").read_text(encoding="utf-8")

    return run


# What a notebook is given beside the defaults; without an entry it is preset smoke.
PARAMETERS = {
    "architecture_figures": {},
    "tables2_4_architectures": {},
    "ablations": dict(preset="smoke", only="lam 10,F: first layer"),
    "beyond_priors": dict(preset="smoke", seeds=2),
    "stability": dict(preset="smoke", seeds=2, only="hinge,last weights"),
    "table1_inception_score": dict(preset="smoke", extractors="classifier,inception", inception_weights="nowhere.pth"),
}


LONG = ("ablations", "beyond_priors", "fig6_high_dimensional", "stability")  # many trainings each
slow_if_long = [pytest.param(p.stem, marks=pytest.mark.slow if p.stem in LONG else ()) for p in PAPER]


@pytest.mark.parametrize("notebook", slow_if_long)
def test_runs_from_top_to_bottom_from_any_folder(notebook, smoke):
    figures = snapshot(ROOT / "figures")
    outputs, folder, warnings = smoke(notebook)
    pictures = list(folder.glob("*.png"))
    assert pictures, "no picture was written"
    for picture in pictures:
        assert np.asarray(Image.open(picture).convert("L")).std() > 5, f"{picture.name} is flat"
    assert snapshot(ROOT / "figures") == figures
    assert "nknown" not in warnings
    assert sum(len("".join(out["text"]).splitlines()) for out in outputs if out["output_type"] == "stream") < 200


@pytest.mark.parametrize(
    "notebook",
    [
        "fig5_generation",
        pytest.param("fig6_high_dimensional", marks=pytest.mark.slow),
        "fig8_supervised",
        "fig9_supervised_codes",
        "fig11_unsupervised",
        "fig12_unsupervised_codes",
        "table1_inception_score",
    ],
)
def test_caption_says_what_the_rules_say_of_its_rows(notebook, smoke):
    from aae_prior.captions import rules, said_of, words
    from aae_prior.results import read_rows
    from aae_prior.verdicts import CLAIMS, claims_of, verdict

    outputs, folder, _ = smoke(notebook)
    rows = read_rows(folder / "results.csv")
    figure = rows[0]["figure"]
    [said] = [
        text for out in outputs if "*Measured*" in (text := "".join(out.get("data", {}).get("text/markdown", "")))
    ]
    assert words(said.split("\n\n")[0]) <= 120
    assert rules(figure, "digits", "8-D", "100-D") in said
    for key in claims_of(figure, "digits"):
        judged = [verdict(key, rows, model) for model in CLAIMS[key].models]
        assert judged[0].startswith("not claimed") or said_of(CLAIMS[key], judged) in said, key


def test_table_1_goes_on_without_weights_and_names_every_source(smoke):
    _, folder, _ = smoke("table1_inception_score")
    table = (folder / "table1_digits.md").read_text(encoding="utf-8")
    assert "inception: not computed: no InceptionV3 weights at nowhere.pth" in table
    for number in ("6.16", "7.86", "5.62", "7.72", "6.52", "6.02"):
        assert f"| {number} | paper, Table 1 |" in table
    for number in ("7.31", "6.37", "6.52", "6.20", "6.02", "5.73"):
        assert f"| {number} | [authors' repository]" in table
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    finished = [r for r in rows if r["metric"] == "inception_score"]
    assert [r["model"] for r in finished] == ["ours", "maae"] * 3 + ["real test images"]
    assert all(r["extractor"] == "classifier(digits)" and r["n"] == "200" and r["spread"] for r in rows)
    curves = table1.lengths_of(rows)
    assert len(curves) == 7 and all(list(curve) == [1, 3, 4] for key, curve in curves.items() if table1.REAL not in key)


def test_a_picture_of_the_authors_is_cut_into_its_images(smoke):
    _, folder, _ = smoke("authors_pictures")
    rows = {(r["model"], r["metric"]): r for r in csv.DictReader((folder / "results.csv").open(encoding="utf-8"))}
    real = "maae, the authors' picture"  # what the fixture put there
    assert {r["n"] for r in rows.values()} == {"100"} and {r["claim"] for r in rows.values()} == {"supervised"}
    assert float(rows[real, "label_consistency"]["value"]) >= 0.97 > float(rows["maae", "label_consistency"]["value"])
    assert float(rows[real, "sharpness_ratio"]["value"]) == pytest.approx(1, abs=0.15)
    assert not rows[real, "fid"]["spread"] and rows["maae", "fid"]["spread"]
    assert rows["maae", "fid"]["command"].endswith("-p preset smoke -p pictures figure")
    assert not any((folder / name).exists() for name in ("generation_digits.png", "unsupervised_digits.png"))


@pytest.mark.slow
def test_figure_6_sweeps_code_sizes_for_every_model(smoke):
    _, folder, _ = smoke("fig6_high_dimensional")
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert [r["model"] for r in rows if r["metric"] == "fid"] == [
        f"{model}, {size}-D" for size in (8, 100) for model in ("ours", "maae", "aae", "aae, stochastic")
    ] + ["real test images"]
    assert (folder / "fig6_high_dimensional_digits_sweep.png").exists()


@pytest.mark.slow
def test_every_prior_is_measured_on_every_auto_encoder_and_seed(smoke):
    _, folder, _ = smoke("beyond_priors")
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    fitted = ["one Gaussian", "mixture of 10", "mixture of 100", "flow", "kernel"]
    priors = ["N(0, I)", *fitted, "reconstructions"]
    pairs = [(model, prior) for model in ("ours", "maae", "aae") for prior in priors] + [("ours", "CG")]
    for seed in "01":
        for metric in ("fid", "precision", "recall"):
            measured = [(r["model"], r["claim"]) for r in rows if (r["metric"], r["seed"]) == (metric, seed)]
            expected = pairs + [("real test images", "real images")] * (seed == "0")
            assert sorted(measured) == sorted(expected)


def test_figure_8_gives_its_rows_and_the_same_pixels_again(smoke, shared, tmp_path):
    _, folder, _ = smoke("fig8_supervised")
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    assert [(r["model"], r["metric"]) for r in rows] == [
        (m, k) for m in ("ours", "maae") for k in ("label_consistency", "diversity")
    ]
    assert all(r["preset"] == "smoke" and r["n"] == "200" and r["command"].endswith("-p preset smoke") for r in rows)
    weights = snapshot_of_weights(shared)
    again = papermill(
        "fig8_supervised",
        tmp_path,
        "preset",
        "smoke",
        "overrides",
        "lr=5e-4, mi_weight=2",
        AAE_PRIOR_RUNS=str(shared / "runs"),
    )  # the defaults, given
    assert again.returncode == 0, again.stderr[-2000:]
    assert len(again.stderr.splitlines()) < 200
    picture = "fig8_supervised_digits.png"
    assert (folder / picture).read_bytes() == (tmp_path / "pictures" / picture).read_bytes()
    assert snapshot_of_weights(shared) == weights  # nothing is trained twice


def run_of_figure_8(shared):
    config = Config(preset="smoke")
    return runs.run_folder(config, runs.prepare_data(config), shared / "runs")


def test_figure_8_draws_a_run_that_is_named(smoke, shared, tmp_path):
    smoke("fig8_supervised")
    weights = snapshot_of_weights(shared)
    ours = run_of_figure_8(shared)
    run = papermill("fig8_supervised", tmp_path, "run_dir", ours, "n_eval", 20, AAE_PRIOR_RUNS=str(shared / "runs"))
    assert run.returncode == 0, run.stderr[-2000:]
    assert snapshot_of_weights(shared) == weights


def test_table_1_scores_a_run_that_is_named(smoke, shared, tmp_path):
    smoke("fig8_supervised")
    ours = run_of_figure_8(shared)
    run = papermill(
        "table1_inception_score", tmp_path, "run_dir", ours, "n_images", 20, AAE_PRIOR_RUNS=str(shared / "runs")
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "pictures" / "table1_inception_score_digits_by_length.png").is_file()


def snapshot_of_weights(folder):
    return {p: t for p, t in snapshot(folder / "runs").items() if p.name == "weights.safetensors"}


def broken_folder(folder):
    "A folder of images, one of them unreadable"
    for label in "ab":
        (folder / "set" / label).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(np.full((8, 8), 6 * i, np.uint8)).save(folder / "set" / label / f"{i}.png")
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
    "batch larger than the data": (
        ("overrides", "batch_size=4000"),
        "batch_size = 4000: larger than the 1437 training images",
    ),
    "no parameter by itself": (
        ("batch_size", 32),
        'batch_size = 32: no parameter of this notebook by itself; give -p overrides "batch_size=32"',
    ),
    "no such device": (("device", "cuda"), "device = 'cuda': not on this machine"),
    "no such run": (("run_dir", "nowhere"), "run_dir = 'nowhere': no such folder"),
    "unreadable image": (("dataset", broken_folder), "7.png"),
    "labels skip a class": (("dataset", skipped_class), "gap.npz"),
    "data that are nowhere": (("dataset", "mnist"), "mnist.npz"),
}


def wrong_size(folder):
    "Pictures in the place of the authors', of another size"
    (folder / "figure" / "digits").mkdir(parents=True)
    Image.new("L", (320, 320)).save(folder / "figure" / "digits" / "ours_supervised.png")
    return folder / "figure"


@pytest.mark.parametrize(
    "pictures, line",
    [
        pytest.param(None, "pictures = None: must be the folder figure of a clone of", marks=pytest.mark.slow),
        pytest.param(
            "nowhere", "pictures = 'nowhere': holds no digits/ours_supervised.png or the like", marks=pytest.mark.slow
        ),
        (wrong_size, "pictures = 'ours_supervised.png': is 320 by 320 pixels"),
    ],
)
def test_pictures_that_are_not_the_authors_are_refused_in_one_line(pictures, line, tmp_path):
    given = () if pictures is None else ("pictures", pictures(tmp_path) if callable(pictures) else pictures)
    run = papermill("authors_pictures", tmp_path, *given)
    assert run.returncode != 0 and any(line in said for said in run.stderr.splitlines()), run.stderr[-1500:]
    assert not list(tmp_path.glob("runs/*label*"))


# One of each kind is fast (by its name, by the images, by what is not there); the others say the same of another value.
FAST = ("unknown name", "unreadable image", "data that are nowhere")


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in BAD])
def test_what_cannot_be_honoured_is_refused_in_one_line(case, tmp_path):
    (name, value), line = BAD[case]
    if case == "no such device":
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
    offline = dict(
        HTTPS_PROXY="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )
    run = papermill("fig8_supervised", tmp_path, name, value(tmp_path) if callable(value) else value, **offline)
    assert run.returncode != 0
    assert any(line in said for said in run.stderr.splitlines()), run.stderr[-1500:]
    assert not (tmp_path / "pictures").exists() and not list(tmp_path.glob("runs/*label*"))
