"""A model in one's hands: the same pictures by every way, whatever it was opened from and whatever it is given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aae_prior import Model, data, networks, pretrained, runs, sampling, text
from aae_prior.batches import sample_noise
from aae_prior.cli import main
from aae_prior.config import Config
from aae_prior.data import quantise
from aae_prior.model import find_model
from aae_prior.pictures import Pictures
from aae_prior.samples import label_number
from aae_prior.sampling import generate

ROOT = Path(__file__).resolve().parents[1]
KEPT = sorted(path.parent.name for path in (ROOT / "pretrained").glob("*/record.json"))
SMOKE = dict(preset="smoke", precision="fp32", eval_every=100, progress=False)


@pytest.fixture(scope="module")
def kept():
    return Model.from_pretrained("mnist-label-ours", device="cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A model with all of its networks, of a few steps on digits."
    return Model.fit("digits", root=tmp_path_factory.mktemp("runs"), **SMOKE)


def untrained(config, channels, condition_dim):
    "A model with random weights."
    record = dict(config=config.to_dict(), steps=4, complete=True)
    record["data"] = dict(name="some", channels=channels, classes=1, condition_dim=condition_dim)
    nets = networks.build(config, channels, condition_dim).eval()
    return Model(runs.Run(Path("some"), config, nets, [], [], record, 0, True))


@pytest.fixture(scope="module")
def colour():
    "A model of colour pictures without a condition."
    return untrained(Config(preset="smoke", condition="none"), 3, 0)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def same_state(a, b):
    a, b = a.nets.state_dict(), b.nets.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def one_line(error):
    assert "\n" not in str(error.value)


# ---- one picture, three ways ----


@pytest.mark.parametrize("name", KEPT)
def test_model_notebook_and_command_draw_the_same(name, tmp_path, capsys):
    model = Model.from_pretrained(name, device="cpu")
    drawn = model.sample(6, labels=3, seed=2)
    notebook = generate(model.nets, sample_noise(model.config, 6, 2, 10), torch.eye(10)[[3] * 6])
    to = tmp_path / "a.npz"
    command = ["sample", name, "--labels", "3", "--rows", "6", "--seed", "2", "--device", "cpu", "--to", str(to)]
    assert main(command) == 0 and capsys.readouterr().out.strip() == str(to)
    assert drawn.shape == (6, 1, 32, 32) and drawn.std() > 0.1
    assert torch.equal(drawn, notebook)
    with np.load(to) as arrays:
        assert np.array_equal(arrays["images"][:, 0], quantise(notebook))
    assert [np.array_equal(image, x[0]) for image, x in zip(drawn.images(), quantise(notebook))] == [True] * 6


def test_labels_in_every_form(kept):
    threes = kept.sample(4, labels=3)
    for labels in ("3", np.int64(3), torch.tensor(3), [3] * 4, ("3", 3, 3, 3), np.full(4, 3), torch.full((4,), 3)):
        assert torch.equal(threes, kept.sample(4, labels=labels))
    turns = kept.sample(12)
    assert torch.equal(turns, kept.sample(12, labels=[*range(10), 0, 1]))
    assert torch.equal(kept.sample(10), kept.sample(10, labels=range(10)))
    assert not torch.equal(threes, kept.sample(4, labels=3, seed=1))
    z = kept.noise(4)
    assert torch.equal(threes, kept.sample(4, labels=3, noise=z))
    style = kept.sample(4, labels=3, noise=z[0])
    assert torch.allclose(style, threes[:1].expand(4, -1, -1, -1), atol=1e-4)


def test_categories_and_no_condition(colour):
    model = Model.from_pretrained("mnist-category-ours", device="cpu")
    assert model.labels == [str(i) for i in range(10)]
    assert torch.equal(model.sample(2, labels=4), model.sample(2, labels=["4", 4]))
    assert colour.labels == [] and colour.sample(2).shape == (2, 3, 32, 32)
    assert torch.equal(colour.sample(2), generate(colour.nets, sample_noise(colour.config, 2)))
    assert [(image.mode, image.size) for image in colour.sample(2).images()] == [("RGB", (32, 32))] * 2


def test_sentences():
    config = Config(preset="smoke", condition="text")
    model = untrained(config, 1, 200)

    class Encoder:
        def embed(self, sentences):
            return torch.tensor([[float(len(s))] * 200 for s in sentences])

        def unknown(self, sentences):
            return [word for s in sentences for word in s.split() if word == "zebra"]

    model.sentences = Encoder()
    said = ["a thin three", "a large seven"]
    drawn = model.sample(2, labels=said)
    assert torch.equal(drawn, generate(model.nets, sample_noise(config, 2, 0, 200), Encoder().embed(said)))
    assert torch.equal(model.sample(2, labels=said[0]), model.sample(2, labels=[said[0]] * 2))
    line = model.interpolate(*said, steps=3)
    torch.testing.assert_close(line[:1], model.sample(1, labels=said[0]), rtol=0, atol=1e-4)
    with pytest.warns(UserWarning, match="zebra"):
        model.sample(1, labels="a zebra")
    for wrong in (None, 3, "", ["a three", 3]):
        with pytest.raises(ValueError, match="draws what a sentence says") as error:
            model.sample(2, labels=wrong)
        one_line(error)


def test_a_saved_model_of_sentences_needs_no_data(digits, tmp_path, monkeypatch):
    found = text.with_sentences(digits, "digits", steps=3)
    config = Config(preset="smoke", condition="text", dataset="digits")
    model = untrained(config, 1, 200)
    model.run.record |= dict(
        weights_sha256="", wall_seconds=0, statistics="own", sittings=[dict(device_name="", threads=1)]
    )
    model.run.record["data"] |= dict(n_train=1437, caveat="", fingerprint="0" * 64, class_names=list("0123456789"))
    monkeypatch.setattr(pretrained, "sentences_of", lambda run: found)
    saved = model.save_pretrained(tmp_path / "saved")

    def gone(run):
        raise AssertionError("the data were asked for")

    monkeypatch.setattr(pretrained, "sentences_of", gone)
    opened = Model.from_pretrained(saved)
    drawn = sampling.generate(opened.nets, opened.noise(1, seed=4), found.encoder.embed(["a thin three"]))
    assert torch.equal(opened.sample(1, labels="a thin three", seed=4), drawn)
    again = opened.save_pretrained(tmp_path / "again")
    assert (again / pretrained.SENTENCES).read_bytes() == (saved / pretrained.SENTENCES).read_bytes()
    (saved / pretrained.SENTENCES).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="sentences.safetensors is damaged; copy the model anew") as error:
        Model.from_pretrained(saved).sample(1, labels="a thin three")
    one_line(error)


# ---- what it is opened from ----


def test_runs_exports_saved_models_and_names(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(whole.run.dir.parent))
    monkeypatch.chdir(tmp_path)
    exported = pretrained.export(whole.run, tmp_path / "exported", ["dec", "CG", "enc"])
    saved = whole.save_pretrained("saved")
    of_export = Model.from_pretrained(exported).save_pretrained(tmp_path / "of export")
    for name in (whole.run.dir, str(whole.run.dir), whole.run.dir.name, whole.run.dir.name[:-4], saved, "saved"):
        assert same_state(Model.from_pretrained(name), whole)
    x = whole.sample(3)
    for folder in (exported, of_export):
        small = Model.from_pretrained(folder)
        assert 0 < (small.sample(3) - x).abs().max() < 0.05 and small.encode(x).shape == (3, 64)
    assert torch.equal(Model.from_pretrained(exported).sample(3), Model.from_pretrained(of_export).sample(3))
    assert [(folder / "model.safetensors").stat().st_size for folder in (saved, of_export)][1] < 1e6
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_whole_name_goes_before_the_beginning_of_another(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path))
    shutil.copytree(whole.run.dir, tmp_path / "mnist-label-ours-0123")
    assert find_model("mnist-label-ours") == ROOT / "pretrained" / "mnist-label-ours"
    assert find_model("mnist-label-ours-01") == tmp_path / "mnist-label-ours-0123"


def test_older_and_unfinished_runs(whole, tmp_path):
    old = shutil.copytree(whole.run.dir, tmp_path / "old")
    record = {k: v for k, v in runs.read_record(old).items() if k != "statistics"}
    runs.write_record(old, record)
    with pytest.warns(UserWarning, match="aae-prior recompute-stats"):
        assert torch.equal(Model.from_pretrained(old).sample(2), whole.sample(2))
    half = runs.fit(whole.config.replace(seed=1), root=tmp_path, progress=False, until=2)
    model = Model.from_pretrained(half.dir)
    assert model.run.step == 2 and model.sample(2).isfinite().all()
    with pytest.raises(ValueError, match="at step 2 of 4; train it to its end first") as error:
        model.save_pretrained(tmp_path / "half")
    one_line(error)


@pytest.mark.parametrize(
    "name, line",
    [
        ("nowhere", "no such run folder, .* pretrained are mnist-category-maae, .*owner/model"),
        ("mnist-label-our", "no such run folder"),
        ("empty", "is no model: it has neither the record.json"),
        ("foreign", "is no model: it has neither the record.json"),
        ("empty/mistyped", "no such run folder"),
        ("../nowhere", "no such run folder"),
    ],
)
def test_what_is_no_model(name, line, tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=line) as error:
        Model.from_pretrained(name)
    one_line(error)


# ---- saved, elsewhere, trained on ----

ELSEWHERE = """
import sys, torch
from safetensors.torch import load_file
from aae_prior import Model
there = load_file(sys.argv[2])
model = Model.from_pretrained(sys.argv[1], device="cpu")
assert torch.equal(model.sample(4), there["sample"]) and torch.equal(model.encode(there["x"]), there["codes"])
"""


def test_saved_here_drawn_elsewhere(whole, digits, tmp_path):
    from safetensors.torch import save_file

    x = digits.images(range(5)).contiguous()
    there = dict(x=x, sample=whole.sample(4).as_subclass(torch.Tensor), codes=whole.encode(x))
    save_file(there, tmp_path / "there.safetensors")
    shutil.move(whole.save_pretrained(tmp_path / "saved"), tmp_path / "moved")
    env = os.environ | dict(PYTHONPATH=str(ROOT))
    words = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "moved"), str(tmp_path / "there.safetensors")]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_training_begins_with_the_weights_of_a_saved_model(whole, tmp_path):
    saved = Model.from_pretrained(whole.save_pretrained(tmp_path / "saved"))
    config = saved.settings_to_go_on(dict(seed=5, steps=2))
    begun = runs.fit(config, root=tmp_path, progress=False, until=0, start=saved.run)
    assert begun.step == 0 and begun.config.seed == 5
    assert all(torch.equal(a, b) for a, b in zip(begun.nets.parameters(), whole.nets.parameters()))
    half = runs.fit(config, root=tmp_path, progress=False, until=1, start=saved.run)
    straight = Model.fit("digits", start=saved, seed=5, steps=2, root=tmp_path / "straight", progress=False)
    resumed = Model.fit("digits", start=saved, seed=5, steps=2, root=tmp_path, progress=False)
    assert half.dir == resumed.run.dir and same_state(straight, resumed) and not same_state(straight, whole)
    assert resumed.run.dir != runs.run_folder(config, runs.prepare_data(config), tmp_path)  # of random beginnings
    said = (resumed.save_pretrained(tmp_path / "more") / "README.md").read_text(encoding="utf-8")
    assert "It began with the weights of a model of digits." in said


def test_the_same_fit_again_trains_nothing(whole):
    again = Model.fit("digits", root=whole.run.dir.parent, **SMOKE)
    assert again.run.record["sittings"] == whole.run.record["sittings"] and same_state(again, whole)


def test_starts_that_are_refused(whole, kept, tmp_path):
    small = Model(runs.load(pretrained.export(whole.run, tmp_path / "small", ["dec", "CG", "enc"])))
    for start, settings, line in [
        (small, {}, "it has no D_I, D_C; start from a run folder"),
        (whole, dict(width=0.5), "whose networks differ"),
        (whole, dict(condition="category"), "condition = 'category': the model to begin from has label; leave it out"),
        (whole, dict(size=64), "here are ours, width"),
        (whole, dict(stepz=3), "unknown parameter; did you mean steps"),
    ]:
        with pytest.raises(ValueError, match=line) as error:
            Model.fit("digits", start=start, root=tmp_path, progress=False, **settings)
        one_line(error)


def test_settings_of_a_start_hold_unless_given(whole):
    assert whole.settings_to_go_on({}).training_key("a") == whole.config.training_key("a")
    assert whole.settings_to_go_on(dict(epochs=2)).steps is None
    assert whole.settings_to_go_on(dict(preset="quick")).steps == Config(preset="quick").steps
    assert whole.settings_to_go_on(dict(dataset="mnist")).lr == whole.config.lr != Config(dataset="mnist", lr=1e-5).lr


# ---- pictures in, pictures out ----


def test_pictures_of_every_kind_are_the_same_codes(whole, digits, tmp_path):
    x = digits.images(range(4))
    images = x.as_subclass(Pictures).images()
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
        image.convert("RGB").save(tmp_path / f"{i}.bmp")
    files, coloured = sorted(tmp_path.glob("*.png")), sorted(tmp_path.glob("*.bmp"))
    pixels = digits.x_train[:4]
    codes = whole.encode(x)
    assert codes.shape == (4, 64) and torch.equal(codes, sampling.encode(whole.nets, x))
    for some in (
        [x.double(), x.numpy(), pixels, pixels.numpy(), pixels.numpy()[:, 0], pixels.permute(0, 2, 3, 1).numpy()]
        + [list(pixels), images, tuple(images), files, [str(file) for file in files], coloured, x.as_subclass(Pictures)]
        + [(pixels.numpy().astype(np.uint16) * 257)]
    ):
        torch.testing.assert_close(whole.encode(some), codes, rtol=0, atol=1e-5)
    assert torch.equal(whole.encode(images[0]), whole.encode(files[0]))
    torch.testing.assert_close(whole.encode(x[0]), codes[:1], rtol=0, atol=1e-5)
    assert torch.equal(whole.reconstruct(images), sampling.reconstruct(whole.nets, x))
    assert torch.equal(whole.classify(images), sampling.classify(whole.nets, x))
    arrays = tmp_path / "more" / "arrays.npz"
    arrays.parent.mkdir()
    np.savez(arrays, x_train=pixels[:3].numpy(), x_test=pixels[3:].numpy())
    torch.testing.assert_close(whole.encode(arrays), codes, rtol=0, atol=1e-5)


def test_other_sizes_and_grey_for_a_model_of_colours(whole, colour):
    assert whole.encode(np.zeros((2, 28, 28), np.uint8)).shape == (2, 64)
    assert whole.encode(Image.new("L", (50, 40), 200)).shape == (1, 64)
    grey = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)
    assert torch.equal(colour.encode(grey), colour.encode(np.stack([grey] * 3, -1)))
    assert torch.equal(colour.encode(grey), colour.encode(Image.fromarray(grey)))


@pytest.mark.parametrize(
    "use, line",
    [
        (lambda m: m.sample(2, labels="threee"), "labels = 'threee': the run has 0, 1"),
        (lambda m: m.sample(2, labels=10), "labels = 10: the run has 0, 1"),
        (lambda m: m.sample(2, labels=-1), "labels = -1: the run has"),
        (lambda m: m.sample(2, labels=True), "labels = True: the run has"),
        (lambda m: m.sample(2, labels=[1, 2, 3]), "3 of them for 2 pictures; give one for all, or one each"),
        (lambda m: m.sample(0), "n = 0: how many pictures"),
        (lambda m: m.sample(2, noise=torch.zeros(3, 54)), "give finite floats \\(2, 54\\), or one row for all"),
        (lambda m: m.sample(2, noise=torch.zeros(2, 54, dtype=int)), "give finite floats"),
        (lambda m: m.encode(torch.zeros(2, 1, 28, 28)), "floats of shape \\(2, 1, 28, 28\\); allowed"),
        (lambda m: m.encode(torch.zeros(2, 3, 32, 32) + torch.arange(3).view(3, 1, 1) / 3 - 1), "they have colour"),
        (lambda m: m.encode(Image.new("RGB", (40, 40), "red")), "they have colour, the model's are grey"),
        (lambda m: m.encode(np.zeros((2, 32, 32, 4), np.uint8)), "shape \\(2, 32, 32, 4\\); allowed"),
        (lambda m: m.encode(np.zeros((2, 32, 32), np.int64)), "int64 values; allowed: uint8"),
        (lambda m: m.encode(torch.full((1, 1, 32, 32), float("nan"))), "floats from nan to nan"),
        (lambda m: m.encode([]), "list of 0; allowed: a tensor"),
        (lambda m: m.encode(["nowhere.png"]), "nowhere.png: cannot be read as an image"),
        (lambda m: m.encode("nowhere"), "nowhere: there is no such file or folder"),
        (lambda m: m.interpolate(3, 8, steps=1), "steps = 1: a line has two ends"),
        (lambda m: m.interpolate("pics/nope.png", 3), "pics/nope.png"),
        (lambda m: m.interpolate(torch.full((64,), torch.nan), 3), "finite numbers"),
        (lambda m: m.noise(1, seed=-1), "seed = -1: give a whole number of 0 or more"),
        (lambda m: m.noise(1, seed=1.5), "seed = 1.5: give a whole number"),
        (lambda m: m.sample(1, noise="abc"), "noise = 'abc': give finite floats"),
        (lambda m: m.sample(1, noise=torch.full((m.noise_length,), torch.nan)), "noise = .*NaN.*give finite floats"),
        (lambda m: Model.from_pretrained(None), "path_or_name = None: give a folder"),
        (lambda m: Model.from_pretrained("mnist-label-ours", devise="cpu"), "devise = 'cpu': unknown parameter"),
        (lambda m: m.interpolate(3, "eight"), "labels = 'eight': the run has"),
        (lambda m: m.interpolate(torch.zeros(2, 1, 32, 32) - 1, 3), "each end is one code, one picture or one label"),
        (lambda m: m.interpolate(torch.zeros(63), 3), "floats of shape \\(63,\\)': each end is one code \\(64,\\)"),
        (lambda m: m.to("cuda:77"), "not on this machine"),
        (lambda m: m.to("abacus"), "abacus"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(whole, use, line):
    with pytest.raises((ValueError, OSError), match=line) as error:
        use(whole)
    one_line(error)


def test_what_a_model_cannot_do(kept, colour, whole, tmp_path):
    x = torch.zeros(1, 1, 32, 32) - 1
    encodes = Model(runs.load(pretrained.export(whole.run, tmp_path / "enc", ["enc"])))
    for use, line in [
        (lambda: kept.encode(x), "no enc here: .*an export has only"),
        (lambda: kept.classify(x), "no D_I"),
        (lambda: colour.classify(x), "only a model with labels or categories"),
        (lambda: colour.interpolate("nowhere.png", "nowhere.png"), "there is no such file or folder"),
        (lambda: colour.sample(1, labels=3), "condition none, so it draws whatever it likes"),
        (lambda: encodes.sample(1), "nothing can be drawn from .* it has no dec"),
        (lambda: Model.fit("digits", labels=[1]), "digits brings its own"),
        (lambda: Model.fit([x, x], labels=[1]), "1 of them for 2 pictures"),
        (lambda: Model.fit("nowhere", **SMOKE), "dataset = 'nowhere': must be one of"),
        (lambda: Model.fit("digits", presett="smoke"), "did you mean preset"),
    ]:
        with pytest.raises((ValueError, OSError), match=line) as error:
            use()
        one_line(error)
    assert encodes.encode(x).shape == (1, 64)


def test_floats_that_begin_at_zero_are_named(whole):
    with pytest.warns(UserWarning, match="give 2 \\* x - 1"):
        whole.encode(torch.rand(2, 1, 32, 32))


def test_lines_between_labels_pictures_and_codes(whole, kept, digits):
    x = digits.images(range(2))
    line = whole.interpolate(x[0], digits.x_train[1].numpy(), steps=5)
    assert line.shape == (5, 1, 32, 32)
    torch.testing.assert_close(line[[0, -1]], whole.reconstruct(x), rtol=0, atol=1e-4)
    codes = whole.encode(x)
    torch.testing.assert_close(line, whole.interpolate(codes[0], codes[1].numpy(), 5), rtol=0, atol=1e-4)
    ends = kept.sample(2, labels=[3, 8], noise=kept.noise(1, seed=1))
    line = kept.interpolate(3, "8", steps=4, seed=1)
    torch.testing.assert_close(line[[0, -1]], ends, rtol=0, atol=1e-4)
    assert whole.interpolate(3, x[0], steps=2).shape == (2, 1, 32, 32)


def test_own_pictures_in_memory_are_found_again(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path))
    pixels, names = digits.x_train[:60], np.array([f"digit {i}" for i in range(10)])[digits.y_train[:60]]
    model = Model.fit(pixels, labels=names, steps=1, batch_size=32, **SMOKE)
    assert model.labels == [f"digit {i}" for i in range(10)]
    assert torch.equal(model.sample(2, labels="digit 3"), model.sample(2, labels=3))
    again = Model.fit(list(pixels.numpy()), labels=list(names), steps=1, batch_size=32, **SMOKE)
    assert again.run.dir == model.run.dir and len(list((tmp_path / "pictures").iterdir())) == 1
    assert runs.data_of(model.run).name == model.run.record["data"]["name"]


# ---- the hub ----


def test_a_card_that_the_hub_reads(kept, whole, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    card = hub.ModelCard.load(kept.save_pretrained(tmp_path / "a") / "README.md")
    assert card.data.library_name == "aae_prior" and card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.datasets == ["mnist"] and {"ours", "condition-label"} <= set(card.data.tags)
    assert "label_consistency" in card.text and "Model.from_pretrained" in card.text
    record = json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))
    assert record["library"] == "aae_prior" and record["weights_sha256"] in card.text
    assert hub.ModelCard.load(whole.save_pretrained(tmp_path / "b") / "README.md").data.datasets is None


def test_to_the_hub_and_back(whole, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    asked = {}

    def create_repo(self, repo_id, **options):
        asked["private"] = options["private"]
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, folder_path, repo_id, **options):
        shutil.copytree(folder_path, tmp_path / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/0"

    def fetch(repo_id, filename=None, **options):
        return str(tmp_path / repo_id / (filename or ""))

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", fetch)
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert whole.push_to_hub("me/digits", private=True) == "https://huggingface.co/me/digits/commit/0"
    assert asked == dict(private=True)
    files = sorted(path.name for path in (tmp_path / "me" / "digits").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert same_state(Model.from_pretrained("me/digits"), whole)


@pytest.mark.parametrize("way", ["offline", "nobody answers"])
def test_a_hub_that_cannot_be_reached_is_named_in_one_line(kept, tmp_path, monkeypatch, capfd, way):
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", way == "offline")
    uses = [lambda: kept.push_to_hub("me/digits")]
    uses += [lambda: Model.from_pretrained("me/digits")] * (way == "offline")  # else it is asked six times, for 24 s
    for use in uses:
        with pytest.raises(OSError, match="^me/digits: the hub cannot be reached") as error:
            use()
        one_line(error)
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_the_hub_is_refused_in_one_line(kept, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: kept.push_to_hub("me/digits"), lambda: Model.from_pretrained("me/digits")):
        with pytest.raises(ValueError, match="pip install 'aae_prior\\[hub\\]'") as error:
            use()
        one_line(error)
    assert main(["sample", "me/digits"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_name_that_is_a_number_comes_before_the_number(kept):
    run = runs.replace(
        kept.run, record=kept.run.record | dict(data=kept.run.record["data"] | dict(class_names=list("123")))
    )
    with pytest.raises(ValueError, match="^labels = 0: the run has 1, 2, 3"):
        label_number(run, 0)
    assert [label_number(run, label) for label in (1, "1", np.int64(3), "3")] == [0, 0, 2, 2]
    run.record["data"]["class_names"] = ["10", "cat", "dog"]
    assert [label_number(run, label) for label in (10, 0, 2, "cat")] == [0, 0, 2, 1]


def test_equal_seeds_are_equal_whatever_their_kind(kept):
    noises = [kept.noise(2, seed=seed) for seed in (3, np.int64(3), torch.tensor(3))]
    assert all(torch.equal(noises[0], noise) for noise in noises)
    assert torch.equal(kept.sample(np.int64(2), labels=3, noise=noises[0]), kept.sample(2, labels=3, seed=3))


def test_what_is_computed_from_pictures_is_an_ordinary_tensor(kept, tmp_path):
    drawn = kept.sample(3, labels=3)
    assert type(drawn.mean()) is type(drawn > 0) is type(drawn.mean((2, 3))) is torch.Tensor
    assert type(drawn[0]) is type(-drawn) is type(torch.cat([drawn, drawn])) is Pictures
    assert f"{(drawn - drawn).abs().mean():.3f}" == "0.000"
    torch.save(drawn, tmp_path / "drawn.pt")
    assert torch.equal(torch.load(tmp_path / "drawn.pt"), drawn)


def test_fit_writes_nothing_before_all_is_checked(digits, tmp_path, monkeypatch):
    x, labels = digits.x_train[:80].permute(0, 2, 3, 1).numpy(), torch.arange(80) % 4
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path / "runs"))
    for given, line in (
        (dict(labels=labels, size="huge"), "size = 'huge'"),
        (dict(labels=labels, dataset="mnist"), "dataset = 'mnist': the data are the first argument; leave it out"),
        (dict(labels=labels, publish=True), "publish = True: notebooks publish; leave it out"),
        (dict(labels=labels, stpes=3), "stpes = 3: unknown parameter; did you mean steps?"),
        (dict(labels=labels + 1), "labels = tensor.*some number is missing; give numbers from 0"),
        (dict(labels=[0, 10**12] * 40), "labels = .*some number is missing"),
        (dict(labels=[None, 1] * 40), "labels = .*give a whole number or a text for each picture"),
    ):
        with pytest.raises(ValueError, match=line) as error:
            Model.fit(x, **given, **SMOKE)
        one_line(error)
    with pytest.raises(ValueError, match="^data = '': give the name of a data set"):
        Model.fit("", **SMOKE)
    assert not (tmp_path / "runs").exists()
    with torch.no_grad():
        model = Model.fit(x, labels=labels, root=tmp_path / "here", size="32", steps=1, **SMOKE)
    assert Path(model.config.dataset).parent == tmp_path / "here" / "pictures" and not (tmp_path / "runs").exists()


def test_a_saved_model_is_saved_and_exported_again(whole, tmp_path):
    first = whole.save_pretrained(tmp_path / "first")
    second = Model.from_pretrained(first).save_pretrained(tmp_path / "second")
    for name in pretrained.SAVED_FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    small = pretrained.export(Model.from_pretrained(first).run, tmp_path / "small")
    assert torch.equal(
        Model.from_pretrained(small).sample(2, seed=1),
        Model.from_pretrained(pretrained.export(whole.run, tmp_path / "same")).sample(2, seed=1),
    )
    with pytest.raises(
        ValueError, match="has no history, as a saved model has none; draw with aae_prior.Model"
    ) as error:
        runs.chosen_run(Config(run_dir=str(first)))
    one_line(error)


def test_lists_of_16_bits_have_one_white(whole):
    dark, bright = (np.full((32, 32), value, np.uint16) for value in (255, 65535))
    assert torch.equal(whole.encode([dark, bright]), whole.encode(np.stack([dark, bright])))


def test_other_files_are_not_replaced(whole, tmp_path):
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    for folder, line in [(tmp_path, "README.md that is not a saved model's"), (whole.run.dir, "of a run or export")]:
        with pytest.raises(ValueError, match=line) as error:
            whole.save_pretrained(folder)
        one_line(error)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").touch()
    saved = whole.save_pretrained(tmp_path / "saved")
    for folder, line in [
        (tmp_path, "README.md that is not an export's"),
        (saved, "a saved model, which an export would hide"),
        (tmp_path / "file", "file is a file; give a folder"),
    ]:
        with pytest.raises(ValueError, match=line) as error:
            pretrained.export(whole.run, folder)
        one_line(error)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"
    assert whole.save_pretrained(saved) == saved
    with pytest.raises(ValueError, match="do it with the run or export it was saved from"):
        pretrained.recompute_folder_stats(saved)
    payload = bytearray((saved / "model.safetensors").read_bytes())
    payload[-1] ^= 1
    (saved / "model.safetensors").write_bytes(payload)
    with pytest.raises(ValueError, match="missing or damaged; copy the model anew") as error:
        Model.from_pretrained(saved)
    one_line(error)


# ---- the command ----


def test_train_encode_reconstruct_export(whole, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path / "runs"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(digits.images(range(3)).as_subclass(Pictures).images()):
        image.save(folder / f"{i}.png")

    def last_line(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    run = last_line("train", "digits", "preset=smoke", "precision=fp32", "eval_every=100", "-p", "steps", 1)
    trained = Model.from_pretrained(run)
    assert trained.run.step == 1
    assert same_state(trained, Model.fit("digits", steps=1, **SMOKE))
    saved = last_line("train", "digits", "steps=1", "--start", run, "--to", tmp_path / "saved")
    assert Model.from_pretrained(saved).run.record["start"]["steps"] == 1
    codes, again = tmp_path / "new" / "codes.npz", tmp_path / "again.npz"
    assert last_line("encode", run, folder, "--to", codes) == str(codes)
    assert last_line("reconstruct", Path(run).name, folder, "--to", again) == str(again)
    with np.load(codes) as arrays:
        assert np.array_equal(arrays["codes"], trained.encode(folder))
        assert arrays["names"].tolist() == ["0.png", "1.png", "2.png"]
    with np.load(again) as arrays:
        assert np.array_equal(arrays["images"], quantise(trained.reconstruct(folder)))
    assert last_line("reconstruct", run, folder, "--to", tmp_path / "a.png") == str(tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 1
    assert last_line("export", run, "--to", tmp_path / "hub", "--format", "hub") == str(tmp_path / "hub")
    assert same_state(Model.from_pretrained(tmp_path / "hub"), trained)


@pytest.mark.parametrize(
    "words, line",
    [
        (["train", "digits", "preset=smok"], "preset = 'smok': must be one of"),
        (["train", "digits", "root=here"], "root = 'here': unknown parameter"),
        (["train", "digits", "dataset=mnist"], "it is digits already"),
        (["train", "nowhere", "preset=smoke"], "dataset = 'nowhere'"),
        (["train", "digits", "preset=smoke", "--start", "mnist-label-ours"], "it has no enc, D_I, D_C"),
        (["encode", "mnist-label-ours", "nowhere", "--to", "a.npz"], "nowhere: there is no such file or folder"),
        (["encode", "mnist-label-ours", "nowhere", "--to", "a.csv"], "--to a.csv: must end in .npz"),
        (["encode", "nowhere", "pictures", "--to", "a.npz"], "nowhere: no such run folder"),
        (["export", "mnist-label-ours", "--to", "a"], "is an export itself"),
        (["export", "mnist-label-ours", "--to", "a", "--format", "hub", "--networks", "dec"], "leave out --networks"),
    ],
)
def test_the_command_refuses_in_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and line in said[0], said
    assert not list(tmp_path.iterdir())


def test_the_package_alone_is_light():
    words = "import sys, aae_prior; print('torch' in sys.modules, aae_prior.__version__, hasattr(aae_prior, 'Modell'))"
    env = os.environ | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", words], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0.1.0", "False"]
