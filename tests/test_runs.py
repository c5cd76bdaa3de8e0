"""A run survives interruption, damage and full disks, and the same seed gives the same files."""

import copy
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from aae_prior import batches, checkpoints, files, networks, norm_stats, runs, sampling, training, watch
from aae_prior.config import Config
from aae_prior.data import load as load_data
from aae_prior.files import CannotWrite
from aae_prior.runs import RunLocked, fit, load
from aae_prior.watch import Diverged

TINY = Config(preset="smoke", dataset="digits", n_train=50, batch_size=8, steps=12, eval_every=5)  # 6 steps an epoch
PLAIN = TINY.replace(model="aae")  # twice as fast: for what does not depend on the model


def leaves(state, at=""):
    "All tensors and values in a nested state, by their path."
    if isinstance(state, dict):
        pairs = state.items()
    elif isinstance(state, (list, tuple)):
        pairs = enumerate(state)
    else:
        return {at: state}
    return {k: v for key, part in pairs for k, v in leaves(part, f"{at}/{key}").items()}


def same_state(a, b):
    a, b = leaves(a), leaves(b)

    def equal(x, y):
        return torch.equal(x, y) and x.dtype == y.dtype if isinstance(x, torch.Tensor) else x == y

    return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)


def assert_same_run(a, b):
    "Two complete runs agree bit for bit: networks, buffers, optimisers, logs, pictures."
    assert a.complete and b.complete
    assert same_state(checkpoints.newest_checkpoint(a.dir), checkpoints.newest_checkpoint(b.dir))
    for name in ("history.csv", "evaluations.csv", "filmstrip.npz", "weights.safetensors"):
        assert (a.dir / name).read_bytes() == (b.dir / name).read_bytes(), name


def no_leftovers(folder):
    return not list(Path(folder).rglob("*.tmp"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    "The uninterrupted run all others are compared with."
    return fit(TINY, root=tmp_path_factory.mktemp("straight"), progress=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fit(PLAIN, root=tmp_path_factory.mktemp("plain"), progress=False)


# Resuming


def test_a_straight_run_is_complete(straight):
    assert straight.complete and straight.step == 12 and straight.record["steps"] == 12
    assert no_leftovers(straight.dir) and len(checkpoints.checkpoints(straight.dir)) == 2
    assert not straight.nets.training


def test_resuming_equals_straight_training(straight, tmp_path):
    stops = 1, 4, 5, 6, 11  # in an epoch, at an evaluation, at an epoch's end
    for stop in stops:
        part = fit(TINY, root=tmp_path, progress=False, until=stop)
        assert part.step == stop and not part.complete
    whole = fit(TINY, root=tmp_path, progress=False)
    assert_same_run(straight, whole)
    assert [s["last_step"] for s in whole.record["sittings"]] == [*stops, 12]
    assert whole.record["wall_seconds"] == pytest.approx(sum(s["seconds"] for s in whole.record["sittings"]), abs=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        dict(model="maae", condition="category"),
        dict(model="aae", stochastic=True),
        dict(ema=0.9, condition="none", update="simultaneous"),
        dict(lr_decay=0.7),
    ],
    ids=str,
)
def test_every_model_resumes(tmp_path, settings):
    config = TINY.replace(steps=3, eval_every=3, **settings)
    straight = fit(config, root=tmp_path / "a", progress=False)
    fit(config, root=tmp_path / "b", progress=False, until=2)
    assert_same_run(straight, fit(config, root=tmp_path / "b", progress=False))


def test_sentences_come_with_the_data(tmp_path):
    data = load_data("digits")
    config = TINY.replace(condition="text", steps=2, code_dim=16, eval_every=None)
    with pytest.raises(ValueError, match="has no sentence codes"):
        fit(config, data, root=tmp_path)

    def codes(n, seed):
        return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))

    data = data.with_condition(codes(len(data), 1), codes(len(data.x_test), 2))
    run = fit(config, data, root=tmp_path, progress=False)
    assert run.record["data"]["condition_dim"] == 12 and len(next(iter(run.frames.values()))) == 64
    other = data.with_condition(codes(len(data), 3), data.s_test)
    assert runs.run_folder(config, runs.prepare_data(config, other), tmp_path) != run.dir


def test_a_complete_run_is_not_trained_again(straight, monkeypatch):
    monkeypatch.setattr(runs, "step", lambda *_: pytest.fail("trained again"))
    before = {p: p.stat().st_mtime_ns for p in straight.dir.rglob("*")}
    again = fit(TINY, root=straight.dir.parent, progress=False)
    assert again.dir == straight.dir and all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_a_run_is_found_by_what_changes_its_result():
    def folder(**kw):
        return runs.run_folder(TINY.replace(**kw), runs.prepare_data(TINY.replace(**kw)), "r").name

    assert folder() == folder(device="cpu") == folder(out_dir="x") == folder(n_eval=70)
    assert folder().startswith("digits-label-ours-")
    names = [folder(), folder(seed=1), folder(lam=2), folder(n_train=60), folder(steps=13), folder(model="maae")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "settings", [dict(model="aae"), dict(model="ours"), dict(model="ours", spectral_norm=True)], ids=str
)
@pytest.mark.parametrize("killed_in", ["write_csv", "finish"])
def test_killed_between_the_last_checkpoint_and_the_rest(tmp_path, monkeypatch, settings, killed_in):
    config = TINY.replace(steps=3, eval_every=3, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(runs, killed_in, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(config, root=tmp_path, progress=False)
    assert checkpoints.newest_checkpoint(next(tmp_path.iterdir()))["step"] == 3
    assert_same_run(fit(config, root=tmp_path / "straight", progress=False), fit(config, root=tmp_path, progress=False))


@pytest.mark.parametrize("lr_decay", [0.5, 0.0])
def test_both_rates_fall_at_the_end_of_a_run(tmp_path, lr_decay):
    run = fit(TINY.replace(steps=4, eval_every=4, lr_decay=lr_decay, lr=1e-3, lr_D=2e-3), root=tmp_path, progress=False)
    rates = training.learning_rates(run.config, 3 / 4)  # those of the last of four steps
    assert rates["enc"] == pytest.approx(1e-3 * (0.5 if lr_decay else 1))
    for name, opt in checkpoints.newest_checkpoint(run.dir)["opts"].items():
        assert [group["lr"] for group in opt["param_groups"]] == [rates[name]]


# Same seed, same files


def test_same_seed_same_files_other_seed_others(straight, tmp_path):
    again = fit(TINY, root=tmp_path, progress=False)
    assert_same_run(straight, again)
    assert all(torch.equal(a, b) for a, b in zip(straight.frames.values(), again.frames.values()))
    other = fit(TINY.replace(seed=1), root=tmp_path, progress=False, until=2)
    assert other.history[0]["step"] == 2 and other.history[0] != again.history[0]


def test_how_often_one_saves_changes_nothing(plain, tmp_path):
    assert_same_run(plain, fit(PLAIN, root=tmp_path, progress=False, checkpoint_seconds=0))


def test_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(PLAIN.replace(steps=2), root=tmp_path, progress=False)
    assert torch.equal(before, torch.get_rng_state()) and (numpy_before == np.random.get_state()[1]).all()
    torch.manual_seed(4)
    assert_same_run(
        fit(PLAIN.replace(steps=2), root=tmp_path, progress=False),
        fit(PLAIN.replace(steps=2), root=tmp_path / "b", progress=False),
    )


# History and record


def test_history_holds_means_of_everything_without_gaps(straight):
    steps = [row["step"] for row in straight.history]
    assert steps == sorted(set(steps)) and {6, 12} <= set(steps) and len(steps) >= 10
    for row in straight.history:
        assert {
            "epoch",
            "L_D_C",
            "L_GAN_C",
            "L_rec",
            "L_D_I",
            "L_GAN_I",
            "L_MI",
            "mi_bound",
            "acc_D_C",
            "acc_D_I",
        } <= row.keys()
        assert row["epoch"] == pytest.approx(row["step"] / 6, abs=1e-4) and all(math.isfinite(v) for v in row.values())
        assert row["mi_bound"] <= math.log(10)
    assert straight.history == checkpoints.newest_checkpoint(straight.dir)["history"]


def test_a_row_is_the_mean_over_its_steps(tmp_path):
    config = PLAIN.replace(epochs=20, steps=None)  # 120 steps: a row an epoch
    part = fit(config, root=tmp_path, progress=False, until=6)
    data = runs.prepare_data(config)
    nets = networks.build(config, 1)
    opts = training.optimisers(nets, config)
    losses = [training.step(nets, opts, batches.draw(data, config, i), config) for i in range(6)]
    assert len(part.history) == 1
    for name in losses[0]:
        assert part.history[0][name] == pytest.approx(np.mean([l[name].item() for l in losses]), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "epochs, per_epoch",
    [(3, 22), (1, 937), (1.28, 937), (9, 937), (10, 50), (54.5, 22), (200, 6), (386, 22), (5000, 2)],
)
def test_how_many_rows(epochs, per_epoch):
    steps = round(epochs * per_epoch)
    ends = [i for i in range(1, steps + 1) if runs.row_ends(i, steps, per_epoch)]
    assert min(10, steps) <= len(ends) <= 201 and ends[-1] == steps
    if epochs <= 200:
        assert {round(e * per_epoch) for e in range(1, int(epochs) + 1)} <= set(ends)
    if 10 <= epochs <= 200:
        assert len(ends) == math.ceil(epochs)


def test_record_says_what_was_trained_on_what(straight):
    record = json.loads((straight.dir / "record.json").read_text(encoding="utf-8"))
    assert (
        Config.from_dict(record["config"]) == TINY
        and record["data"]["fingerprint"] == runs.prepare_data(TINY).fingerprint
    )
    (sitting,) = record["sittings"]
    assert {"version", "git", "device_name", "threads", "torch", "precision"} <= sitting.keys()
    assert sitting["seconds"] > 0 and sitting["peak_memory_bytes"] > 2**20 and sitting["images_per_second"] > 0


def test_filmstrip_is_the_same_noise_growing(straight):
    assert list(straight.frames) == [5, 10, 12] == [r["step"] for r in straight.evaluations]
    z, s, columns = watch.evaluation_inputs(TINY, runs.prepare_data(TINY))
    now = sampling.generate(straight.nets, z, s)
    assert columns == 10 and (straight.frames[12] - now).abs().max() <= 1 / 127.5


# Loading


def test_load_needs_no_data_and_equals_what_was_trained(straight, monkeypatch, tmp_path):
    copy = shutil.copytree(straight.dir, tmp_path / "elsewhere")
    monkeypatch.setattr(runs, "load_data", lambda *_, **__: pytest.fail("data loaded"))
    run = load(copy, device="cpu")
    assert run.config == straight.config and run.history == straight.history
    assert same_state(run.nets.state_dict(), checkpoints.newest_checkpoint(straight.dir)["nets"])
    assert same_state(fit(TINY.given and Config(run_dir=str(copy))).nets.state_dict(), run.nets.state_dict())


def test_checkpoints_open_with_weights_only_and_hold_everything(straight):
    for path in checkpoints.checkpoints(straight.dir):
        state = torch.load(path, weights_only=True, map_location="meta")
        assert {"nets", "opts", "step", "row", "history"} <= state.keys() and state["nets"][
            "enc.stem.weight"
        ].device.type == "meta"


def test_averaged_weights_are_kept(tmp_path):
    run = fit(TINY.replace(ema=0.5, steps=3), root=tmp_path, progress=False)
    pairs = zip(run.nets.average["dec"].parameters(), run.nets.dec.parameters())
    assert not all(torch.equal(a, b) for a, b in pairs)


# Statistics of what draws
def test_a_run_is_the_same_however_often_it_is_evaluated(straight, tmp_path):
    often = fit(TINY.replace(eval_every=2), root=tmp_path, progress=False)
    assert same_state(often.nets.state_dict(), straight.nets.state_dict())
    assert often.record["statistics"] == "own"
    z, s = batches.sample_noise(TINY, 8, condition_dim=10), torch.eye(10)[:8]
    now, kept = sampling.generate(straight.nets, z, s), sampling.generate(straight.nets_at(12), z, s)
    assert (now - kept).abs().max() < 0.1  # a snapshot has half the bits, and its own statistics


def test_an_incomplete_run_draws_through_its_own_statistics_too(straight, tmp_path):
    part = fit(TINY, root=tmp_path, progress=False, until=8)
    expected = copy.deepcopy(part.nets)
    norm_stats.recompute_prior_stats(expected, TINY, 10)
    assert part.record["statistics"] == "own" and same_state(expected.state_dict(), part.nets.state_dict())


def test_a_run_from_before_says_that_its_statistics_are_mixed(straight, tmp_path):
    old = Path(shutil.copytree(straight.dir, tmp_path / "old"))
    runs.write_record(old, {k: v for k, v in runs.read_record(old).items() if k != "statistics"})
    with pytest.warns(UserWarning, match="mixed .*aae-prior recompute-stats"):
        run = load(old)
    assert run.record["statistics"] == "mixed" and same_state(run.nets.state_dict(), straight.nets.state_dict())


def test_a_run_from_before_without_averages_draws_from_its_last_weights(tmp_path):
    run = fit(TINY.replace(ema=0), root=tmp_path, progress=False)
    weights = {k: v for k, v in run.nets.state_dict().items() if not k.startswith("average.")}
    filled = runs.with_average(weights)
    assert filled.keys() == run.nets.state_dict().keys() and torch.equal(
        filled["average.dec.image.weight"], weights["dec.image.weight"]
    )


def test_named_run_must_be_the_one_that_was_asked_for(straight, tmp_path):
    assert fit(Config(run_dir=str(straight.dir), model="ours")).dir == straight.dir
    with pytest.raises(ValueError, match=r"model = 'maae': the run in run_dir .* has model 'ours'"):
        fit(Config(run_dir=str(straight.dir), model="maae"))
    with pytest.raises(FileNotFoundError, match="no run folder"):
        load(tmp_path)
    part = fit(TINY.replace(seed=9), root=tmp_path, progress=False, until=5)
    with pytest.warns(UserWarning, match="step 5 of 12"):
        fit(Config(run_dir=str(part.dir)))


@pytest.mark.parametrize("until, missing", [(1, "history"), (4, "evaluations"), (5, "filmstrip")])
def test_a_named_run_with_nothing_to_show_is_refused(tmp_path, until, missing):
    part = fit(PLAIN, root=tmp_path, progress=False, until=until)
    if missing == "filmstrip":
        (part.dir / "filmstrip.npz").unlink()
    with pytest.raises(
        ValueError, match=rf"{part.dir} has no {missing} yet \(it is at step {until} of 12\); train it further"
    ) as seen:
        fit(Config(run_dir=str(part.dir)))
    assert "\n" not in str(seen.value)


def images_file(path, dark):
    "A data set in the file `path`."
    x = np.random.default_rng(0).integers(0, dark, (64, 32, 32), dtype=np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(64) % 2)
    return str(path)


@pytest.mark.parametrize("condition", ["none", "category"])
def test_pictures_without_labels_are_trained_on(tmp_path, condition):
    x = np.random.default_rng(0).integers(0, 255, (80, 32, 40), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x)
    config = Config(preset="smoke", dataset=tmp_path / "mine.npz", condition=condition, steps=1)
    run = fit(config, root=tmp_path / "runs")
    assert run.record["data"]["classes"] == 1 and "central square" in run.record["data"]["caveat"]
    assert runs.data_of(run).fingerprint == run.record["data"]["fingerprint"]
    padded = config.replace(non_square="pad", background="black")
    other = runs.prepare_data(padded)
    assert other.x_train[:, :, 0].max() == 0 and "padded to squares with black" in other.caveat
    assert runs.run_folder(padded, other, tmp_path / "runs") != run.dir
    with pytest.raises(ValueError, match="^mine has no labels, or a single class: no classifier"):
        runs.classifier_of(other, tmp_path)
    with pytest.raises(ValueError, match="^condition = 'label': the data has no labels.*choose condition none or"):
        runs.prepare_data(Config(preset="smoke", dataset=tmp_path / "mine.npz"))


def test_a_run_is_measured_on_its_own_data(tmp_path):
    run = fit(
        Config(preset="smoke", dataset=images_file(tmp_path / "a.npz", 255), model="aae", steps=1),
        root=tmp_path / "runs",
        progress=False,
    )
    assert runs.data_of(run).fingerprint == run.record["data"]["fingerprint"]
    images_file(tmp_path / "a.npz", 100)
    with pytest.raises(
        ValueError,
        match=rf"the run {run.dir} was trained on other data than .*a.npz is here .*; put its own data there",
    ) as seen:
        runs.data_of(run)
    assert "\n" not in str(seen.value)
    (tmp_path / "a.npz").unlink()
    assert not hasattr(runs.data_of(run), "x_train") and runs.data_of(run).name == "a"


def test_a_run_without_a_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "train", lambda *_: None)
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        fit(PLAIN, root=tmp_path, progress=False)


# Damage


def damage(path, how):
    payload = bytearray(path.read_bytes())
    if how == "half":
        payload = payload[: len(payload) // 2]
    if how == "empty":
        payload = b""
    if how == "a flipped bit":
        payload[len(payload) // 3] ^= 1
    path.write_bytes(payload)


@pytest.mark.parametrize("how", ["half", "empty", "a flipped bit"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(plain, tmp_path, how):
    part = fit(PLAIN, root=tmp_path, progress=False, until=7)
    newest, previous = checkpoints.checkpoints(part.dir)
    damage(newest, how)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        assert load(part.dir).step == int(previous.name[:8]) == 5
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        whole = fit(PLAIN, root=tmp_path, progress=False)
    assert_same_run(plain, whole)


def test_all_checkpoints_damaged(plain, tmp_path):
    part = fit(PLAIN, root=tmp_path, progress=False, until=7)
    for path in checkpoints.checkpoints(part.dir):
        damage(path, "half")
    with pytest.warns(UserWarning) as seen:
        whole = fit(PLAIN, root=tmp_path, progress=False)
    assert sum("is damaged" in str(w.message) for w in seen) == 2
    assert_same_run(plain, whole)


def test_damaged_weights_fall_back_to_the_checkpoint(plain, tmp_path):
    copy = shutil.copytree(plain.dir, tmp_path / "run")
    damage(copy / "weights.safetensors", "a flipped bit")
    with pytest.warns(UserWarning, match="weights.safetensors is damaged"):
        run = load(copy)
    assert same_state(run.nets.state_dict(), plain.nets.state_dict())
    (copy / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="record.json is damaged"):
        load(copy)


# One process a run


def test_the_second_process_is_refused(tmp_path):
    folder = runs.run_folder(PLAIN, runs.prepare_data(PLAIN), tmp_path)
    hold = (
        "import sys, time; from pathlib import Path; from aae_prior import runs\n"
        "with runs.run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLocked) as seen:
            fit(PLAIN, root=tmp_path, progress=False)
        assert "\n" not in str(seen.value) and str(folder) in str(seen.value)
    finally:
        holder.kill()
        holder.wait()
    assert fit(PLAIN, root=tmp_path, progress=False, until=1).step == 1


# Disks


def test_a_full_disk_leaves_the_last_good_checkpoint(plain, tmp_path, monkeypatch):
    part = fit(PLAIN, root=tmp_path, progress=False, until=5)

    class Full(runs.io.FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(
            files,
            "open",
            lambda path, mode, **kw: Full(path, mode) if "w" in mode else open(path, mode, **kw),
            raising=False,
        )
        with pytest.raises(CannotWrite) as seen:
            fit(PLAIN, root=tmp_path, progress=False)
    assert "No space left on device" in str(seen.value) and "\n" not in str(seen.value)
    assert no_leftovers(part.dir) and load(part.dir).step == 5
    assert_same_run(plain, fit(PLAIN, root=tmp_path, progress=False))


# Divergence and collapse


@pytest.mark.parametrize(
    "broken, named",
    [("L_rec", "L_rec .it trains enc and dec"), ("acc_D_I", "acc_D_I"), ("weight", "no loss, but a parameter of dec")],
)
def test_divergence_stops_within_the_step(tmp_path, monkeypatch, broken, named):
    def step(nets, opts, batch, config):
        losses = training.step(nets, opts, batch, config)
        step.calls += 1
        if step.calls == 8 and broken == "weight":
            next(nets.dec.parameters()).data[0, 0] = math.inf
        return losses | ({broken: torch.tensor(math.nan)} if step.calls >= 8 and broken != "weight" else {})

    step.calls = 0
    monkeypatch.setattr(runs, "step", step)
    with pytest.raises(
        Diverged, match=rf"at step 8 \(epoch 1.33\): not finite is {named}.*last good checkpoint: step 5 "
    ) as seen:
        fit(TINY, root=tmp_path, progress=False)
    assert step.calls == 8 and "\n" not in str(seen.value)
    (folder,) = tmp_path.iterdir()
    assert load(folder).step == 5 and all(math.isfinite(v) for row in load(folder).history for v in row.values())


def test_weights_that_explode_are_seen_in_the_loss(tmp_path, monkeypatch):
    def step(nets, opts, batch, config):
        step.calls += 1
        if step.calls == 3:
            nets.D_C[0].weight.data.mul_(1e38)
            nets.D_C[2].weight.data.mul_(1e38)
        return training.step(nets, opts, batch, config)

    step.calls = 0
    monkeypatch.setattr(runs, "step", step)
    with pytest.raises(
        Diverged, match=r"at step 3 .*not finite is L_D_C \(it trains D_C\).*last good checkpoint: none yet"
    ):
        fit(PLAIN, root=tmp_path, progress=False)


def collapsed_images(kind, s):
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(len(s), 1, 32, 32, generator=g) * 2 - 1
    prototypes = (torch.rand(s.shape[1], 1, 32, 32, generator=g) * 2 - 1)[s.argmax(1)]
    return {"all alike": noise * 0.01, "prototypes": prototypes, "lively": noise}[kind]


@pytest.mark.parametrize("kind, sign", [("all alike", "identical"), ("prototypes", "one picture"), ("lively", None)])
def test_collapse_is_told_by_diversity(straight, kind, sign):
    data = runs.prepare_data(TINY)
    _, s, _ = watch.evaluation_inputs(TINY, data)
    row = watch.collapse_indicators(straight.nets, TINY, collapsed_images(kind, s), s, watch.real_distances(TINY, data))
    found = watch.collapse_warnings(dict(step=1000, mi_bound=2.0) | row | dict(usage_entropy=1.0), 10)
    assert list(found) == ([sign] if sign else [])


def test_real_images_count_as_diverse():
    config = TINY.replace(n_train=None)
    data = runs.prepare_data(config)
    real = watch.real_distances(config, data)
    index = (
        torch.cat([(data.y_train == k).nonzero().flatten()[60:68] for k in range(10)]).view(10, 8).T.flatten()
    )  # row by row
    nets = networks.build(config, 1, 10)
    row = watch.collapse_indicators(nets, config, data.images(index), data.s_train[index], real)
    assert 0.85 < row["diversity"] < 1.15 and 0.6 < row["diversity_min"] < 1.2
    assert not watch.collapse_warnings(dict(step=1000) | row | dict(usage_entropy=1.0), 10)


def test_usage_tells_a_forgotten_category(straight):
    _, s, _ = watch.evaluation_inputs(TINY, runs.prepare_data(TINY))
    shares = watch.category_usage(straight.nets, torch.zeros(80, 1, 32, 32), s)  # one image: Q finds one category
    assert shares.max() == 1 and shares.sum() == 1
    found = watch.collapse_warnings(dict(step=1000, diversity=1.0, usage_entropy=0.0, least_used=3, usage_min=0.0), 10)
    assert "category 3" in found["unused"]


def test_a_warning_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        runs,
        "collapse_warnings",
        lambda row, k: {"ignored": "the condition is ignored"} if row["step"] in (2, 4, 8) else {},
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = fit(PLAIN.replace(steps=8, eval_every=2), root=tmp_path, progress=False)
    assert [str(w.message)[:7] for w in seen if w.category is UserWarning] == ["step 2:", "step 8:"]
    assert [r["signs"] for r in run.evaluations] == ["ignored", "ignored", "none", "ignored"]


# Reports


def test_plain_lines_are_few(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "step", lambda *_: dict(L_rec=torch.tensor(1.0)))
    fit(PLAIN.replace(steps=75, eval_every=1000), root=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert 20 <= len(lines) <= 30 and lines[-1].endswith("done") and "images/s" in lines[3] and "left" in lines[3]


def test_a_bar_in_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "is_interactive", lambda: True)
    fit(PLAIN.replace(steps=2), root=tmp_path)
    out, err = capsys.readouterr()
    assert out == "" and "16.0/16.0" in err and "images/s" in err


@pytest.mark.parametrize("progress", [True, False])
def test_whoever_started_the_notebook_can_read_where_the_training_is(tmp_path, capsys, monkeypatch, progress):
    monkeypatch.setenv("AAE_PRIOR_PROGRESS", str(tmp_path / "progress"))
    fit(PLAIN.replace(steps=30), root=tmp_path / "runs", progress=progress)
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text(encoding="utf-8").splitlines()]
    assert 1 <= len(lines) <= 30  # one a second, and the last
    assert (
        (lines[-1]["step"], lines[-1]["steps"], lines[-1]["left"]) == (30, 30, "done")
        and "L_rec" in lines[-1]["losses"]
        and lines[-1]["speed"].endswith("images/s")
    )
    assert bool(capsys.readouterr().out) == progress


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_PROGRESS", str(tmp_path / "no folder" / "progress"))
    assert fit(PLAIN.replace(steps=2), root=tmp_path, progress=False).complete


def test_where_runs_live(tmp_path, monkeypatch):
    monkeypatch.setenv("AAE_PRIOR_RUNS", str(tmp_path / "here"))
    assert files.runs_root() == tmp_path / "here"
    monkeypatch.delenv("AAE_PRIOR_RUNS")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs.aae_prior, "__file__", str(tmp_path / "site-packages" / "aae_prior" / "__init__.py"))
    assert files.runs_root() == tmp_path / "out" / "runs"
    (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs").mkdir()
    monkeypatch.chdir(tmp_path / "nbs")
    assert files.runs_root() == tmp_path / "out" / "runs"


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(batch_size=64), "batch_size = 64"),
        (dict(size=64), None),
        (dict(code_dim=10, model="maae"), "code_dim = 10"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, settings, message):
    data = load_data("digits") if "size" in settings else None
    with pytest.raises(ValueError, match=message or "size = 64: the images of digits are 32 x 32") as seen:
        fit(TINY.replace(**settings), data, root=tmp_path)
    assert "\n" not in str(seen.value) and not list(tmp_path.iterdir())
