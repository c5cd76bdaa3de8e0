"""How many operations a step costs, counted while it runs, against the least that Algorithm 1 needs.

The least is added up from the shapes of the layers. A layer does `macs` multiply-adds an image, two operations each,
three times: forward, for the gradient of its weights, for the gradient of its input. What the update of a step needs,
with labels (`ours`, `label_to = Q`, x_rec as a fake, dec trained in both phases):

* enc: forward in both phases, since it moves in between; all weight gradients once.
* dec: x_rec in the AAE phase, x_noise and x_rec in the prior phase; all weight gradients each time, and the code's
  gradient where it goes on to enc (AAE phase) or to CG (x_noise).
* CG: forward in both phases, its gradients in the prior phase.
* D_C: forward on z_c and z_x with weight gradients; for the encoder the gradient of z_x, through the D_C that has
  moved (`alternating`) or (`simultaneous`) with the values already there.
* D_I: D_I(x) once for both phases; the features of x_rec and the gradient of x_rec for L_rec; forward on both fakes
  with weight gradients; for dec and CG the gradients of the fakes, through the D_I that has moved (`alternating`) or
  with the values already there. Q reads x and x_noise only.

Where a network's input needs no gradient (images, noise, codes of the other network), its first layers compute none.

`simultaneous` with the `saturating` loss shares a little more. The generators' loss is then minus what the
discriminators lose on the fakes, so one pass backward serves both, except through x_noise: there Q's loss has the
same sign for both sides, and the sum and the difference take two passes.
"""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aae_prior import training as T
from aae_prior.config import Config
from aae_prior.networks import Conv, UpConv, deep

B, LABELS = 2, 10  # operations an image do not depend on the batch
FIRST = dict(enc=("stem",), dec=("first.0",), CG=("hidden.0",), D_C=("0",), D_I=("layers.0.0",))


def setting(**given):
    "Full width, one channel, code 64: (config, networks, batch)"
    config = Config(preset="paper", batch_size=B, code_dim=64, precision="fp32", **given)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(B, 1, 32, 32, generator=g).contiguous(memory_format=torch.channels_last)
    s = torch.eye(LABELS)[:B]
    return (
        config,
        T.build(config, 1, LABELS),
        T.Batch(x, *torch.randn(2, B, config.noise_length(LABELS), generator=g), s, s),
    )


def macs(net, *inputs):
    "Multiply-adds an image of every layer of `net` (name -> number) in one forward pass"
    found, handles = {}, []

    def count(name):
        def hook(layer, args, out):
            places = (
                1 if isinstance(layer, nn.Linear) else (out if isinstance(layer, nn.Conv2d) else args[0])[0, 0].numel()
            )  # a transposed one: its input's
            found[name] = layer.weight.numel() * places

        return hook

    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            handles.append(layer.register_forward_hook(count(name)))
    with torch.no_grad():
        net(*inputs)
    for handle in handles:
        handle.remove()
    return found


def minimum(config, nets, b):
    "Operations an image of a step: the sum of the list above"
    z = torch.zeros(B, config.code_dim)
    layers = {
        name: macs(getattr(nets, name), *given)
        for name, given in dict(enc=(b.x,), dec=(z,), CG=(b.z, b.s), D_C=(z,), D_I=(b.x,)).items()
    }
    m = {name: sum(found.values()) for name, found in layers.items()}
    inner = {
        name: m[name] - sum(layers[name][first] for first in FIRST[name]) for name in m
    }  # input gradients without that of the network's input
    q = layers["D_I"]["q"]
    F = sum(n for name, n in layers["D_I"].items() if name.startswith("layers."))
    again = config.update == "alternating"
    shared = not again and config.gan_loss == "saturating"

    enc = 2 * m["enc"] + (m["enc"] + inner["enc"])
    dec = 3 * m["dec"] + 3 * m["dec"] + (2 * m["dec"] + inner["dec"])
    CG = 2 * m["CG"] + (m["CG"] + inner["CG"])
    D_C = (2 + again) * m["D_C"] + 2 * m["D_C"] + 2 * inner["D_C"] + m["D_C"]
    if shared:
        D_C -= inner["D_C"]
    noise, rec = m["D_I"], m["D_I"] - q
    D_I = m["D_I"] + F + (1 + again) * (noise + rec)  # forward: x, features of x_rec, the fakes
    D_I += (m["D_I"] + noise + rec) + (3 * inner["D_I"] - q)  # D_I and Q learn from x, x_noise and x_rec
    D_I += F + noise + rec  # gradients of x_rec for L_rec, of both fakes for dec and CG
    if shared:
        D_I -= inner["D_I"] - q  # those of x_rec are already there
    return 2 * (enc + dec + CG + D_C + D_I)


def counted(step, config, nets, b, **kw):
    "Operations an image that `step` carries out"
    with FlopCounterMode(display=False) as counter:
        step(nets, T.optimisers(nets, config), b, config, **kw)
    return counter.get_total_flops() / B


@pytest.fixture(scope="module")
def default():
    "The default setting at full width, and what its step costs"
    setup = setting()
    return setup, counted(T.step, *setup)


def test_the_default_step_costs_its_minimum(default):
    setup, cost = default
    assert minimum(*setup) == pytest.approx(5.114e9, rel=1e-3)
    assert minimum(*setup) <= cost <= 1.0001 * minimum(*setup)  # one needless pass through D_C is 0.03 %


def test_the_deep_layers_cost_the_same_as_matrix_products(default):
    (config, nets, b), cost = default
    assert counted(T.step, config.replace(precision="bf16"), nets, b) == pytest.approx(cost, rel=1e-3)
    in_use = {n: [deep(m, b.x, n) for m in nets.modules() if isinstance(m, (Conv, UpConv))] for n in (2, 16)}
    assert any(in_use[2]) and not any(in_use[16])


def test_sharing_passes_would_save_the_simultaneous_saturating_step_under_3_percent():
    setup = setting(update="simultaneous", gan_loss="saturating")
    assert minimum(*setup) == pytest.approx(4.985e9, rel=1e-3)
    assert minimum(*setup) <= counted(T.step, *setup) <= 1.03 * minimum(*setup)


def test_the_plain_reference_costs_more_than_one_and_a_half_steps(default):
    setup, cost = default
    plain, careful = (counted(T.reference_step, *setup, careful=careful) for careful in (False, True))
    print(f"GFLOP an image: step {cost / 1e9:.4f}, reference {plain / 1e9:.4f}, careful reference {careful / 1e9:.4f}")
    assert plain > 1.5 * cost and plain > careful > cost
