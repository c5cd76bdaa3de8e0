"""What the notebook of the results does not show: rows of a given run, and which of two presets a picture is of."""
import pytest

from aae_prior.config import Config, SettingError
from aae_prior.results import HEADER, Results, caption, merge_rows, read_rows
from aae_prior.runs import fit


@pytest.fixture(scope="module")
def smoke(tmp_path_factory): return fit(Config(preset="smoke", steps=2), root=tmp_path_factory.mktemp("smoke"), progress=False)


def test_rows_of_a_given_run_have_its_preset(smoke, tmp_path):
    results = Results("fig8_supervised", Config(run_dir=str(smoke.dir), out_dir=str(tmp_path)), figure="8")
    results.row("ours", "diversity", 0.5)
    assert results.rows[0]["preset"] == "smoke"
    with pytest.raises(SettingError, match="publish.*preset smoke"): Results("fig8_supervised", Config(run_dir=str(smoke.dir), publish=True), figure="8")


def row(preset, value):
    return dict.fromkeys(HEADER, "") | dict(figure="8", dataset="digits", model="ours", metric="diversity", value=value, preset=preset, command="papermill nbs/fig8_supervised.ipynb out.ipynb")


def test_a_caption_is_of_the_rows_written_last(tmp_path):
    path = tmp_path / "results.csv"
    for preset, value in (("quick", "0.5"), ("cpu", "0.8"), ("quick", "0.6")): merge_rows(path, [row(preset, value)])
    assert [r["value"] for r in read_rows(path)] == ["0.8", "0.6"]
    assert "preset quick" in (said := caption("fig8_supervised", "digits", read_rows(path))) and "0.6" in said and "0.8" not in said


@pytest.mark.parametrize("name, stem", [("flowers.v2", "flowers.v2"), (None, "digits")])
def test_a_dot_in_a_data_sets_name_stays(tmp_path, name, stem):
    assert Results("fig8_supervised", Config(out_dir=str(tmp_path)), figure="8", dataset=name).dataset == stem
