"Pictures: one value range, one style, files that do not change from run to run, errors that say what to do."
import warnings

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from aae_prior import plots


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def written(fig, path):
    return (matplotlib.image.imread(plots.save(fig, path)) * 255).round().astype(np.uint8)[..., :3]


HISTORY = pd.DataFrame({"step": range(0, 400, 10), "L_D_C": 1.3, "L_GAN_C": 0.7, "L_rec": np.linspace(2, 1, 40), "L_D_I": 1.1,
                        "L_GAN_I": 0.9, "mi_bound": np.linspace(0, 2.3, 40), "acc_D_C": 0.6, "acc_D_I": 0.7, "acc_Q_real": 0.9})


def figures():
    grid = images(3, 4, 1, 8, 8)
    yield plots.image_grid(images(12, 3, 8, 8), 3, 4, "A title")
    yield plots.style_grid(grid, ["zero", "one", "two", "automobile"], ["a", "b", "c"])
    yield plots.side_by_side({"ours": grid, "maae": grid}, col_labels=range(4), title="Two models")
    yield plots.filmstrip({0: images(8, 1, 8, 8), 1000: images(8, 1, 8, 8)})
    yield plots.loss_curves(HISTORY)
    yield plots.loss_curves({"ours": HISTORY.to_dict("records"), "maae": HISTORY})


def test_zero_is_mid_grey_whatever_else_is_in_the_grid(tmp_path):
    x = torch.zeros(4, 1, 16, 16)
    x[1], x[2] = -0.2, 0.3
    pixels = written(plots.image_grid(x, 1, 4), tmp_path / "grid.png")
    values = set(np.unique(pixels))
    assert values & {127, 128} and {102, 166} <= values   # no stretching: -0.2 and 0.3 keep their own grey
    corner = plots.tile(x, 1, 4)[0, 0]
    assert corner.tolist() == [128] * 3


def test_image_pixels_reach_the_file_unchanged(tmp_path):
    x = images(6, 3, 16, 16)
    want, got = plots.tile(x, 2, 3, plots.grid_scale(3, 16)), written(plots.image_grid(x, 2, 3), tmp_path / "grid.png")
    h, w, _ = want.shape
    y0, x0 = plots.MARGIN, (got.shape[1] - w) // 2
    assert (got[y0:y0 + h, x0:x0 + w] == want).all()


def test_rows_and_columns_are_not_swapped():
    x = torch.stack([torch.full((1, 4, 4), v) for v in (-1., 0., 1., -1., 0., 1.)]).view(2, 3, 1, 4, 4)   # equal within a column
    rows, cols, flat = plots.table(x)
    pixels = plots.tile(flat, rows, cols)
    assert [pixels[0, c * (4 + plots.LINE), 0] for c in range(3)] == [0, 128, 255]
    assert (pixels[:4] == pixels[4 + plots.LINE:]).all()


def test_every_figure_is_byte_identical_and_leaves_nothing_open(tmp_path):
    for i, (first, again) in enumerate(zip(figures(), figures())):
        a, b = plots.save(first, tmp_path / f"{i}" / "new" / "a.png"), plots.save(again, tmp_path / f"{i}b.png")
        assert a.read_bytes() == b.read_bytes()
        assert len(np.unique(matplotlib.image.imread(a))) > 2
        assert b"Software" not in a.read_bytes()
    assert plt.get_fignums() == []


def test_save_closes_a_pyplot_figure(tmp_path):
    fig = plt.figure()
    assert plots.save(fig, tmp_path / "x.png") == tmp_path / "x.png"
    assert not plt.fignum_exists(fig.number)


def test_the_callers_style_is_neither_changed_nor_obeyed(tmp_path):
    before = plots.save(plots.loss_curves(HISTORY), tmp_path / "a.png").read_bytes()
    with plt.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        settings = dict(plt.rcParams)
        inside = plots.save(plots.loss_curves(HISTORY), tmp_path / "b.png").read_bytes()
        assert dict(plt.rcParams) == settings
    assert inside == before


@pytest.mark.parametrize("x, words", [
    (torch.full((4, 1, 8, 8), 255.), r"\[255, 255\]; expected \[-1, 1\]"),
    (torch.full((4, 1, 8, 8), float("nan")), r"expected \[-1, 1\]"),
    (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "uint8; expected floats"),
    (torch.zeros(4, 2, 8, 8), r"shape \(4, 2, 8, 8\)"),
    (torch.zeros(3, 1, 8, 8), "needs 4 images; got 3")])
def test_images_of_another_kind_are_refused(x, words):
    with pytest.raises(ValueError, match=words): plots.image_grid(x, 2, 2)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 column names for 4 columns"): plots.style_grid(images(2, 4, 1, 8, 8), "abc")
    with pytest.raises(ValueError, match="rows, columns"): plots.style_grid(images(4, 1, 8, 8))


def test_a_history_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="'step'"): plots.loss_curves([{"L_rec": 1.}])
    with pytest.raises(ValueError, match="L_D_C"): plots.loss_curves([{"step": 1, "seconds": 2.}])


def test_curves_leave_out_what_is_not_finite():
    found = plots.curves(pd.DataFrame({"step": [0, 1, 2], "L_rec": [1., np.nan, np.inf], "L_D_C": [None] * 3}), ["L_rec", "L_D_C", "L_D_I"])
    assert list(found) == ["L_rec"] and found["L_rec"][1].tolist() == [1.]


def test_one_spike_does_not_flatten_a_curve():
    y = np.ones(1000)
    y[500] = 1e6
    assert plots.value_range([plots.smooth(y)])[1] < 2
