"""The benchmark measures what it says: who runs when, what is counted, which rows come out. No test asserts a time."""

import csv
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aae_prior import batches, benchmark, networks, reference, training
from aae_prior.config import Config
from aae_prior.runs import prepare_data

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tiny():
    config = Config(preset="smoke", precision="fp32")
    return config, prepare_data(config)


def test_contestants_take_turns_and_the_warm_up_is_left_out():
    turns = []
    calls = benchmark.interleaved({name: lambda name=name: turns.append(name) for name in "abc"}, repeats=3, warm_up=2)
    assert turns == list("abc") * 5
    assert {name: len(of_one) for name, of_one in calls.items()} == dict(a=3, b=3, c=3)


def test_the_median_counts():
    calls = [benchmark.Call(s, 1.0) for s in (9.0, 1.0, 2.0)]
    assert benchmark.seconds(calls) == statistics.median([9.0, 1.0, 2.0])
    assert benchmark.had_the_machine({"a": calls, "b": calls}, threads=2) == pytest.approx(6 / 24 / 2)


def test_every_call_is_a_step_of_its_own(tiny, monkeypatch):
    seen = []
    real = batches.draw
    monkeypatch.setattr(benchmark, "draw", lambda data, config, i: seen.append(i) or real(data, config, i))
    call = benchmark.plain_step(*tiny, careful=True)
    call(), call()
    assert seen == [0, 1]


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("careful", [False, True])
def test_the_plain_reference_makes_the_update_of_the_step(tiny, update, careful):
    config, data = tiny[0].replace(update=update), tiny[1]
    plain, ours = (networks.build(config, data.channels, data.classes).double() for _ in "ab")
    benchmark.as_tabulated(plain)
    b = batches.draw(data, config, 0)
    b = batches.Batch(
        **{name: value.double() if isinstance(value, torch.Tensor) else value for name, value in vars(b).items()}
    )
    reference.reference_step(plain, training.optimisers(plain, config), b, config, careful)
    training.step(ours, training.optimisers(ours, config), b, config)
    started = networks.build(config, data.channels, data.classes).double().state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert sum(not torch.equal(started[name], value) for name, value in ours.state_dict().items()) > 50


def test_a_process_apart_takes_steps_and_names_its_failure():
    apart = benchmark.Apart("careful", dict(preset="smoke", precision="fp32"), "digits", OMP_NUM_THREADS="1")
    assert all(isinstance(apart(), benchmark.Call) for _ in "ab")
    apart.close()
    wrong = benchmark.Apart("ours", dict(epcohs=3), "digits")
    with pytest.raises(RuntimeError, match="failed: .*epcohs"):
        wrong()
    wrong.close()


def test_digits_stand_in_for_what_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_DATA", str(tmp_path))
    found = {name: benchmark.stand_in(name) for name in ("digits", "mnist", "cifar10")}
    assert {name: (data.name, data.channels, data.s_train is not None) for name, data in found.items()} == dict(
        digits=("digits", 1, True), mnist=("digits for mnist", 1, True), cifar10=("digits for cifar10", 3, True)
    )


def test_the_parts_cost_what_the_step_costs_at_any_batch(tiny):
    config, data = tiny
    small, wide = (benchmark.operations(c, data) for c in (config, config.replace(batch_size=8, width=0.25)))
    assert small == benchmark.operations(config.replace(batch_size=8), data)
    assert list(small) == ["D_I(x)", "AAE phase", "prior phase"] and all(wide[part] > small[part] > 0 for part in small)
    aae = config.replace(model="aae", condition="none")
    assert list(benchmark.operations(aae, prepare_data(aae))) == ["AAE phase"]


def test_layers_of_one_shape_are_measured_once(tiny):
    config, data = tiny
    nets = networks.build(config, data.channels, data.classes)
    found = benchmark.distinct_layers(nets, batches.draw(data, config, 0))
    shapes = [(type(layer), tuple(layer.weight.shape), tuple(x.shape)) for layer, x in found.values()]
    assert len(set(shapes)) == len(shapes)
    assert {name.split(".")[0] for name in found} == {"enc", "dec", "D_I"}
    assert all(not module._forward_hooks for module in nets.modules())


def test_a_rate_counts_a_multiply_add_as_two(monkeypatch):
    monkeypatch.setattr(
        benchmark,
        "interleaved",
        lambda contestants, repeats: {"": [benchmark.Call(2.0, 2.0), benchmark.Call(4.0, 4.0)]},
    )
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert benchmark.rate(lambda: a @ b) == 2 * 3 * 5 * 7 / 2.0


def test_the_parts_of_a_step_add_up(tiny):
    parts = benchmark.time_split(*tiny, steps=1)
    assert sum(parts.values()) == pytest.approx(1) and min(parts.values()) > 0
    assert set(parts) == {"networks and optimisers", "Python between them", "data", "logging"}


def test_rows_of_other_machines_stay(tmp_path):
    table = tmp_path / "benchmark.csv"
    ours = dict(
        dataset="digits",
        channels=1,
        model="ours",
        width=0.5,
        batch=64,
        precision="fp32",
        threads=2,
        device="cpu",
        hardware="here",
        images_per_second="2",
    )
    benchmark.merge_benchmark(table, [ours, ours | dict(hardware="there")])
    benchmark.merge_benchmark(
        table,
        [ours | dict(images_per_second="3"), ours | dict(precision="bf16", images_per_second="not measured: no units")],
    )
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [(row["hardware"], row["precision"], row["images_per_second"]) for row in rows] == [
        ("here", "fp32", "3"),
        ("there", "fp32", "2"),
        ("here", "bf16", "not measured: no units"),
    ]
    assert list(rows[0]) == benchmark.COLUMNS


def test_a_failing_process_is_named_in_one_line():
    with pytest.raises(RuntimeError, match="peak_memory.*failed: .*epcohs"):
        benchmark.in_new_process("peak_memory", dict(epcohs=3))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    "The notebook at its smallest, with bf16 whether or not the machine is fast with it"
    folder = tmp_path_factory.mktemp("benchmark")
    environment = os.environ | dict(AAE_PRIOR_RUNS=str(folder / "runs"), OMP_NUM_THREADS="1")
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "nbs" / "benchmark.ipynb"),
        str(folder / "out.ipynb"),
        "-p",
        "preset",
        "smoke",
        "-p",
        "out_dir",
        str(folder),
        "-p",
        "precisions",
        "fp32,bf16",
        "-p",
        "threads",
        "1",
    ]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_notebook_writes_a_row_for_each_model_and_precision(smoke):
    rows = list(csv.DictReader((smoke / "benchmark.csv").open(encoding="utf-8")))
    assert [(row["model"], row["precision"]) for row in rows] == [
        (m, p) for m in ("ours", "ours without condition", "aae") for p in ("fp32", "bf16")
    ]
    for row in rows:
        assert row["dataset"] == "digits" and float(row["width"]) == 0.125 and row["batch"] == "32" and row["hardware"]
        assert float(row["slowest"]) <= float(row["images_per_second"]) <= float(row["fastest"])
        assert 0 < float(row["share_of_peak"]) < 1.5 and float(row["gflop_per_image"]) > 0
        assert row["command"].startswith("papermill nbs/benchmark.ipynb") and str(smoke) not in row["command"]
    ours = [row for row in rows if row["model"] == "ours"]
    assert all(
        float(row["ratio_to_reference"]) > 0 and float(row["ratio_to_careful"]) > 0 and not row["ratio_to_pythae"]
        for row in ours
    )
    others = {row["pythae"]: row["ratio_to_pythae"] for row in rows if row["model"] != "ours"}
    assert set(others) == {"AAE", "VAEGAN"}
    assert all(
        value.startswith("not measured: pythae is not installed") or float(value) > 0 for value in others.values()
    )


@pytest.mark.slow
def test_the_notebook_reports_memory_start_up_and_shares(smoke):
    rows = list(csv.DictReader((smoke / "results.csv").open(encoding="utf-8")))
    assert {row["metric"] for row in rows} == {
        "peak_memory_GiB",
        "start_up_seconds",
        "share_in_networks_and_optimisers",
    }
    assert all(float(row["value"]) > 0 for row in rows)
