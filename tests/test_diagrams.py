"Diagrams: drawing errors are errors, arrows go where they should, and tables of layers tell the truth about a network."

from pathlib import Path

import papermill
import pytest
import torch

from aae_prior import diagrams, networks, plots

ROOT = Path(__file__).resolve().parents[1]
X, CODE, NOISE, LABEL = torch.zeros(2, 3, 32, 32), torch.zeros(2, 16), torch.zeros(2, 14), torch.zeros(2, 10)
NETWORKS = {
    "enc": (networks.Encoder(3, 16, width=0.125), (X,)),
    "enc, stochastic": (networks.Encoder(3, 16, width=0.125, stochastic=True), (X,)),
    "enc, 64 pixels, no normalisation": (
        networks.Encoder(1, 16, width=0.125, size=64, norm=False),
        (torch.zeros(2, 1, 64, 64),),
    ),
    "dec": (networks.Decoder(16, 3, width=0.125), (CODE,)),
    "CG": (networks.CodeGenerator(24, 16), (NOISE, LABEL)),
    "D_C": (networks.CodeDiscriminator(16), (CODE,)),
    "D_I": (networks.ImageDiscriminator(3, 10, width=0.125), (X,)),
    "D_I that sees s": (networks.ImageDiscriminator(3, 10, width=0.125, sees_condition=True), (X, LABEL)),
    "block": (networks.UpBlock(8, 4), (torch.zeros(2, 8, 4, 4),)),
}
each_network = pytest.mark.parametrize("net, inputs", NETWORKS.values(), ids=NETWORKS)


def two_boxes():
    d = diagrams.Diagram(6, 3)
    d.box("a", 1, 1)
    d.box("b", 4, 1, kind="coder", h=1.5)
    return d


def test_a_drawing_error_is_an_error():
    d = two_boxes()
    with pytest.raises(ValueError, match="box c lies on box b"):
        d.box("c", 4.3, 1.6)
    with pytest.raises(ValueError, match="inches wide"):
        d.box("c", 2.5, 1, "a text that is too long")
    with pytest.raises(ValueError, match="inches wide"):
        d.box("c", 2.5, 1, note="a note that is too long")
    d.box("c", 2.5, 1)
    with pytest.raises(ValueError, match="from a to b passes through box c"):
        d.arrow("a", "b")
    d.arrow("a", "b", via=[(1, 0.3), (4, 0.3)])  # around it
    assert set(d.boxes) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "a, b, corners",
    [
        ((0, 0, 1, 1), (3, 0, 4, 1), [(1, 0.5), (3, 0.5)]),
        ((3, 0, 4, 1), (0, 0, 1, 1), [(3, 0.5), (1, 0.5)]),
        ((0, 0, 1, 1), (3, -5, 4, 1), [(1, 0.5), (3, 0.5)]),  # at the height of the smaller box
        ((0, 0, 1, 1), (0, 3, 1, 4), [(0.5, 1), (0.5, 3)]),
        ((0, 0, 1, 1), (0.8, 3, 1.8, 4), [(0.9, 1), (0.9, 3)]),  # in the middle of what they share
        ((0, 0, 1, 1), (3, 3, 4, 4), [(1, 0.5), (3.5, 0.5), (3.5, 3)]),
    ],
)
def test_routes(a, b, corners):
    assert diagrams.route(a, b) == pytest.approx([pytest.approx(c) for c in corners])


def test_a_route_ends_at_the_borders_of_its_boxes():
    assert diagrams.route((0, 0, 1, 1), (3, 0, 4, 1), [(0.5, -2), (3.5, -2)]) == [
        (0.5, 0),
        (0.5, -2),
        (3.5, -2),
        (3.5, 0),
    ]
    with pytest.raises(ValueError, match="neither beside"):
        diagrams.route((0, 0, 1, 1), (3, 0, 4, 1), [(2, 2), (3.5, 2)])


def test_rounded_corners_keep_both_ends():
    path = diagrams.rounded_path([(0, 0), (1, 0), (1, 1)])
    assert tuple(path.vertices[0]) == (0, 0) and tuple(path.vertices[-1]) == (1, 1)


def test_a_diagram_is_byte_identical(tmp_path):
    files = []
    for name in ("a.png", "b.png"):
        d = two_boxes()
        d.box("L", 1, 2.4, "$L_{rec}$", "loss", note="$F(x)$")
        d.arrow("a", "b", "$z_x$")
        d.arrow("L", "b", "fake", dashed=True)
        d.group("ab", "both")
        files.append(plots.save(d.fig, tmp_path / name).read_bytes())
    assert files[0] == files[1]


@each_network
def test_no_parameter_is_lost_or_counted_twice(net, inputs):
    assert sum(layer.parameters for layer in diagrams.layers(net, *inputs)) == sum(p.numel() for p in net.parameters())


@each_network
def test_looking_at_a_network_leaves_it_as_it_was(net, inputs):
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    diagrams.layers(net, *inputs)
    assert all(m.training for m in net.modules())
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_hooks_and_modes_survive_an_error():
    net = networks.CodeGenerator(24, 16).train()
    with pytest.raises(RuntimeError):
        diagrams.layers(net, torch.zeros(2, 3))
    assert net.training and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_functions_without_a_module_are_seen():
    text = {layer.name: layer for layer in diagrams.layers(*NETWORKS["enc"][:1], X)}
    assert text["stem"].text == "conv 3×3 stride 2, ReLU" and text["stem"].shape == (8, 16, 16)
    assert text[""].text == "mean over positions" and text[""].shape == (64,)
    assert diagrams.layers(NETWORKS["dec"][0], CODE)[-1].text == "conv 3×3, tanh"
    assert [layer.text for layer in diagrams.layers(*NETWORKS["block"][:1], torch.zeros(2, 8, 4, 4))] == [
        "up-conv 4×4 stride 2, BN, ReLU",
        "conv 3×3, BN",
        "conv 1×1, enlarged",
        "sum, ReLU",
    ]


def test_two_heads_of_one_layer_do_not_take_its_activation():
    text = {layer.name: layer.text for layer in diagrams.layers(NETWORKS["D_I"][0], X)}
    assert (text["hidden"], text["q"], text["real"]) == ("FC, LReLU", "FC", "FC")


def test_normalisation_that_is_off_is_not_shown():
    block = networks.DownBlock(4, 8, norm=False)
    assert not any("BN" in layer.text for layer in diagrams.layers(block, torch.zeros(2, 4, 8, 8)))


@pytest.mark.slow
def test_the_notebook_draws_all_seven_figures_and_publishes_nothing(tmp_path):
    before = {file: file.stat().st_mtime_ns for file in (ROOT / "figures").iterdir()}
    papermill.execute_notebook(
        ROOT / "nbs" / "architecture_figures.ipynb",
        tmp_path / "out.ipynb",
        {"out_dir": str(tmp_path)},
        cwd=tmp_path,
        progress_bar=False,
    )
    drawn = {file.name.split("_")[0] for file in tmp_path.glob("*.png")}
    assert drawn == {f"fig{n}" for n in (1, 2, 3, 4, 7, 10, 15)}
    assert {file: file.stat().st_mtime_ns for file in (ROOT / "figures").iterdir()} == before
