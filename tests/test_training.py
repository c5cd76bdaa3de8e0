"""Algorithm 1: each phase moves its own networks only, and the step equals its plain reference."""

import copy
import math

import pytest
import torch

from aae_prior import batches, extensions, metrics, networks, norm_stats, precision, reference, sampling, training
from aae_prior.config import Config
from aae_prior.data import load
from aae_prior.losses import entropy, loss_D, loss_G, loss_MI, loss_rec

SMALL = dict(preset="smoke", batch_size=8, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def digits():
    return load("digits").subset(64, seed=0)


def setting(digits, **given):
    config = Config(**SMALL | given)
    data = digits.labelled() if config.condition == "label" else digits
    if config.condition == "text":
        g = torch.Generator().manual_seed(0)
        data = digits.with_condition(torch.randn(64, 20, generator=g), torch.randn(len(digits.x_test), 20, generator=g))
    k = batches.condition_dim(data, config)
    nets = networks.build(config, 1, k)
    return config, data, nets, training.optimisers(nets, config)


def changed(nets, phase):
    before = {k: v.clone() for k, v in nets.state_dict().items()}
    phase()
    return {k.split(".")[0] for k, v in nets.state_dict().items() if not torch.equal(v, before[k])}


MODELS = [
    dict(model="ours", condition="label"),
    dict(model="maae", condition="label"),
    dict(model="ours", condition="category"),
    dict(model="ours", condition="none"),
    dict(model="aae", condition="none", stochastic=True),
    dict(model="ours", condition="text", code_dim=32),
    dict(model="ours", condition="label", label_to="both"),
]


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(map(str, m.values())))
def test_a_phase_moves_exactly_its_own_networks(digits, model, update):
    config, data, nets, opts = setting(digits, **model, update=update)
    b = batches.draw(data, config, 0)
    F_x = b.x if nets.D_I is None else nets.D_I.features(b.x).detach()
    assert changed(nets, lambda: training.aae_phase(nets, opts, b, config, F_x)) == {"enc", "dec", "D_C"}
    if nets.D_I is None:
        return
    real = nets.D_I(b.x, b.s)
    expected = {"dec", "D_I"} | ({"CG"} if config.model == "ours" else set())
    assert changed(nets, lambda: training.prior_phase(nets, opts, b, config, real)) == expected


def test_no_gradient_is_left_behind(digits):
    config, data, nets, opts = setting(digits)
    training.step(nets, opts, batches.draw(data, config, 0), config)
    assert all(p.grad is None for p in nets.parameters())


def in_double(b):
    "A Batch, and those within it, in double precision"
    values = vars(b) | dict(further=tuple(in_double(more) for more in b.further))
    return batches.Batch(**{k: v.double() if torch.is_tensor(v) else v for k, v in values.items()})


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize(
    "model",
    MODELS
    + [
        dict(model="ours", condition="label", rec_as_fake=False, lam=0.3, rec_weight=2.0),
        dict(model="ours", condition="category", gan_loss="saturating", norm=False, mi_weight=3.0, consistency=0.7),
        dict(model="ours", condition="label", gan_loss="hinge", r1=2.0, augment=True),
        dict(model="ours", condition="label", mode_seeking=0.5),
        dict(model="maae", condition="label", mode_seeking=0.5),
    ],
    ids=lambda m: "-".join(map(str, m.values())),
)
def test_step_equals_the_reference(digits, model, update, careful):
    assert_equal_to_the_reference(digits, careful, **model, update=update)


@pytest.mark.parametrize("condition", ["none", "label"])
def test_further_updates_of_D_I_equal_the_reference(digits, condition):
    assert_equal_to_the_reference(digits, False, condition=condition, D_I_updates=3, augment=True)


def test_mode_seeking_moves_images_of_two_noises_apart(digits):
    config, data, nets, opts = setting(digits, condition="label", mode_seeking=1.0)
    b = batches.draw(data, config, 0)

    def loss():
        return extensions.loss_mode_seeking(nets, b, config, nets.dec(nets.CG(b.z2, b.s2)))

    before = loss()
    for _ in range(5):
        training.backward(loss(), nets.CG, nets.dec)
        training.update(opts, "CG", "dec")
    assert loss() < 0.9 * before


def test_further_updates_train_D_I_on_other_images_and_nothing_else(digits):
    config, data, nets, opts = setting(digits, D_I_updates=2)
    b = batches.draw(data, config, 0)
    assert torch.equal(b.z2, batches.draw(data, config.replace(D_I_updates=1), 0).z2)  # all else is drawn as without
    assert not torch.equal(b.further[0].x, b.x) and len(b.further) == 1 and not b.further[0].further
    assert changed(nets, lambda: training.update_D_I(nets, opts, b.further[0], config)) == {"D_I"}


def assert_equal_to_the_reference(digits, careful, **given):
    config, data, nets, _ = setting(digits, **given)
    other = copy.deepcopy(nets).double()
    nets = nets.double()
    opts, other_opts = training.optimisers(nets, config), training.optimisers(other, config)
    for i in range(2):
        b = batches.draw(data, config, i)
        b = in_double(b)
        log, plain = (
            training.step(nets, opts, b, config),
            reference.reference_step(other, other_opts, b, config, careful),
        )
        for name, value in plain.items():
            torch.testing.assert_close(log[name], value, rtol=1e-10, atol=1e-12)
    # A bias before a normalisation has gradient 0 but for rounding, which Adam divides by its eps of 1e-8.
    idle = ("hidden.0.bias", "code.0.bias", "hidden.1.running_mean", "code.1.running_mean")
    for (name, a), (_, p) in zip(nets.state_dict().items(), other.state_dict().items()):
        torch.testing.assert_close(a, p, rtol=0, atol=1e-8 if name.endswith(idle) else 1e-12, msg=name)


def test_q_trains_only_its_head_where_asked(digits):
    config, data, nets, opts = setting(digits, mi_into_D_I=False)
    b = batches.draw(data, config, 0)
    fakes = [nets.dec(nets.CG(b.z2, b.s2))]
    training.train_D_I(nets, b, config, nets.D_I(b.x), fakes)
    trunk = nets.D_I.hidden.weight.grad.clone()
    nets.zero_grad(set_to_none=True)
    training.train_D_I(nets, b, config.replace(mi_weight=100.0), nets.D_I(b.x), fakes)
    torch.testing.assert_close(nets.D_I.hidden.weight.grad, trunk)  # the weight of Q's loss does not reach the trunk
    assert nets.D_I.q.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name, loss", [("D_C", "L_D_C"), ("D_I", "L_D_I")])
def test_a_discriminator_step_lowers_its_own_loss(digits, name, loss):
    config, data, nets, opts = setting(digits, update="simultaneous", lr=1e-6, lr_D=1e-3)
    b = batches.draw(data, config, 0)
    logs = [training.step(nets, opts, b, config)[loss].item() for _ in range(8)]
    assert logs[-1] < logs[0]


@pytest.mark.parametrize(
    "loss, given", [("L_rec", {}), ("L_MI", dict(mi_weight=10.0)), ("L_GAN_C", dict(rec_weight=0.0))]
)
def test_generators_lower_their_losses(digits, loss, given):
    config, data, nets, opts = setting(digits, lr=1e-3, lr_D=1e-7, **given)
    b = batches.draw(data, config, 0)
    logs = [training.step(nets, opts, b, config)[loss].item() for _ in range(12)]
    assert logs[-1] < logs[0]


def test_verbatim_discriminator_update_diverges():
    torch.manual_seed(0)
    D = networks.CodeDiscriminator(2)
    opt = torch.optim.SGD(D.parameters(), lr=0.1)
    for _ in range(100):
        loss = D(torch.randn(64, 2) + 1).sigmoid().log().mean() + (1 - D(torch.randn(64, 2)).sigmoid()).log().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if not loss.isfinite():
            return
    pytest.fail(f"the unbounded update stayed finite: {loss}")


def test_draw_is_a_pure_function_and_steps_differ(digits):
    config, data, *_ = setting(digits)
    a, again, b = batches.draw(data, config, 5), batches.draw(data, config, 5), batches.draw(data, config, 6)
    assert torch.equal(a.x, again.x) and torch.equal(a.z, again.z) and torch.equal(a.z2, again.z2)
    assert not torch.equal(a.z, b.z) and not torch.equal(a.z, a.z2) and not torch.equal(a.x, b.x)


def test_an_epoch_sees_every_image_once(digits):
    config, data, *_ = setting(digits)
    seen = torch.cat([batches.draw(data, config, i).x for i in range(8)]).flatten(1)
    assert len(seen.unique(dim=0)) == len(data.images(torch.arange(64)).flatten(1).unique(dim=0))


def test_global_generators_stay_untouched(digits):
    before = torch.get_rng_state()
    config, data, nets, opts = setting(digits)
    training.step(nets, opts, batches.draw(data, config, 0), config)
    batches.sample_noise(config, 4, condition_dim=10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [1, 63])
def test_last_batches_of_any_size_can_be_generated(digits, size):
    config, data, nets, _ = setting(digits)
    z, s = batches.sample_noise(config, 256 + size, condition_dim=10), torch.eye(10)[torch.arange(256 + size) % 10]
    images = sampling.generate(nets, z, s)
    assert len(images) == 256 + size and images.abs().max() <= 1
    torch.testing.assert_close(sampling.generate(nets, z[-1:], s[-1:]), images[-1:], atol=1e-5, rtol=0)


def test_one_image_more_than_a_batch_trains(digits):
    config = Config(**SMALL).replace(batch_size=64)
    data = load("digits").subset(65, seed=0).labelled()
    nets = networks.build(config, 1, 10)
    log = training.step(nets, training.optimisers(nets, config), batches.draw(data, config, 1), config)
    assert all(v.isfinite() for v in log.values())


@pytest.mark.parametrize(
    "label_to, Q_on_generated, real, generated",
    [("Q", False, 1, 0), ("Q", True, 1, 1), ("both", False, 1, 0), ("D_I", True, 0, 1), ("none", True, 0, 1)],
)
def test_what_Q_learns_from(digits, label_to, Q_on_generated, real, generated):
    config, data, nets, _ = setting(digits, label_to=label_to, Q_on_generated=Q_on_generated, mi_weight=2.0)
    assert Config(**SMALL, label_to=label_to).Q_on_generated == (real == 0)
    b, q_real, q_noise = batches.draw(data, config, 0), torch.randn(8, 10), torch.randn(8, 10)
    b.s2 = b.s.roll(1, 0)
    expected = 2 * (real * loss_MI(q_real, b.s) + generated * loss_MI(q_noise, b.s2))
    torch.testing.assert_close(training.loss_Q(b, config, q_real, q_noise), expected)


def norms(net):
    return [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    "given",
    [
        dict(),
        dict(model="maae"),
        dict(model="aae"),
        dict(condition="none"),
        dict(condition="category"),
        dict(condition="text"),
        dict(ema=0),
        dict(spectral_norm=True),
    ],
    ids=str,
)
def test_what_draws_has_the_statistics_of_its_prior(digits, given):
    config, data, nets, opts = setting(digits, **given)
    k = batches.condition_dim(data, config)
    for i in range(3):
        training.step(nets, opts, batches.draw(data, config, i), config)
    weights = [p.clone() for p in nets.parameters()]
    norm_stats.recompute_prior_stats(nets, config, k, 4, data.s_train)
    CG, dec = nets.average["CG"].eval(), nets.average["dec"].eval()
    seen = []
    with torch.no_grad():
        for z, s in norm_stats.prior_batches(config, k, 4, data.s_train):
            assert z.shape == (64, config.noise_length(k)) and (s is None) == (k == 0)
            CG.train()
            seen.append(dec.first[0](CG(z, s)).mean((0, 2, 3)))
    norm_stats.recompute_prior_stats(nets, config, k, 4, data.s_train)
    torch.testing.assert_close(norms(dec)[0].running_mean, torch.stack(seen).mean(0), rtol=0, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(weights, nets.parameters()))


def test_settling_again_or_in_another_mode_changes_nothing(digits):
    config, data, nets, opts = setting(digits)
    for i in range(3):
        training.step(nets, opts, batches.draw(data, config, i), config)
    images = [batches.draw(data, config, i).x for i in range(3)]

    def settled():
        norm_stats.recompute_prior_stats(nets, config, 10, 2)
        norm_stats.recompute_image_stats(nets, images)
        return {name: value.clone() for name, value in nets.state_dict().items()}

    first, modes = settled(), [m.training for m in nets.modules()]
    assert modes == [m.training for m in nets.modules()]
    nets.eval()
    again = settled()
    assert not nets.training and all(torch.equal(first[name], value) for name, value in again.items())


def test_what_reconstructs_has_the_statistics_of_codes_of_images(digits):
    config, data, nets, opts = setting(digits)
    for i in range(3):
        training.step(nets, opts, batches.draw(data, config, i), config)
    x = data.images(torch.arange(64))
    norm_stats.recompute_prior_stats(nets, config, 10, 2)
    drawn = sampling.generate(nets, batches.sample_noise(config, 4, condition_dim=10), torch.eye(10)[:4])
    norm_stats.recompute_image_stats(nets, [x])
    nets.eval()
    seen = nets.dec.first[0](nets.enc(x))
    torch.testing.assert_close(norms(nets.dec)[0].running_mean, seen.mean((0, 2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        norms(nets.enc)[0].running_mean,
        nets.enc.blocks[0].conv1(nets.enc.stem(x).relu()).mean((0, 2, 3)),
        rtol=0,
        atol=1e-5,
    )
    assert torch.equal(
        drawn, sampling.generate(nets, batches.sample_noise(config, 4, condition_dim=10), torch.eye(10)[:4])
    )


def test_training_does_not_see_that_it_was_settled(digits):
    config, data, nets, opts = setting(digits)
    other, others = copy.deepcopy(nets), None
    others = training.optimisers(other, config)
    for i in range(4):
        training.step(nets, opts, batches.draw(data, config, i), config)
        training.step(other, others, batches.draw(data, config, i), config)
        if i < 3:
            norm_stats.recompute_prior_stats(other, config, 10, 2)
    assert all(torch.equal(a, b) for a, b in zip(nets.state_dict().values(), other.state_dict().values()))


def test_without_averaging_the_last_weights_draw(digits):
    config, data, nets, opts = setting(digits, ema=0)
    for i in range(2):
        training.step(nets, opts, batches.draw(data, config, i), config)
    for name in ("dec", "CG"):
        assert all(torch.equal(a, p) for a, p in zip(nets.average[name].parameters(), getattr(nets, name).parameters()))


def test_averaged_weights_follow(digits):
    config, data, nets, opts = setting(digits, ema=0.5)
    start = nets.average.dec.image.weight.clone()
    training.step(nets, opts, batches.draw(data, config, 0), config)
    torch.testing.assert_close(nets.average.dec.image.weight, start + (nets.dec.image.weight - start) * 9 / 11)
    nets.average.steps.fill_(100)
    extensions.update_ema(before := copy.deepcopy(nets), 0.5)
    torch.testing.assert_close(
        before.average.dec.image.weight, (nets.average.dec.image.weight + nets.dec.image.weight) / 2
    )
    z, s = batches.sample_noise(config, 3, condition_dim=10), torch.eye(10)[:3]
    average = sampling.generate(nets, z, s)
    nets.dec.image.weight.data.zero_()
    assert torch.equal(average, sampling.generate(nets, z, s))


def test_spectral_norm_bounds_the_discriminators_and_nothing_else(digits):
    config, data, nets, opts = setting(digits, spectral_norm=True)
    b = batches.draw(data, config, 0)
    assert changed(nets, lambda: training.aae_phase(nets, opts, b, config, nets.D_I.features(b.x).detach())) >= {
        "enc",
        "dec",
        "D_C",
    }
    state = copy.deepcopy(nets.D_I.state_dict())
    with norm_stats.keep_norm_state(nets.D_I):
        nets.D_I(b.x)
    assert all(torch.equal(v, state[k]) for k, v in nets.D_I.state_dict().items())
    for _i in range(20):
        training.step(nets, opts, batches.draw(data, config, 0), config)
    for layer in [
        m for net in (nets.D_I, nets.D_C) for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
    ]:
        assert abs(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() - 1) < 0.3
    assert not any(
        "parametrizations" in k for k in nets.enc.state_dict() | nets.dec.state_dict() | nets.CG.state_dict()
    )


def test_augmentation_moves_every_image_its_own_way_and_lets_gradients_through(digits):
    config, data, nets, _ = setting(digits, augment=True)
    b = batches.draw(data, config, 0)
    assert torch.equal(b.z2, batches.draw(data, config.replace(augment=False), 0).z2)  # all else is drawn as without
    x = b.x[:1].repeat(8, 1, 1, 1).requires_grad_()
    moved = extensions.augment(x, b.augment_params)
    assert moved.shape == x.shape and len({m.sum().item() for m in moved}) == 8
    moved.sum().backward()
    assert (x.grad.sum((1, 2, 3)) > 32 * 32 * 0.4).all() and x.grad.max() == 1


def test_L_cluster_is_least_for_balanced_and_steady_categories(digits):
    config, data, nets, _ = setting(digits, condition="category", consistency=2.0, categories=4)
    b = batches.draw(data, config, 0)
    assert torch.equal(b.z2, batches.draw(data, config.replace(consistency=0.0), 0).z2)  # all else is drawn as without
    one_hot = torch.eye(4).repeat(len(b.x) // 4, 1)
    answer = one_hot

    class Q(torch.nn.Module):
        def forward(self, x, s):
            return networks.Discrimination(None, 50 * answer, None)

    nets.D_I = Q()

    def loss(q):
        return extensions.loss_clusters(nets, b, config, q).item()

    assert loss(50 * one_hot) == pytest.approx(-2 * 2 * math.log(4), abs=1e-4)  # sure, alike, equally frequent
    answer = one_hot.roll(1, 1)
    assert loss(50 * one_hot) > 50  # a distorted image changes its category
    answer = torch.eye(4)[[0]].repeat(len(b.x), 1)
    assert loss(50 * answer) == pytest.approx(0, abs=1e-4)  # all in one category
    assert not config.replace(condition="label").consistency  # which it would do nothing for


def test_L_cluster_has_a_slope_where_an_answer_is_certain():
    q = (200 * torch.eye(4)[[0, 0, 1]]).requires_grad_()  # the other probabilities are 0, not small
    extensions.cluster_loss(q, q.roll(1, 0)).backward()
    assert q.grad.isfinite().all() and q.grad.abs().max() > 0
    heads = torch.randn(6, 3, 4)
    each = torch.stack([extensions.cluster_loss(h, b) for h, b in zip(heads.unbind(1), heads.roll(1, 0).unbind(1))])
    torch.testing.assert_close(extensions.cluster_loss(heads, heads.roll(1, 0)), each)


def test_first_clusters_find_classes_without_labels_and_the_same_again(digits):
    config, data, nets, _ = setting(digits, condition="category", consistency=1.0, steps=160)
    other = copy.deepcopy(nets)
    L = extensions.pretrain_Q(nets.D_I, data, config, heads=4)
    assert L.shape == (4,) and L.max() < -2.5  # 2.3 - 2 * 2.3 is where it starts, -4.6 is least
    assert torch.equal(L, extensions.pretrain_Q(other.D_I, data, config, heads=4))
    assert all(torch.equal(a, b) for a, b in zip(nets.state_dict().values(), other.state_dict().values()))
    norm_stats.recompute_bn_stats([nets.D_I], nets.D_I.layers, [batches.draw(data, config, i).x for i in range(10)])
    x = data.images(torch.arange(len(data)))
    q = sampling.classify(nets, x).argmax(1)
    assert metrics.clustering_accuracy(q, data.y_train) > 0.5
    best = extensions.cluster_loss(sampling.classify(nets, x), sampling.classify(nets, x)).item()
    assert best < L.min() + 0.5  # the head that stays is one of the good ones


def test_the_head_that_stays_is_kept_under_spectral_norm_and_by_the_optimiser(digits):
    config, data, nets, opts = setting(digits, condition="category", consistency=1.0, steps=2, spectral_norm=True)
    before = {id(p): p.detach().clone() for p in nets.D_I.q.parameters()}
    extensions.pretrain_Q(nets.D_I, data, config, heads=2)
    assert (
        {id(p) for p in nets.D_I.q.parameters()}
        == set(before)
        <= {id(p) for group in opts["D_I"].param_groups for p in group["params"]}
    )
    assert all((p - before[id(p)]).abs().max() > 1e-3 for p in nets.D_I.q.parameters() if p.ndim == 2)


def test_R1_is_the_squared_slope_at_real_images(digits):
    config, data, nets, _ = setting(digits, r1=3.0)
    b = batches.draw(data, config, 0)

    class Linear(torch.nn.Module):
        def forward(self, x, s):
            return networks.Discrimination(2.0 * x.sum((1, 2, 3)), None, None)

    nets.D_I = Linear()
    torch.testing.assert_close(extensions.penalty_R1(nets, b, config), torch.tensor(1.5 * 4 * 32 * 32))


def test_losses_against_closed_forms():
    torch.testing.assert_close(
        loss_D(torch.tensor([1.0, -2.0]), torch.tensor([0.5])),
        torch.tensor((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2 + math.log1p(math.exp(0.5))),
    )
    torch.testing.assert_close(loss_G(torch.tensor([2.0])), torch.tensor(math.log1p(math.exp(-2))))
    torch.testing.assert_close(loss_G(torch.tensor([2.0]), "saturating"), torch.tensor(-math.log1p(math.exp(2))))
    torch.testing.assert_close(
        loss_D(torch.tensor([1.0, -2.0]), torch.tensor([0.5]), kind="hinge"), torch.tensor((0 + 3) / 2 + 1.5)
    )
    assert loss_G(torch.tensor([2.0, -1.0]), "hinge") == -0.5
    assert loss_rec(torch.ones(2, 4), torch.zeros(2, 4), 10.0) == 10
    s = torch.eye(4)
    assert abs(loss_MI(torch.zeros(4, 4), s).item() - math.log(4)) < 1e-6 and abs(entropy(s) - math.log(4)) < 1e-6
    assert loss_MI(torch.full((3, 5), 2.0), torch.zeros(3, 5), discrete=False) == 4
    for logit in (-200.0, 200.0):
        for loss in (lambda l: loss_D(l, torch.zeros(1)), lambda l: loss_D(torch.zeros(1), l), loss_G):
            l = torch.tensor([logit], requires_grad=True)
            value = loss(l)
            value.backward()
            assert value.isfinite() and (value < 1.5) != (l.grad.abs() > 0.5)  # wrong side: full gradient


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("code", [8, 64, 2000])
def test_network_shapes(channels, code):
    x = torch.randn(2, channels, 32, 32)
    assert networks.Encoder(channels, code, width=0.125)(x).shape == (2, code)
    image = networks.Decoder(code, channels, width=0.125)(torch.randn(2, code))
    assert image.shape == x.shape and image.abs().max() <= 1
    assert networks.CodeGenerator(20, code)(torch.randn(2, 20)).shape == (2, code)


def test_D_I_has_a_width_of_its_own(digits):
    nets = setting(digits, width=0.125, width_D_I=0.5)[2]
    assert (nets.D_I.layers[0][0].out_channels, nets.enc.stem.out_channels) == (32, 8)


def test_sizes_and_other_sizes():
    for size in (32, 64, 128):
        x = torch.randn(2, 1, size, size)
        assert networks.Encoder(1, 8, width=0.125, size=size)(x).shape == (2, 8)
        assert networks.Decoder(8, 1, width=0.125, size=size)(torch.randn(2, 8)).shape == x.shape
        assert networks.ImageDiscriminator(1, 3, width=0.125, size=size)(x)[1].shape == (2, 3)
    for net in (networks.Encoder, networks.ImageDiscriminator):
        with pytest.raises(ValueError, match="32, 64 and 128"):
            net(1, 8, size=48)


def test_the_skip_of_a_block_is_live():
    from aae_prior.networks import DownBlock, UpBlock

    for block in (DownBlock(4, 8), UpBlock(8, 4)):
        block(torch.randn(2, block.skip.in_channels, 8, 8)).sum().backward()
        assert block.skip.weight.grad.abs().sum() > 0


def test_rates_fall_in_a_line_to_zero_at_the_end():
    config = Config(**SMALL, lr=2e-4, lr_D=1e-3, lr_decay=0.25)
    shares = [training.learning_rates(config, done)["dec"] / 2e-4 for done in (0, 0.5, 0.75, 0.875, 1)]
    assert shares == pytest.approx([1, 1, 1, 0.5, 0])
    assert training.learning_rates(config, 0.875) == pytest.approx(
        dict(enc=1e-4, dec=1e-4, CG=1e-4, D_I=5e-4, D_C=5e-4)
    )
    assert training.learning_rates(config.replace(lr_decay=0.0), 1) == training.learning_rates(config, 0)


def test_a_run_without_rate_stands_still(digits):
    config, data, nets, opts = setting(digits, lr_decay=1.0)
    training.set_learning_rates(opts, config, 1)
    before = [p.clone() for p in nets.parameters()]
    training.step(nets, opts, batches.draw(data, config, 0), config)
    assert all(
        torch.equal(a, p) for (name, p), a in zip(nets.named_parameters(), before) if not name.startswith("average")
    )


@pytest.mark.parametrize("busy", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("faster", ["bf16", "fp32"])
def test_a_busy_moment_does_not_change_the_precision(monkeypatch, faster, busy):
    for calm in range(5):  # one format is disturbed in every turn but one, the other never
        clock, turns = [0.0], {torch.float32: 0, torch.bfloat16: 0}

        def conv2d(x, w, padding):
            turns[x.dtype] += 1
            disturbed = x.dtype == busy and turns[x.dtype] != calm + 1
            clock[0] += (
                1.0 if x.dtype == (torch.bfloat16 if faster == "bf16" else torch.float32) else 1.3
            ) + 5 * disturbed

        monkeypatch.setattr(precision.nnf, "conv2d", conv2d)
        monkeypatch.setattr(precision.time, "process_time", lambda: clock[0])
        assert precision.fastest_precision.__wrapped__("cpu") == faster and turns[busy] == 5
