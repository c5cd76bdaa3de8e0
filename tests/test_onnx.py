"""A run as an ONNX file: the same images as PyTorch's, any number of them, in half the bits, or a refusal."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch

from aae_prior import onnx_export
from aae_prior.batches import sample_noise
from aae_prior.cli import main
from aae_prior.config import Config
from aae_prior.onnx_export import TWO_GREY_LEVELS, export_onnx
from aae_prior.runs import fit, load
from aae_prior.sampling import generate, prior_codes

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


pytestmark = pytest.mark.slow  # torch's exporter takes ten seconds to load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    return fit(Config(preset="smoke", steps=12), root=folder, progress=False)


@pytest.fixture(scope="module")
def exported(run, folder):
    return export_onnx(run, folder / "onnx")


def session(folder):
    return onnxruntime.InferenceSession(str(folder / "sampler.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("n", [1, 2, 23])
def test_draws_what_pytorch_draws(run, exported, n):
    z, s = sample_noise(run.config, n, 5, 10), torch.eye(10)[torch.arange(n) % 10]
    images, codes = session(exported).run(["images", "codes"], dict(z=z.numpy(), s=s.numpy()))
    wanted = generate(run.nets, z, s).numpy()
    assert images.dtype == np.float32 and images.shape == wanted.shape == (n, 1, 32, 32)
    assert np.abs(images - wanted).max() <= TWO_GREY_LEVELS
    assert np.abs(codes - prior_codes(run.nets, z, s).numpy()).max() < 0.02
    assert np.ptp(wanted) > 0.1  # there is something to agree on


def test_weights_have_16_bits(run, exported):
    weights = onnx.load(exported / "sampler.onnx").graph.initializer
    kernels = [w for w in weights if len(w.dims) > 1]
    assert len(kernels) >= 10 and all(w.data_type == onnx.TensorProto.FLOAT16 for w in kernels)
    numbers = sum(p.numel() for net in run.nets.sampler().values() for p in net.parameters())
    assert (exported / "sampler.onnx").stat().st_size < 2 * numbers * 1.25 + 20_000


def test_what_stands_beside_it(run, exported):
    about = json.loads((exported / "sampler.json").read_text(encoding="utf-8"))
    assert about["sha256"] == hashlib.sha256((exported / "sampler.onnx").read_bytes()).hexdigest()
    assert (about["model"], about["dataset"], about["condition"]) == ("ours", "digits", "label")
    assert (about["noise_length"], about["condition_dim"], about["code_dim"]) == (54, 10, run.config.code_dim)
    assert about["class_names"] == [str(i) for i in range(10)]
    assert max(about["largest_differences"]["float32"].values()) < 1e-4


def test_without_a_condition_there_is_no_s(folder):
    plain = fit(Config(preset="smoke", condition="none", model="aae"), root=folder, progress=False)
    one = session(export_onnx(plain, folder / "plain"))
    assert [x.name for x in one.get_inputs()] == ["z"]
    z = sample_noise(plain.config, 3)
    assert np.abs(one.run(["images"], dict(z=z.numpy()))[0] - generate(plain.nets, z).numpy()).max() <= TWO_GREY_LEVELS


def test_a_graph_that_disagrees_is_not_written(run, folder, monkeypatch):
    monkeypatch.setattr(onnx_export, "AGREEMENT", 0.0)
    with pytest.raises(ValueError, match="does not agree with PyTorch.*nothing was written"):
        export_onnx(run, folder / "never")
    assert not (folder / "never").exists()


def test_runs_that_are_refused(run, folder):
    half = fit(Config(preset="smoke", seed=1), root=folder, progress=False, until=2)
    with pytest.raises(ValueError, match="at step 2 of 4"):
        export_onnx(half, folder / "half")
    from aae_prior.pretrained import export

    with pytest.raises(ValueError, match="it has no CG, only dec"):
        export_onnx(load(export(run, folder / "dec", ["dec"])), folder / "half")
    assert not (folder / "half").exists()


def test_command(run, folder, capsys):
    assert main(["export", str(run.dir), "--to", str(folder / "a"), "--format", "onnx"]) == 0
    assert capsys.readouterr().out.strip().endswith(str(folder / "a"))
    assert sorted(path.name for path in (folder / "a").iterdir()) == ["sampler.json", "sampler.onnx"]
    assert main(["export", str(run.dir), "--to", str(folder / "b"), "--format", "onnx", "--networks", "enc"]) == 2
    assert "leave out --networks" in capsys.readouterr().err
    assert main(["export", str(run.dir), "--to", str(folder / "b")]) == 0  # weights, as without --format
    assert (folder / "b" / "weights.safetensors").is_file()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_packages_one_line_says_so(run, folder, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(run.dir), "--to", str(folder / "c"), "--format", "onnx"]) == 2
    assert f"package {package}, which is not installed: pip install 'aae_prior[onnx]'" in capsys.readouterr().err
    assert not (folder / "c").exists()
