"""Settings are honoured exactly or refused by name, in one line; notebooks refuse what papermill would let pass."""

import ast
import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.cli import papermill
from papermill.inspection import inspect_notebook
from PIL import Image

from aae_prior.config import REMOVED_SETTINGS, Config, SettingError, settings_table, why_idle
from aae_prior.machine import environment, git_revision, resolve_device
from aae_prior.parameters import BY_NAME_ONLY, PARAMETERS, notebook_parameters, overrides_line, parameters_cell
from aae_prior.recipes import PRESETS, RECIPES, recipe_name, recipes_table
from aae_prior.values import DATASETS, Between, OneOf

ROOT = Path(__file__).resolve().parents[1]
FIELDS = {f.name: f for f in dataclasses.fields(Config)}
REFUSED = object()


def refusal(action, *args, **kwargs):
    with pytest.raises(SettingError) as caught:
        action(*args, **kwargs)
    text = str(caught.value)
    assert text.splitlines() == [text]
    return text


# ---- every value is honoured exactly or refused

ALLOWED = dict(  # name -> (values honoured as they are, values refused), written down apart from the module
    dataset=(
        ["digits", "mnist", "fashion_mnist", "svhn", "cifar10", "flowers102"],
        ["imagenet", "cifar", 5, True, "a/b.npz"],
    ),
    recipe=(["paper", "digits", "mnist", "svhn", "cifar10", "flowers102"], ["fashion", 1]),
    preset=(["smoke", "quick", "cpu", "paper"], ["fast", 1]),
    model=(["ours", "maae", "aae"], ["vae", 0]),
    condition=(["none", "label", "category", "text"], ["labels", 1]),
    device=(["auto", "cpu"], ["gpu", "cuda:x", "cuda:", "cuda:99", 0]),
    seed=([0, 1, 2**31 - 1], [-1, 2**31, 0.5]),
    run_dir=([str(ROOT)], ["no/such/run", 5]),
    out_dir=(["out", "a b"], [5, True]),
    publish=([True, False], ["maybe", 2, ""[:0] + "t"]),
    epochs=([0.25, 1.0, 200.0], [0, -1, math.nan, math.inf, "two"]),
    steps=([1, 100_000], [0, 1.5, 10**12]),
    n_train=([1, 60_000], [0, -5]),
    batch_size=([2, 64, 4096], [1, 4097, 64.5]),
    lr=([1e-5, 0.5], [0, 1, -1e-4]),
    lr_D=([1e-5, 0.5], [0, 1, 2]),
    lr_decay=([0.0, 0.5, 1.0], [-0.1, 1.01]),
    beta1=([0.0, 0.5], [1, -0.1]),
    lam=([1e-6, 1.0], [0, -1]),
    rec_weight=([0.0, 1.0], [-1]),
    mi_weight=([0.0, 3.0], [-0.5]),
    width=([0.125, 4.0], [0, 4.01]),
    width_D_I=([0.125, 8.0], [0, 8.01]),
    size=([32, 64, 128], [28, 33, 256]),
    background=(["white", "navy", "#a0b0c0"], ["whiteish", "#12345", 7]),
    non_square=(["crop", "pad"], ["stretch", 1]),
    code_dim=([1, 2000], [0, 10**9]),
    categories=([2, 1000], [1, 1001]),
    update=(["simultaneous", "alternating"], ["both"]),
    gan_loss=(["saturating", "non_saturating", "hinge"], ["wgan"]),
    r1=([0.0, 10.0], [-1]),
    consistency=([0.0, 2.0], [-1]),
    augment=([True, False], [2]),
    spectral_norm=([True, False], [2]),
    label_to=(["none", "Q", "D_I", "both"], ["CG"]),
    Q_on_generated=([True, False], [2]),
    rec_as_fake=([True, False], ["no way"]),
    mi_into_D_I=([True, False], [[]]),
    D_I_updates=([1, 2, 10], [0, 11, 1.5]),
    mode_seeking=([0.0, 0.2], [-0.5]),
    norm=([True, False], [0.5]),
    stem_stride=([1, 2], [0, 3]),
    feature_layer=([-3, -2, -1], [0, -4]),
    stochastic=([True, False], ["perhaps"]),
    ema=([0.0, 0.999], [1.0, -0.1]),
    precision=(["auto", "fp32", "bf16"], ["fp16"]),
    captions=(["own", "class"], ["any"]),
    encoder=(["gru", "my/own.npz", "some-model"], [5, True]),
    eval_every=([1, 500], [0]),
    n_eval=([20, 1000], [0, 19]),
)
BESIDE = dict(  # what a setting needs beside it to act
    consistency=dict(condition="category"),
    categories=dict(condition="category"),
    captions=dict(condition="text"),
    encoder=dict(condition="text"),
)


def test_the_table_of_the_test_names_every_field():
    assert set(ALLOWED) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_range_of_each_field(name):
    honoured, refused = ALLOWED[name]
    for value in honoured:
        for typed in (value, str(value), f" {value} "):
            found = getattr(Config.from_parameters({name: typed} | BESIDE.get(name, {})), name)
            assert found == value and type(found) is type(value) is FIELDS[name].type
    for value in refused:
        line = refusal(Config.from_parameters, {name: value})
        assert line.startswith(f"{name} = ") and "must be" in line or "not on this machine" in line or "no such" in line


def number_forms(number, kind):
    "How a number may be typed, all meaning the same."
    forms = [number, str(number), f" {number}\n", np.float64(number)]
    if kind is int:
        forms += [np.int64(number), float(number), f"{number}.0"] if abs(number) < 2**53 else []
    return st.sampled_from(forms)


def numbers(allowed, kind):
    "(typed, expected) for numbers inside and outside of `allowed`."
    draw = (
        (lambda low, high: st.integers(math.ceil(low), math.floor(high)))
        if kind is int
        else lambda low, high: st.floats(low, high, allow_nan=False)
    )
    low, high = (
        (min(allowed.choices), max(allowed.choices)) if isinstance(allowed, OneOf) else (allowed.low, allowed.high)
    )

    def expected(n):
        if isinstance(allowed, OneOf):
            return n if n in allowed.choices else REFUSED
        above = n > allowed.low if allowed.open in ("low", "both") else n >= allowed.low
        below = n < allowed.high if allowed.open in ("high", "both") else n <= allowed.high
        return n if above and below else REFUSED

    span = high - low + 1
    return (draw(low, high) | draw(low - span, high + span)).flatmap(
        lambda n: st.tuples(number_forms(n, kind), st.just(expected(n)))
    )


JUNK = st.one_of(
    st.floats(allow_nan=True),
    st.integers(),
    st.booleans(),
    st.text(max_size=30),
    st.binary(max_size=5),
    st.none(),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        [
            "null",
            "None",
            "",
            "nan",
            "-inf",
            "1e999",
            "9" * 5000,
            10**400,
            "0x10",
            "1_0",
            "~nobody/x",
            "\0",
            "a\nb",
            "\ud800",
            "x" * 9000,
            np.array([1, 2]),
            np.bool_(True),
            object(),
            int,
            Path("x"),
            b"64",
            {1},
            1j,
            "[1]",
            "true false",
        ]
    ),
)


def pairs(name):
    "(typed, expected) for the field `name`; expected is None where only 'honoured as typed, or refused' is asked."
    f, allowed = FIELDS[name], FIELDS[name].metadata["allowed"]
    good = {
        int: lambda: numbers(allowed, int),
        float: lambda: numbers(allowed, float),
        bool: lambda: st.sampled_from(
            [
                (form, value)
                for value, words in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0")))
                for word in words
                for form in (word, word.upper(), word.title(), f" {word} ", value, int(value), float(value))
            ]
        ),
        str: lambda: st.sampled_from(
            [
                (form, value)
                for value in ALLOWED[name][0]
                for form in (value, f" {value} ", value.upper() if allowed else value)
            ]
        ),
    }
    return good[f.type]() | st.tuples(JUNK, st.none())


def as_typed(typed, found, default):
    "Is the value `found` what somebody who typed `typed` could have meant?"
    if typed is None or isinstance(typed, str) and typed.strip().lower() in ("", "null", "none") and found != "none":
        return found == default
    if isinstance(found, bool):
        return (
            str(typed).strip().lower() in (dict(true=1, yes=1, on=1) if found else dict(false=1, no=1, off=1))
            or float(typed) == found
        )
    if isinstance(found, (int, float)):
        return not isinstance(typed, (bool, np.bool_)) and float(typed) == found
    return (
        os.fspath(typed).strip().lower() == found.lower()
        or os.path.abspath(os.path.expanduser(os.fspath(typed).strip())) == found
    )


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from(list(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), pairs(name))))
def test_each_value_is_honoured_exactly_or_refused_by_name(case):
    name, (typed, expected) = case
    try:
        found = getattr(Config.from_parameters({name: typed} | BESIDE.get(name, {})), name)
    except SettingError as error:
        text = str(error)
        assert (
            text.startswith(f"{name} = ")
            and text.splitlines() == [text]
            and expected in (None, REFUSED)
            and typed is not None
        )
        return
    assert (
        expected is None
        and as_typed(typed, found, getattr(Config(**BESIDE.get(name, {})), name))
        or found == expected
        and type(found) is FIELDS[name].type
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(list(FIELDS)), min_size=2, max_size=8, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: pairs(name) for name in names})
    )
)
def test_many_values_together_are_honoured_or_refused(cases):
    typed = {name: value for name, (value, _) in cases.items()}
    try:
        config = Config.from_parameters(typed)
    except SettingError as error:
        text = str(error)
        assert text.splitlines() == [text] and any(name in text for name in typed)
        return
    for name, (value, expected) in cases.items():
        if name in config.given:
            assert (
                getattr(config, name) == expected
                if expected is not None
                else as_typed(value, getattr(config, name), None)
            )
    assert all(
        getattr(config, name) is not None
        for name in ("width", "code_dim", "recipe", "batch_size", "condition", "label_to")
    )
    assert (config.steps is None) != (config.epochs is None) and config.total_steps(10_000) >= 1
    back = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert back == config and back.training_key() == config.training_key()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), JUNK)
def test_unknown_names_are_refused(name, value):
    if name not in FIELDS:
        assert "unknown parameter" in refusal(Config.from_parameters, {name: value})


# ---- precedence and what follows


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_shadowed_by_nothing_but_a_given_value(preset):
    config = Config(preset=preset)
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[
        preset
    ]  # digits with labels have no recipe
    for name in PRESETS["smoke"]:
        other = FIELDS[name].type(30 if name == "n_eval" else 3)
        assert getattr(Config(preset=preset, **{name: other}), name) == other
        assert getattr(Config(preset=preset, **{name: None}), name) == getattr(config, name)
    cell = {}
    exec(parameters_cell(FIELDS), cell)
    assert notebook_parameters({**cell, "preset": preset}) == config


def test_presets_and_defaults_are_those_documented():
    assert [(c.steps, c.width, c.batch_size, c.n_eval) for c in map(lambda p: Config(preset=p), PRESETS)] == [
        (4, 0.125, 32, 20),
        (600, 0.25, 64, 1000),
        (1500, 0.5, 64, 1000),
        (100_000, 1.0, 64, 1000),
    ]
    conditions = [Config(recipe="paper", condition=s) for s in ("none", "label", "category", "text")]
    assert [(c.code_dim, c.noise_length(k)) for c, k in zip(conditions, (0, 10, 10, 200))] == [
        (64, 64),
        (64, 54),
        (100, 90),
        (128, 100),
    ]
    assert (
        Config(condition="none", code_dim=8).noise_length() == 8
        and Config(model="maae", code_dim=200).noise_length(10) == 190
    )
    assert Config().noise_length(102) == 54  # as many labels as the data have


# ---- recipes

BALANCED = dict(lr=2e-4, width_D_I=0.5, D_I_updates=2, batch_size=32, ema=0.998)
PUBLISHED = {  # (data set, condition, preset) -> what is published of it, beside the defaults
    ("digits", "label", "quick"): dict(),
    ("digits", "category", "quick"): dict(consistency=1.0, code_dim=16, lr_decay=0.5),
    ("mnist", "label", "cpu"): dict(),
    ("mnist", "none", "cpu"): dict(),
    ("mnist", "category", "quick"): dict(consistency=1.0, code_dim=16, lr_decay=0.5),
    ("svhn", "label", "quick"): dict(steps=1200, lr=2e-4, augment=True, width_D_I=0.5),
    ("svhn", "category", "quick"): dict(steps=1200, lr=2e-4, augment=True, width_D_I=0.5),
    ("cifar10", "none", "quick"): BALANCED | dict(steps=10_000, lr_decay=0.1),
    ("cifar10", "label", "quick"): BALANCED | dict(steps=4500),
    ("cifar10", "category", "cpu"): dict(steps=3000, lr=2e-4, augment=True, width_D_I=1.0),
    ("flowers102", "text", "quick"): BALANCED | dict(steps=5000, augment=True, captions="class", mode_seeking=0.1),
}


@pytest.mark.parametrize("dataset, condition, preset", PUBLISHED)
def test_a_data_set_alone_gives_what_is_published(dataset, condition, preset):
    config, plain = (
        Config(dataset=dataset, condition=condition, preset=preset),
        Config(dataset=dataset, condition=condition, preset=preset, recipe="paper"),
    )
    assert config == plain.replace(recipe=None, **PUBLISHED[dataset, condition, preset]) and config.recipe == dataset
    differ = {name for name in FIELDS if getattr(config, name) != getattr(plain, name)}
    assert differ - {"Q_on_generated"} == {"recipe", *PUBLISHED[dataset, condition, preset]}
    assert config.replace(recipe="tuned") == config and config.replace(recipe="paper") == plain


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_precedence_of_every_recipe(dataset, preset):
    "value given > length of the recipe for this preset > preset > recipe > default"
    for condition in ("none", "label", "category", "text"):
        config, values = Config(dataset=dataset, preset=preset, condition=condition), dict(PRESETS[preset])
        lines = [line for line in RECIPES[config.recipe] if line.condition in ("", condition)]
        for line in lines:
            if preset in line.presets:
                values |= line.values
            elif not line.presets:
                values = line.values | values
        for name, value in values.items():
            if why_idle(name, vars(config)):
                continue
            assert getattr(config, name) == (2 * config.width if name == "width_D_I" else value)
            other = OTHER[name]
            assert getattr(config.replace(**{name: other}), name) == other
        wide = config.replace(width=0.375)
        assert wide.width_D_I == 0.375 * (2 if recipe_name(dataset) in ("svhn", "cifar10", "flowers102") else 1)
    assert (
        Config(dataset=dataset, preset="smoke").steps == 4 and Config(dataset=dataset, preset="paper").steps == 100_000
    )
    assert Config(dataset=dataset, epochs=2.0).steps is None


def test_an_idle_value_of_a_recipe_stays_out():
    bare = Config(dataset="svhn", model="aae")
    assert not bare.augment and bare.width_D_I == bare.width and bare.lr == 2e-4 and bare.steps == 1200
    assert Config(dataset="cifar10", model="aae").D_I_updates == 1


def image_folder(folder, mode):
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new(mode, (8, 8)).save(folder / name / "1.png")
    return folder


def test_data_of_ones_own_take_the_recipe_of_their_kind(tmp_path):
    for name, shape in dict(flat=(5, 28, 28), grey=(5, 28, 28, 1), colour=(5, 32, 32, 3)).items():
        np.savez(tmp_path / f"{name}.npz", x_train=np.zeros(shape, np.uint8))
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    for mode in ("L", "RGB", "P"):
        image_folder(tmp_path / mode, mode)
    found = {
        name: Config(dataset=tmp_path / name).recipe
        for name in ("flat.npz", "grey.npz", "L", "broken.npz", "nowhere.npz", "colour.npz", "RGB", "P")
    }
    assert list(found.values()) == ["mnist"] * 5 + ["svhn"] * 3
    for mode in ("I;16", "L", "RGB"):
        for inside in ("", "train", "train/a"):
            folder = tmp_path / f"own {inside.replace('/', ' ')} {mode[0]}"
            (folder / inside).mkdir(parents=True)
            (folder / inside / "0.txt").write_text("no picture")
            Image.new(mode, (8, 8)).save(folder / inside / "1.png")
            assert Config(dataset=folder).recipe == ("svhn" if mode == "RGB" else "mnist")
    assert Config(dataset=tmp_path / "colour.npz", recipe="cifar10").recipe == "cifar10"


def test_a_record_needs_no_data(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((5, 32, 32, 3), np.uint8))
    config = Config(dataset=tmp_path / "mine.npz", condition="category", lr_D=1e-3)
    recorded = json.loads(json.dumps(config.to_dict()))
    (tmp_path / "mine.npz").unlink()
    monkeypatch.setattr("aae_prior.recipes.grey_or_colour", None)  # whoever looks at the data fails
    back = Config.from_dict(recorded)
    assert (
        back == config
        and back.given == config.given | dict(recipe="svhn")
        and back.training_key("f") == config.training_key("f")
    )
    assert back.replace(condition="label").lr == 2e-4


def test_the_recipes_are_shown():
    table = recipes_table()
    assert (
        all(row.count("|") == 6 for row in table.splitlines())
        and "`width_D_I` 2 x width" in table
        and "one's own in colour" in table
    )
    for dataset in DATASETS:
        assert dataset in table


def test_what_follows_is_worked_out_again_on_replace():
    config = Config(condition="text")
    assert config.replace(condition="label") == Config() and config.replace(preset="cpu").width == 0.5
    assert Config(epochs=2).replace(steps=5) == Config(steps=5) and Config(steps=5).replace(epochs=2) == Config(
        epochs=2
    )
    assert Config(lr=0.1).replace(lr=None) == Config() and Config(steps=5).replace(epochs=None).steps == 5
    restored = Config.from_dict(config.to_dict())
    assert restored.replace(condition="label", preset="paper") == Config(preset="paper")
    assert "did you mean epochs" in refusal(config.replace, epcohs=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0


def test_steps_of_epochs():
    assert (
        Config(epochs=3, batch_size=10).total_steps(105) == 30
        and Config(epochs=0.5, batch_size=10).total_steps(100) == 5
    )
    assert (
        Config(epochs=1, batch_size=10, n_train=40).total_steps(100) == 4 and Config(epochs=1e-6).total_steps(100) == 1
    )


@pytest.mark.parametrize(
    "values, name, words",
    [
        (dict(steps=5, epochs=1), "steps", "not both"),
        (dict(publish=True, preset="smoke"), "publish", "preset quick"),
        (dict(model="aae", condition="label"), "condition", "takes no condition"),
        (dict(condition="label", label_to="D_I", Q_on_generated=False), "Q_on_generated", "learn nothing"),
        (dict(condition="category", categories=100, model="maae"), "code_dim", "give 101 or more"),
    ],
)
def test_contradictions(values, name, words):
    line = refusal(Config, **values)
    assert line.startswith(f"{name} = ") and words in line


IDLE = [
    (name, beside)
    for name, f in FIELDS.items()
    for other, needed in f.metadata["acts"].items()
    for beside in [
        dict(condition=c) for c in ("none", "label", "category", "text") if other == "condition" and c not in needed
    ]
    + [dict(model="aae")] * (other == "model")
]


@pytest.mark.parametrize("name, beside", IDLE)
def test_a_setting_that_acts_on_nothing(name, beside):
    "Refused where it is given by hand, of no account where it comes along, and no part of the key."
    base, acting = Config(recipe="paper", **beside), BESIDE.get(name, dict(condition="label"))
    line = refusal(Config, **beside | {name: OTHER[name]})
    assert line.startswith(f"{name} = ") and "has no effect with" in line and "leave it out" in line
    assert line == refusal(base.replace, **{name: OTHER[name]})
    given = Config(recipe="paper", **acting | {name: OTHER[name]})
    along = given.replace(model=None, condition=None).replace(**beside)
    assert along == base and along.training_key() == base.training_key()
    assert along.replace(model=None, **acting) == given  # and there again where it acts
    recorded = base.to_dict() | {name: OTHER[name]}  # by a version that did not refuse it
    assert Config.from_dict(recorded) == base and name not in Config.from_dict(recorded).given


def test_settings_against_data():
    digits = dict(n_train=1437, channels=1, classes=10)
    Config(batch_size=1437).check_data(**digits)
    line = refusal(Config(batch_size=1438).check_data, **digits)
    assert "batch_size = 1438" in line and "1437" in line
    assert "64" in (line := refusal(Config(n_train=63).check_data, **digits)) and "63 training images" in line
    Config(n_train=65).check_data(**digits)
    assert "n_train = 1438" in refusal(Config(n_train=1438).check_data, **digits)
    Config().check_data(n_train=6000, channels=3, classes=102)
    assert "102 labels, and the noise; give 103 or more" in refusal(
        Config(model="maae").check_data, n_train=6000, channels=3, classes=102
    )
    assert "give 201 or more" in refusal(
        Config(model="maae", condition="text").check_data, n_train=6000, channels=3, classes=102
    )
    Config(condition="text").check_data(n_train=6000, channels=3, classes=102)
    assert "channels = 4" in refusal(Config().check_data, n_train=6000, channels=4, classes=10)
    assert "no labels, or 1 class" in refusal(Config().check_data, n_train=6000, channels=3, classes=1)
    for condition in ("none", "category", "text"):
        Config(condition=condition).check_data(n_train=6000, channels=3, classes=1)
    lent = Config(condition="text", captions="class")
    assert "no labels, or 1 class" in refusal(lent.check_data, n_train=6000, channels=3, classes=1)


# ---- the machine


def test_device_is_never_replaced_in_silence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device() == resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        assert "which has cpu; give" in refusal(resolve_device, name) and name in refusal(
            Config.from_parameters, dict(device=name)
        )
        assert Config(device=name).device == name  # a configuration recorded elsewhere can be read here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda") and resolve_device("cuda:1") == torch.device("cuda:1")
    assert "cuda, cuda:0, cuda:1, cpu" in refusal(resolve_device, "cuda:2")


def test_dataset_paths(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for typed in ("mine", "./mine", tmp_path / "mine"):
        assert Config.from_parameters(dict(dataset=typed)).dataset == str(tmp_path / "mine")
    assert "no such file" in refusal(Config.from_parameters, dict(dataset="mine/x.npz"))
    line = refusal(Config.from_parameters, dict(dataset="mnits"))
    assert "did you mean mnist?" in line and all(name in line for name in ALLOWED["dataset"][0])
    recorded = Config(dataset="mine").to_dict()
    monkeypatch.chdir("/")
    (tmp_path / "mine").rmdir()
    assert Config.from_dict(recorded).dataset == str(tmp_path / "mine")  # still readable when the data is gone


OTHER = dict(  # a second value for each field, allowed beside the other fields of the base
    dataset="mnist",
    preset="cpu",
    recipe="mnist",
    model="maae",
    condition="none",
    device="mps",
    seed=1,
    run_dir="r",
    out_dir="o",
    publish=True,
    epochs=2.0,
    steps=5,
    n_train=100,
    batch_size=65,
    lr=0.1,
    lr_D=0.1,
    lr_decay=0.5,
    beta1=0.1,
    ema=0.1,
    precision="fp32",
    lam=2.0,
    rec_weight=2.0,
    mi_weight=3.0,
    update="simultaneous",
    gan_loss="saturating",
    r1=1.0,
    consistency=3.0,
    augment=True,
    spectral_norm=True,
    label_to="D_I",
    Q_on_generated=True,
    background="black",
    non_square="pad",
    captions="class",
    encoder="some-model",
    rec_as_fake=False,
    mi_into_D_I=False,
    D_I_updates=2,
    mode_seeking=0.2,
    width=1.0,
    width_D_I=2.0,
    size=64,
    code_dim=65,
    categories=11,
    norm=False,
    stem_stride=1,
    feature_layer=-2,
    stochastic=True,
    eval_every=7,
    n_eval=25,
)
NOT_TRAINED = {
    "preset",
    "recipe",
    "device",
    "run_dir",
    "out_dir",
    "publish",
    "n_eval",
    "background",  # these change the data, whose fingerprint is in the key
    "non_square",
    "captions",
    "encoder",
}  # the sentences count through the data


@pytest.mark.parametrize("name", FIELDS)
def test_key_changes_exactly_with_what_is_trained(name):
    base = Config(width=0.25, steps=1200, **BESIDE.get(name, {}))
    changed = base.replace(**{name: OTHER[name]})
    assert getattr(changed, name) == OTHER[name] != getattr(base, name)
    assert (changed.training_key() == base.training_key()) == (name in NOT_TRAINED)


def test_a_setting_that_came_later_leaves_earlier_keys_alone(monkeypatch):
    config, wider = Config(width=0.25), Config(width=0.5)
    key = config.training_key("f00d")
    earlier = [f for f in dataclasses.fields(Config) if f.name != "r1"]
    monkeypatch.setattr("aae_prior.config.dataclasses.fields", lambda _: earlier)  # as before r1 existed
    assert config.training_key("f00d") == key != wider.training_key("f00d")
    monkeypatch.undo()
    assert config.replace(r1=0).training_key("f00d") == key != config.replace(r1=1).training_key("f00d")
    assert Config.from_dict({k: v for k, v in config.to_dict().items() if k != "r1"}).training_key("f00d") == key


OLD = json.loads((ROOT / "pretrained" / "mnist-label-ours" / "record.json").read_text(encoding="utf-8"))["config"]


@pytest.mark.parametrize("run", sorted(path.parent.name for path in (ROOT / "pretrained").glob("*/record.json")))
def test_records_of_earlier_versions(run):
    recorded = json.loads((ROOT / "pretrained" / run / "record.json").read_text(encoding="utf-8"))["config"]
    config, gone = Config.from_dict(recorded), {*REMOVED_SETTINGS, "rec_scale"}
    assert {name: getattr(config, name) for name in recorded if name not in gone} == {
        name: value for name, value in recorded.items() if name not in gone
    }
    if "recipe" not in recorded:
        assert config.recipe == "paper" and all(name in recorded for name in ("beta2", "noise_dim", "rec_scale"))
    assert Config.from_dict(config.to_dict()) == config and config.noise_length(10) + 10 == recorded.get(
        "noise_dim", config.noise_length(10) + 10
    )


def test_removed_settings_with_another_value():
    assert REMOVED_SETTINGS.keys() | {"rec_scale"} <= OLD.keys() | {"cluster_steps"}
    lighter = Config.from_dict(OLD | dict(rec_scale=1.0, lam=2.0))
    assert (lighter.lam, lighter.rec_weight) == (pytest.approx(0.2), pytest.approx(0.1))
    for name, value in dict(beta2=0.9, dec_in_prior_phase=False, matching_aware=True, cluster_steps=100).items():
        line = refusal(Config.from_dict, OLD | {name: value})
        assert (
            line.startswith(f"{name} = {value}: this run was made by an earlier version")
            and "use that version, or train again" in line
        )
    assert Config.from_dict(OLD | dict(text_steps=20)) == Config.from_dict(OLD)  # there are no sentences
    text = OLD | dict(condition="text", code_dim=128, noise_dim=300, label_to="both", matching_aware=True)
    assert Config.from_dict(text).matching_aware and "text_steps = 20" in refusal(
        Config.from_dict, text | dict(text_steps=20)
    )
    assert "noise_dim = 200" in refusal(Config.from_dict, text | dict(noise_dim=200))
    grouped = OLD | dict(condition="category", label_to="none", Q_on_generated=True, code_dim=100, noise_dim=100)
    assert Config.from_dict(grouped).code_dim == 100 and "noise_dim = 64" in refusal(
        Config.from_dict, grouped | dict(noise_dim=64)
    )


def test_the_width_of_D_I_counts_where_it_differs():
    assert Config(width=0.5).width_D_I == 0.5 and Config(width=0.5, width_D_I=1).width == 0.5
    assert (
        Config(width=0.5, width_D_I=0.5).training_key()
        == Config(width=0.5).training_key()
        != Config(width=0.5, width_D_I=1).training_key()
    )


def test_key_takes_the_data_by_its_content():
    assert (
        Config(dataset="mnist").training_key("aa")
        == Config(dataset="my/mnist.npz").training_key("aa")
        != Config(dataset="mnist").training_key("bb")
    )


def test_record_is_complete_and_json(monkeypatch):
    config = Config(preset="smoke", seed=3, device="cpu")
    found = json.loads(json.dumps(environment(config)))
    assert Config.from_dict(found["config"]) == config and found["given"] == dict(preset="smoke", seed=3, device="cpu")
    assert (
        found["seed"] == 3
        and found["torch"] == torch.__version__
        and found["threads"] == torch.get_num_threads()
        and found["device"] == "cpu"
    )
    assert all(found[name] for name in ("version", "device_name", "cpu", "python", "system"))
    monkeypatch.setenv("PATH", "")
    assert environment(config)["git"] == ""  # no git: no revision, no failure


def test_git_revision_is_that_of_the_checkout_itself(tmp_path):
    def git(*words):
        return subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    assert git_revision(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git("add", "a")
    git("commit", "-qm", "one")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "inside").mkdir()
    assert git_revision(tmp_path / "inside") == ""  # a package inside somebody else's repository
    (tmp_path / "a").write_text("2", encoding="utf-8")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD") + "+changes"


def test_every_field_is_documented():
    table = settings_table().splitlines()
    assert len(table) == len(FIELDS) + 2 and all(row.count("|") == 8 for row in table)
    for f in FIELDS.values():
        assert f.metadata["provenance"] in ("paper", "assumed", "tuned") and f.metadata["meaning"]
        assert not set("=#|") & set(
            f.metadata["meaning"] + f.metadata["by"] + str(f.metadata["allowed"])
        )  # papermill's help would lose the line
        assert f.metadata["default"] is not None or f.metadata["by"]


# ---- notebooks

CHECK = """import json
from aae_prior.parameters import notebook_parameters
extra = dict(rows=(int, 8, "rows of the grid"), seeds=(list[int], [0, 1], "seeds"))
config, own = notebook_parameters(globals(), extra=extra, size=32)
print("config " + json.dumps([config.to_dict(), config.training_key(), own.rows, own.seeds]))"""
CELL = parameters_cell(
    [*PARAMETERS, "norm"], extra=dict(rows=(int, 8, "rows of the grid"), seeds=(list[int], [0, 1], "seeds"))
)


def write(path, *cells):
    "A notebook of `cells`, (source, tags) each."
    nb = nbformat.v4.new_notebook(
        metadata=dict(kernelspec=dict(name="python3", language="python", display_name="python3")),
        cells=[nbformat.v4.new_code_cell(source, metadata=dict(tags=tags)) for source, tags in cells],
    )
    nbformat.write(nb, path)
    return path


RUNS = dict(  # name -> (cells, arguments of papermill)
    typo=([(CELL, ["parameters"]), (CHECK, [])], ["-p", "epcohs", "3"]),
    typed=(
        [(CELL, ["parameters"]), (CHECK, [])],
        [
            "-p",
            "epochs",
            "2",
            "-p",
            "publish",
            "false",
            "-p",
            "seeds",
            "[3, 4]",
            "-y",
            "{rows: '5', norm: 'no', run_dir: None}",
            "-p",
            "overrides",
            "lr=1e-4, beta1 = 0",
        ],
    ),
    lost=([("# imports\nimport math", []), (CELL, []), (CHECK, [])], ["-p", "epochs", "2"]),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "name -> (exit status, what was printed, output notebook) of a real papermill run of each of RUNS; two at a time."
    folder, done, running = tmp_path_factory.mktemp("runs"), {}, []
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")

    def start(name):
        path = write(folder / f"{name}.ipynb", *RUNS[name][0])
        command = [sys.executable, "-m", "papermill", str(path), str(folder / f"{name}_out.ipynb"), *RUNS[name][1]]
        return name, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", env=env, cwd=folder
        )

    def finish(name, process):
        text = process.communicate(timeout=120)[0]
        done[name] = process.returncode, text, nbformat.read(folder / f"{name}_out.ipynb", 4)

    for name in RUNS:
        running.append(start(name))
        if len(running) == 2:
            finish(*running.pop(0))
    for left in running:
        finish(*left)
    return done


def printed(run):
    "What CHECK printed."
    status, text, nb = run
    assert status == 0, text
    line = next(
        o.text for c in nb.cells for o in c.outputs if o.output_type == "stream" and o.text.startswith("config ")
    )
    return json.loads(line.removeprefix("config "))


def error(run):
    "The one line a refused notebook shows."
    status, text, nb = run
    shown = [o.traceback for c in nb.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert status != 0 and len(shown) == 1 and len(shown[0]) == 1 and "\n" not in shown[0][0] and shown[0][0] in text
    return shown[0][0]


def test_papermill_values_are_honoured(runs):
    values, key, rows, seeds = printed(runs["typed"])
    expected = Config(epochs=2, publish=False, lr=1e-4, beta1=0, norm=False)
    assert Config.from_dict(values) == expected and (rows, seeds) == (5, [3, 4])
    assert key == expected.training_key()  # the same in another process


def test_papermill_refusals(runs):
    assert error(runs["typo"]) == "ValueError: epcohs = 3: unknown parameter; did you mean epochs?"
    assert "these values were lost" in error(runs["lost"]) and "tag parameters" in error(runs["lost"])


def test_help_of_papermill(tmp_path):
    path = write(tmp_path / "a.ipynb", (CELL, ["parameters"]), (CHECK, []))
    found = inspect_notebook(path)
    assert list(found) == [*PARAMETERS, "norm", "overrides", "rows", "seeds"]
    listed = found["overrides"]["help"]
    assert (
        all(name in listed for name in FIELDS if name not in (*PARAMETERS, "norm", *BY_NAME_ONLY))
        and "lr_D, lr_decay" in listed
        and " norm" not in listed
    )
    for name, parameter in found.items():
        if name in FIELDS:
            assert parameter["inferred_type_name"] == FIELDS[name].type.__name__ and parameter["help"].startswith(
                FIELDS[name].metadata["meaning"]
            )
        assert parameter["default"] == "None"
    assert found["seeds"]["inferred_type_name"] == "list[int]"
    text = CliRunner().invoke(papermill, ["--help-notebook", str(path)]).output
    for name in found:
        assert f"  {name}: {found[name]['inferred_type_name']}" in text and found[name]["help"] in text


def test_a_runner_without_history(tmp_path):
    "nbdev's test runner keeps no history; the values are then read from the namespace alone."
    pytest.importorskip("execnb")
    path = write(
        tmp_path / "a.ipynb",
        (CELL, ["parameters"]),
        ("preset = 'smoke'", []),
        (CHECK + "\nassert config.steps == 4\nopen('ran', 'w', encoding='utf-8').close()", []),
    )
    code = f"""
import os
from execnb.nbio import read_nb
from execnb.shell import CaptureShell
os.chdir({str(tmp_path)!r})
CaptureShell().run_all(read_nb({str(path)!r}), exc_stop=True)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=dict(os.environ, PYTHONPATH=str(ROOT))
    )
    assert (tmp_path / "ran").exists()


def history(*cells):
    "Globals after `cells` ran in Jupyter."
    namespace = dict(In=["", *cells])
    for cell in cells:
        if "notebook_parameters(" not in cell:
            exec(cell, namespace)
    return namespace


def test_an_interactive_session():
    small, call = parameters_cell(["epochs", "lr"], overrides=False), "config = notebook_parameters(globals())"

    def found(*cells):
        return notebook_parameters(history(*cells))

    assert found("import os", small, call) == Config()
    assert found(small, call, "count = 5", small.replace("None  # passes", "3  # passes"), call) == Config(
        epochs=3
    )  # edited and run again
    assert found(small, call, "count = 5; epochs = 7", call) == Config(epochs=7)  # later names are not parameters
    assert (
        found(small, "# Parameters\nepochs = 3", call, small, call) == Config()
    )  # an output notebook, opened and edited
    assert "did you mean epochs" in refusal(found, small, call, small + "\nepcohs: float = 3", call)
    assert "did you mean epochs" in refusal(found, small, "epcohs = 3", call)
    assert "these values were lost" in refusal(
        found, small, "# Parameters\nepochs = 3", small, call
    )  # two cells of defaults
    assert "these values were lost" in refusal(found, "# Parameters\nepochs = 3", "# Parameters\n" + small, call)
    assert "epochs = 3: this notebook works with epochs 1.0 only" in refusal(
        notebook_parameters, history(small, "# Parameters\nepochs = 3", call), epochs=1.0
    )
    assert notebook_parameters(history(small, "# Parameters\nepochs = 1", call), epochs=1.0) == Config(epochs=1)
    assert "seed = 1: this notebook does not take" in refusal(found, small, "# Parameters\nseed = 1", call)


def test_overrides():
    def found(typed, extra={}, **given):
        return notebook_parameters(dict(overrides=typed) | given, extra, condition="label")

    assert (
        found("r1=1, beta1 = 0") == found(dict(r1="1", beta1=0)) == Config(r1=1, beta1=0)
        and found(None) == found("none") == Config()
    )
    assert "did you mean beta1" in refusal(found, "bata1=0") and refusal(found, "lr=2").startswith(
        "lr = '2': must be > 0 and < 1"
    )
    assert "lr = '1e-3': stands in overrides and as a parameter" in refusal(found, "lr=1e-3", lr=1e-4)
    assert "rows = '3': is a parameter by itself; give -p rows 3" in refusal(
        found, "rows=3", dict(rows=(int, 8, "rows"))
    )
    assert "seed = '1': is a parameter by itself; give -p seed 1" in refusal(found, "seed=1")
    assert "augment = True: has no effect with model aae" in refusal(
        notebook_parameters, dict(overrides="augment=yes", model="aae"), condition="none"
    )
    assert "size = '64': this notebook works with size 32 only" in refusal(
        notebook_parameters, dict(overrides="size=64"), size=32
    )
    assert notebook_parameters(dict(overrides="size=32"), size=32) == Config(size=32)
    assert "this notebook does not take this parameter" in refusal(
        notebook_parameters, dict(overrides="n_eval=50"), unused=["n_eval"]
    )
    cell = parameters_cell(["steps"])
    assert 'lr = 0.1: no parameter of this notebook by itself; give -p overrides "lr=0.1"' in refusal(
        notebook_parameters, history(cell, "# Parameters\nlr = 0.1", "config = notebook_parameters(globals())")
    )
    assert "seed = '1': this notebook does not take" in refusal(
        notebook_parameters,
        history(cell, "# Parameters\noverrides = 'seed=1'", "config = notebook_parameters(globals())"),
    )


def test_a_notebook_of_several_conditions():
    rows = [dict(condition=condition) for condition in ("none", "label", "category")]
    config = notebook_parameters(dict(overrides="consistency=2, mi_weight=1"), variants=rows)
    assert config.condition == "label" and config.mi_weight == 1 and config.consistency == 0
    assert [config.replace(**row).consistency for row in rows] == [0, 0, 2] and config.replace(
        condition="none"
    ).mi_weight == Config().mi_weight
    assert "captions = 'class': has no effect with condition none" in refusal(
        notebook_parameters, dict(overrides="captions=class"), variants=rows
    )


@pytest.mark.parametrize(
    "typed, value",
    [("0,1,2", [0, 1, 2]), ("[0, 1]", [0, 1]), ([0, "1"], [0, 1]), (4, [4]), ("none", [9]), (None, [9]), ("", [9])],
)
def test_lists_of_a_notebook(typed, value):
    assert (
        notebook_parameters(dict(seeds=typed), extra=dict(seeds=(list[int], [9], "seeds", Between(0))))[1].seeds
        == value
    )


@pytest.mark.parametrize("typed", ["0,-1", "0,,1", "[]", [], [0, None], [[0]], "a", True, {"a": 1}, 1.5])
def test_lists_that_are_refused(typed):
    assert refusal(
        notebook_parameters, dict(seeds=typed), extra=dict(seeds=(list[int], [9], "seeds", Between(0)))
    ).startswith("seeds = ")


# ---- the notebooks of this repository


def wrong_in(nb):
    "What is wrong with the parameters of a notebook, as a list of sentences; None for a notebook without parameters."
    tagged = [i for i, cell in enumerate(nb.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        return None
    if len(tagged) > 1:
        return ["more than one tagged cell"]
    cell, following = nb.cells[tagged[0]], next((c for c in nb.cells[tagged[0] + 1 :] if c.cell_type == "code"), None)
    wrong = (
        []
        if following and "notebook_parameters(" in following.source
        else ["no notebook_parameters straight after the cell"]
    )
    for node in ast.parse(cell.source).body:
        if not isinstance(node, ast.AnnAssign):
            wrong.append(f"line {node.lineno} is no annotated literal")
            continue
        name, kind = node.target.id, ast.unparse(node.annotation)
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            wrong.append(f"{name} is no literal")
            continue
        if "#" not in cell.source.splitlines()[node.lineno - 1]:
            wrong.append(f"{name} has no comment")
        if name not in FIELDS:
            if name == "overrides":
                declared = [line.split(":")[0] for line in cell.source.splitlines()]
                if cell.source.splitlines()[node.lineno - 1] != overrides_line(declared):
                    wrong.append("overrides does not list the settings that are not declared")
            elif f'"{name}"' not in following.source and f"{name}=" not in following.source:
                wrong.append(f"{name} is neither a setting nor declared in extra")
        elif kind != FIELDS[name].type.__name__:
            wrong.append(f"{name} is a {kind}, in Config a {FIELDS[name].type.__name__}")
        elif (
            kind == "str"
            and name != "model"
            and isinstance(FIELDS[name].metadata["allowed"], OneOf)
            and str(FIELDS[name].metadata["allowed"]) not in cell.source.splitlines()[node.lineno - 1]
        ):
            wrong.append(f"{name} does not list {FIELDS[name].metadata['allowed']}")  # a notebook may leave out models
        elif value is not None and name in PRESETS["smoke"]:
            wrong.append(f"{name} shadows the presets")
        elif value is not None:
            Config(**{name: value})  # a deliberate default must itself be allowed
        line, field = cell.source.splitlines()[node.lineno - 1], FIELDS.get(name)
        if field and f"# {field.metadata['meaning']} " in line and line != parameters_cell([name], overrides=False):
            wrong.append(f"{name} is not as parameters_cell writes it")
    return wrong


PAPER_NOTEBOOKS = [
    path for path in sorted((ROOT / "nbs").glob("*.ipynb")) if wrong_in(nbformat.read(path, 4)) is not None
]


@pytest.mark.parametrize("path", PAPER_NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_cell_agrees_with_config(path):
    assert wrong_in(nbformat.read(path, 4)) == []


def test_the_check_of_parameters_cells_sees_what_is_wrong(tmp_path):
    def found(cell, check=CHECK, tags=("parameters",)):
        return wrong_in(nbformat.read(write(tmp_path / "a.ipynb", (cell, list(tags)), (check, [])), 4))

    assert found(CELL) == [] and found(CELL, tags=()) is None
    assert found("width: float = 0.5  # w") == ["width shadows the presets"] and found("epochs: int = None  # e") == [
        "epochs is a int, in Config a float"
    ]
    assert found("epcohs: float = None  # e") == ["epcohs is neither a setting nor declared in extra"] and found(
        "lr: float = None"
    ) == ["lr has no comment"]
    assert found("update: str = None  # u: simultaneous") == ["update does not list simultaneous, alternating"]
    assert found("lr = None  # l") == ["line 1 is no annotated literal"] and found("lr: float = 1 + lam  # l") == [
        "lr is no literal"
    ]
    assert found(overrides_line([])) == [] and found("lr: float = None  # l\n" + overrides_line([])) == [
        "overrides does not list the settings that are not declared"
    ]
    assert found(parameters_cell(["lr"], overrides=False).replace("the recipe's", "my")) == [
        "lr is not as parameters_cell writes it"
    ]
    assert found("lr: float = None  # l", check="pass") == ["no notebook_parameters straight after the cell"]
