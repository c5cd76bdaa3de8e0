"""Priors fitted after training: each finds a known distribution again, and refuses in one line what it cannot fit."""

import builtins
import copy

import numpy as np
import pytest
import torch

from aae_prior.batches import generator
from aae_prior.config import Config
from aae_prior.data import load
from aae_prior.networks import build
from aae_prior.priors import (
    BANDWIDTHS,
    decode_codes,
    fit_flow,
    fit_kernel,
    fit_mixture,
    flow_package,
    kernel_likelihoods,
    split,
    standard_normal,
    standardise,
    training_codes,
)
from aae_prior.sampling import encode, generate, prior_codes

CENTRES = torch.tensor([[3.0, -1.0, 100.0], [-3.0, 1.0, 140.0]])
SHARE = 0.25  # of the first blob
FITS = {
    "one Gaussian": lambda codes, seed=0: fit_mixture(codes, 1, seed),
    "mixture": lambda codes, seed=0: fit_mixture(codes, 2, seed),
    "flow": lambda codes, seed=0: fit_flow(codes, seed, steps=150, lr=5e-3),
    "kernel": fit_kernel,
}
each_fit = pytest.mark.parametrize("name", FITS)


@pytest.fixture(scope="module")
def blobs():
    "4,000 codes (4000, 3) in two blobs far apart, one of them three times as large"
    g = generator("two blobs")
    first = (torch.rand(4000, generator=g) < SHARE).long()
    return CENTRES[1 - first] + torch.randn(4000, 3, generator=g) * torch.tensor([0.4, 0.4, 2.0])


@pytest.fixture(scope="module")
def priors(blobs):
    return {name: fit(blobs) for name, fit in FITS.items()}


def in_blobs(codes):
    "Share of codes within four standard deviations of the first centre, and of the second"
    scaled = (codes[:, None] - CENTRES) / torch.tensor([0.4, 0.4, 2.0])
    return (scaled.norm(dim=-1) < 4).float().mean(0).tolist()


@each_fit
def test_mean_and_covariance_are_those_of_the_codes(name, blobs, priors):
    drawn = priors[name].sample(20_000, seed=3)
    scale = blobs.std(0)
    assert ((drawn.mean(0) - blobs.mean(0)) / scale).abs().max() < 0.1
    assert ((drawn.T.cov() - blobs.T.cov()) / torch.outer(scale, scale)).abs().max() < 0.12


@pytest.mark.parametrize("name", ["mixture", "flow", "kernel"])
def test_samples_lie_in_both_blobs_in_their_shares(name, priors):
    first, second = in_blobs(priors[name].sample(5000))
    assert first == pytest.approx(SHARE, abs=0.05) and second == pytest.approx(1 - SHARE, abs=0.07)
    assert first + second > (0.93 if name == "flow" else 0.98)


def test_one_gaussian_cannot_have_two_blobs(priors):
    assert sum(in_blobs(priors["one Gaussian"].sample(5000))) < 0.5


@each_fit
def test_shape_type_and_seed(name, priors):
    prior = priors[name]
    one, again, other = prior.sample(70, 1), prior.sample(70, 1), prior.sample(70, 2)
    assert one.shape == (70, 3) and one.dtype == torch.float32 and not one.requires_grad
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len(torch.unique(one, dim=0)) == 70 and prior.fitted


@each_fit
def test_a_fit_is_the_same_again_and_leaves_the_global_generators(name, blobs):
    few = blobs[:300]
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    fit = (lambda: fit_flow(few, 4, steps=10)) if name == "flow" else (lambda: FITS[name](few, 4))
    first = fit().sample(20)
    assert torch.equal(torch.rand(2), expected[0]) and (np.random.rand(2) == expected[1]).all()
    assert torch.equal(first, fit().sample(20))


def test_arrays_are_codes_too(blobs):
    assert torch.equal(fit_mixture(blobs[:200].numpy(), 2).sample(9), fit_mixture(blobs[:200], 2).sample(9))


def test_a_number_that_never_changes_is_kept(blobs):
    constant = torch.cat([blobs[:400], torch.full((400, 1), 7.0)], 1)
    for fit in (lambda codes: fit_mixture(codes, 2), fit_kernel, lambda codes: fit_flow(codes, steps=5)):
        drawn = fit(constant).sample(50)
        assert drawn.isfinite().all() and (drawn[:, 3] - 7).abs().max() < 6


def test_held_out_codes_choose_the_covariance():
    g = generator("covariances")
    x = torch.randn(4000, 2, generator=g)
    slanted = torch.stack([x[:, 0], x[:, 0] + 0.1 * x[:, 1]], 1)
    assert fit_mixture(slanted, 1).fitted.startswith("full")
    wide = torch.randn(120, 40, generator=g)  # 820 numbers of a full covariance for 108 codes
    assert fit_mixture(wide, 1).fitted.startswith("diagonal")


def test_the_kernel_is_as_wide_as_leave_one_out_likelihood_wants():
    g = generator("kernel")
    codes = torch.randn(400, 2, generator=g)
    z, *_ = standardise(codes)
    found = kernel_likelihoods(z, torch.arange(400))
    some = torch.cdist(z, z).square()
    by_hand = [
        torch.stack(
            [(torch.cat([row[:i], row[i + 1 :]]) / (-2 * width**2)).logsumexp(0) for i, row in enumerate(some)]
        ).mean()
        - 2 * np.log(width)
        for width in BANDWIDTHS
    ]
    torch.testing.assert_close(found, torch.stack(by_hand).double(), rtol=1e-3, atol=1e-2)
    assert 0.15 < BANDWIDTHS[int(found.argmax())] < 0.6


def test_a_flow_stops_when_held_out_codes_gain_nothing_more(monkeypatch):
    monkeypatch.setattr("aae_prior.priors.CHECK_EVERY", 10)
    monkeypatch.setattr("aae_prior.priors.PATIENCE", 40)
    codes = torch.randn(60, 2, generator=generator("few"))
    prior = fit_flow(codes, steps=2000, batch=32, lr=5e-3)
    best, stopped = (int(word) for word in prior.fitted.split() if word.isdigit())
    assert best + 40 == stopped < 2000


def test_held_out_codes_are_a_tenth_and_no_others():
    kept, held_out = split(torch.arange(100)[:, None], 1)
    assert len(held_out) == 10 and sorted(torch.cat([kept, held_out]).flatten().tolist()) == list(range(100))
    assert len(split(torch.zeros(3, 1), 0)[1]) == 1


BAD = {
    "fewer codes than parts": (lambda: fit_mixture(torch.randn(8, 2), 10), "codes: 8 are too few, a mixture of 10"),
    "too few for a flow": (lambda: fit_flow(torch.randn(5, 2)), "codes: 5 are too few, a flow needs at least 20"),
    "one code": (lambda: fit_kernel(torch.randn(1, 2)), "codes: 1 are too few, a kernel density needs at least 2"),
    "no table": (lambda: fit_mixture(torch.randn(8), 1), "codes: expected shape (N, D), got (8,)"),
    "not finite": (lambda: fit_kernel(torch.full((9, 2), float("nan"))), "codes: some values are not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(case):
    fit, line = BAD[case]
    with pytest.raises(ValueError) as error:
        fit()
    assert line in str(error.value) and "\n" not in str(error.value)


def test_exactly_enough_codes_are_fitted():
    codes = torch.randn(13, 2, generator=generator("thirteen"))
    with pytest.raises(ValueError, match="at least 13"):
        fit_mixture(codes[:12], 10)
    assert fit_mixture(codes, 10).sample(4).isfinite().all()


def test_without_zuko_one_line_says_so(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "zuko":
            raise ImportError("No module named 'zuko'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (flow_package, lambda: fit_flow(torch.randn(50, 2))):
        with pytest.raises(ValueError, match="package zuko, which is not installed: pip install 'zuko"):
            call()


@pytest.fixture(scope="module")
def nets():
    return build(Config(preset="smoke", condition="none", model="maae", code_dim=8), channels=1)


def test_training_codes_are_those_of_the_encoder_in_their_order(nets):
    digits = load("digits")
    codes = training_codes(nets, digits, chunk=1000)
    assert codes.shape == (len(digits), 8)
    some = torch.tensor([0, 999, 1000, 1436])
    torch.testing.assert_close(codes[some], encode(nets, digits.images(some)), rtol=0, atol=1e-5)


def test_images_are_decoded_by_statistics_of_their_own_codes(nets):
    before = copy.deepcopy(nets.state_dict())
    z = standard_normal(8).sample(200, seed=1)
    torch.testing.assert_close(prior_codes(nets, z), z)  # the fixed prior's codes are its noise
    near, far = decode_codes(nets, z), decode_codes(nets, 3 * z + 5)
    assert near.shape == (200, 1, 32, 32) and near.abs().max() <= 1
    assert torch.equal(near, decode_codes(nets, z)) and decode_codes(nets, z[:3]).isfinite().all()
    stored = generate(nets, z)  # by statistics that were never taken
    assert not torch.allclose(near, stored) and not torch.allclose(near, far)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), nets.state_dict().values()))
