"Pictures: one value range, one style, files that do not change from run to run, errors that say what to do."

import gc
import warnings

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from aae_prior import plots


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_other_tests():
    gc.collect()  # files that tests in this process left open must not be found here


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def written(fig, path):
    return (matplotlib.image.imread(plots.save(fig, path)) * 255).round().astype(np.uint8)[..., :3]


HISTORY = pd.DataFrame(
    {
        "step": range(0, 400, 10),
        "L_D_C": 1.3,
        "L_GAN_C": 0.7,
        "L_rec": np.linspace(2, 1, 40),
        "L_D_I": 1.1,
        "L_GAN_I": 0.9,
        "mi_bound": np.linspace(0, 2.3, 40),
        "acc_D_C": 0.6,
        "acc_D_I": 0.7,
        "acc_Q_real": 0.9,
    }
)


SWEEP = [
    {"model": m, "code_dim": n, "fid": 5.0 + n * k + s}
    for k, m in enumerate(["ours", "aae"])
    for n in (8, 100, 2000)
    for s in range(2)
]


def codes(n, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


GRID = images(3, 4, 1, 8, 8)
FIGURES = {
    "image_grid": lambda: plots.image_grid(images(12, 3, 8, 8), 3, 4, "A title"),
    "style_grid": lambda: plots.style_grid(GRID, ["zero", "one", "two", "automobile"], ["a", "b", "c"]),
    "side_by_side": lambda: plots.side_by_side({"ours": GRID, "maae": GRID}, col_labels=range(4), title="Two models"),
    "filmstrip": lambda: plots.filmstrip({0: images(8, 1, 8, 8), 1000: images(8, 1, 8, 8)}),
    "loss_curves": lambda: plots.loss_curves(HISTORY[["step", "L_D_C", "mi_bound"]]),
    "loss_curves of two models": lambda: plots.loss_curves(
        {"ours": HISTORY.to_dict("records"), "maae": HISTORY.drop(columns="L_D_I")}
    ),
    "collapse_panel": lambda: plots.collapse_panel(HISTORY, {"acc_D_I": (0.5, 0.65), "mi_bound": (0, 2.3)}),
    "dimension_curve": lambda: plots.dimension_curve(SWEEP, "fid", "FID", real=3.0, title="Fig. 6"),
    "comparison": lambda: plots.comparison(
        pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, 0.1]}, index=["default", "another"]), title="Changes"
    ),
    "latent_scatter": lambda: plots.latent_scatter(codes(30), np.arange(30) % 12, title="Twelve classes"),
    "joint_scatter": lambda: plots.joint_scatter(
        codes(20), codes(24, seed=1), np.arange(20) % 3, torch.arange(24) % 3, "abc"
    ),
}


def test_zero_is_mid_grey_whatever_else_is_in_the_grid(tmp_path):
    x = torch.zeros(4, 1, 16, 16)
    x[1], x[2] = -0.2, 0.3
    pixels = written(plots.image_grid(x, 1, 4), tmp_path / "grid.png")
    values = set(np.unique(pixels))
    assert values & {127, 128} and {102, 166} <= values  # no stretching: -0.2 and 0.3 keep their own grey
    corner = plots.tile(x, 1, 4)[0, 0]
    assert corner.tolist() == [128] * 3


def test_image_pixels_reach_the_file_unchanged(tmp_path):
    x = images(6, 3, 16, 16)
    want, got = plots.tile(x, 2, 3, plots.grid_scale(3, 16)), written(plots.image_grid(x, 2, 3), tmp_path / "grid.png")
    h, w, _ = want.shape
    y0, x0 = plots.MARGIN, (got.shape[1] - w) // 2
    assert (got[y0 : y0 + h, x0 : x0 + w] == want).all()


def test_rows_and_columns_are_not_swapped():
    x = torch.stack([torch.full((1, 4, 4), v) for v in (-1.0, 0.0, 1.0, -1.0, 0.0, 1.0)]).view(
        2, 3, 1, 4, 4
    )  # equal within a column
    rows, cols, flat = plots.table(x)
    pixels = plots.tile(flat, rows, cols)
    assert [pixels[0, c * (4 + plots.LINE), 0] for c in range(3)] == [0, 128, 255]
    assert (pixels[:4] == pixels[4 + plots.LINE :]).all()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_byte_identical_and_leaves_nothing_open(name, tmp_path):
    a, b = (
        plots.save(FIGURES[name](), tmp_path / "new" / "folder" / "a.png"),
        plots.save(FIGURES[name](), tmp_path / "b.png"),
    )
    assert a.read_bytes() == b.read_bytes()
    assert len(np.unique(matplotlib.image.imread(a))) > 2
    assert b"Software" not in a.read_bytes()
    assert plt.get_fignums() == []


def test_save_closes_a_pyplot_figure(tmp_path):
    fig = plt.figure()
    assert plots.save(fig, tmp_path / "x.png") == tmp_path / "x.png"
    assert not plt.fignum_exists(fig.number)


def test_the_callers_style_is_neither_changed_nor_obeyed(tmp_path):
    before = plots.save(plots.loss_curves(HISTORY[["step", "L_rec"]]), tmp_path / "a.png").read_bytes()
    with plt.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        settings = dict(plt.rcParams)
        inside = plots.save(plots.loss_curves(HISTORY[["step", "L_rec"]]), tmp_path / "b.png").read_bytes()
        assert dict(plt.rcParams) == settings
    assert inside == before


@pytest.mark.parametrize(
    "x, words",
    [
        (torch.full((4, 1, 8, 8), 255.0), r"\[255, 255\]; expected \[-1, 1\]"),
        (torch.full((4, 1, 8, 8), float("nan")), r"expected \[-1, 1\]"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "uint8; expected floats"),
        (torch.zeros(4, 2, 8, 8), r"shape \(4, 2, 8, 8\)"),
        (torch.zeros(3, 1, 8, 8), "needs 4 images; got 3"),
    ],
)
def test_images_of_another_kind_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        plots.image_grid(x, 2, 2)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 column names for 4 columns"):
        plots.style_grid(images(2, 4, 1, 8, 8), "abc")
    with pytest.raises(ValueError, match="rows, columns"):
        plots.style_grid(images(4, 1, 8, 8))


def test_a_history_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="'step'"):
        plots.loss_curves([{"L_rec": 1.0}])
    with pytest.raises(ValueError, match="L_D_C"):
        plots.loss_curves([{"step": 1, "seconds": 2.0}])


def test_curves_leave_out_what_is_not_finite():
    found = plots.curves(
        pd.DataFrame({"step": [0, 1, 2], "L_rec": [1.0, np.nan, np.inf], "L_D_C": [None] * 3}),
        ["L_rec", "L_D_C", "L_D_I"],
    )
    assert list(found) == ["L_rec"] and found["L_rec"][1].tolist() == [1.0]


def test_one_spike_does_not_flatten_a_curve():
    y = np.ones(1000)
    y[500] = 1e6
    assert plots.value_range([plots.smooth(y)])[1] < 2


def test_names_at_line_ends_do_not_touch():
    moved = plots.separate_labels([0.5, 0.5, 0.5, 0.9], 0.1)
    assert (np.diff(np.sort(moved)) >= 0.1 - 1e-9).all() and abs(moved[:3].mean() - 0.5) < 1e-9 and moved[3] == 0.9


def test_the_sweep_and_the_indicators_name_what_is_missing():
    with pytest.raises(ValueError, match="lack kid"):
        plots.dimension_curve(SWEEP, "kid")
    with pytest.raises(ValueError, match="no rows"):
        plots.dimension_curve([], "fid")
    with pytest.raises(ValueError, match="finite numbers"):
        plots.comparison(pd.DataFrame({"a": [1.0, np.nan]}))
    one_far = plots.comparison(pd.DataFrame({"a": [1.0, 1.1, 0.9, 1.05, 40.0]}))
    assert one_far.axes[0].get_xlim()[1] < 5 and [text.get_text() for text in one_far.axes[0].texts] == ["40"]
    with pytest.raises(ValueError, match="no finite value of diversity"):
        plots.collapse_panel(HISTORY, {"diversity": (0, 1)})


@pytest.mark.parametrize("n, d", [(4, 2), (20, 8), (20, 1), (100, 64)])
def test_tsne_works_with_few_points(n, d):
    assert np.isfinite(plots.embed(plots.checked_codes(codes(n, d), "CG"))).all()


def test_tsne_of_collapsed_codes_does_not_fail():
    assert plots.embed(np.ones((20, 8), np.float32)).shape == (20, 2)


def test_tsne_separates_what_is_separate():
    x = np.concatenate([codes(40), codes(40, seed=1) + 20])
    points = plots.embed(x)
    a, b = points[:40], points[40:]
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 3 * max(a.std(0).max(), b.std(0).max())


def test_both_networks_share_one_embedding():
    x = codes(30)
    fig = plots.joint_scatter(x, x + 1e-3, np.zeros(30), np.ones(30))
    points = [np.concatenate([c.get_offsets() for c in ax.collections]) for ax in fig.axes]
    near = np.sort(points[0], 0), np.sort(points[1], 0)
    assert np.abs(near[0] - near[1]).max() < 0.1 * np.ptp(points[0])
    assert len({ax.get_xlim() + ax.get_ylim() for ax in fig.axes}) == 1
    assert len(points[2]) == 60


def test_codes_that_are_not_finite_name_their_network():
    x = codes(20)
    x[3, 1] = np.inf
    with pytest.raises(ValueError, match="1 of 20 codes of enc are not finite"):
        plots.joint_scatter(x, codes(20), np.zeros(20), np.zeros(20))
    with pytest.raises(ValueError, match="codes of CG are not finite"):
        plots.latent_scatter(torch.full((20, 4), float("nan")), np.zeros(20))


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="19 labels for 20 codes"):
        plots.latent_scatter(codes(20), np.zeros(19))
    with pytest.raises(ValueError, match="3 class names"):
        plots.latent_scatter(codes(20), np.full(20, 3), "abc")
    with pytest.raises(ValueError, match="8 dimensions"):
        plots.joint_scatter(codes(20), codes(20, 4), np.zeros(20), np.zeros(20))


def test_at_most_max_points_are_drawn_and_the_seed_chooses_them():
    assert len(plots.sample(5000, 100, 0)) == 100 and len(plots.sample(20, 100, 0)) == 20
    assert (plots.sample(5000, 100, 0) == plots.sample(5000, 100, 0)).all()
    assert (plots.sample(5000, 100, 0) != plots.sample(5000, 100, 1)).any()
