"""What the notebook of the results does not show: rows of a given run, two processes that publish, means over seeds."""

import statistics
import subprocess
import sys

import pytest

from aae_prior.config import Config
from aae_prior.refusals import SettingError
from aae_prior.results import (
    HEADER,
    Results,
    about,
    judge_of,
    mean_row,
    means,
    merge_rows,
    numbers,
    over_seeds,
    picture_note,
    read_rows,
    training_of,
)
from aae_prior.runs import fit


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return fit(Config(preset="smoke", steps=2), root=tmp_path_factory.mktemp("smoke"), progress=False)


def test_rows_of_a_given_run_have_its_preset(smoke, tmp_path):
    results = Results("fig8_supervised", Config(run_dir=str(smoke.dir), out_dir=str(tmp_path)), figure="8")
    results.row("ours", "diversity", 0.5)
    assert (results.rows[0]["preset"], results.rows[0]["seed"]) == ("smoke", "0")
    with pytest.raises(SettingError, match="publish.*preset smoke"):
        Results("fig8_supervised", Config(run_dir=str(smoke.dir), publish=True), figure="8")


def row(preset, value, seed="0", **cells):
    facts = dict(
        figure="8",
        dataset="digits",
        model="ours",
        metric="diversity",
        command="papermill nbs/fig8_supervised.ipynb out.ipynb",
    )
    return dict.fromkeys(HEADER, "") | facts | dict(value=value, preset=preset, seed=seed) | cells


def test_a_caption_is_of_the_rows_written_last(tmp_path):
    path = tmp_path / "results.csv"
    for preset, value in (("quick", "0.5"), ("cpu", "0.8"), ("quick", "0.6")):
        merge_rows(path, [row(preset, value)])
    assert [r["value"] for r in read_rows(path)] == ["0.8", "0.6"]
    assert (
        "preset quick" in (said := picture_note("fig8_supervised", "digits", read_rows(path)))
        and "0.6" in said
        and "0.8" not in said
    )


@pytest.mark.parametrize("name, stem", [("flowers.v2", "flowers.v2"), (None, "digits")])
def test_a_dot_in_a_data_sets_name_stays(tmp_path, name, stem):
    assert Results("fig8_supervised", Config(out_dir=str(tmp_path)), figure="8", dataset=name).dataset == stem


def test_an_older_results_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "results.csv").write_text("figure,claim,value,spread,seeds\n8,a,0.5,,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="results.csv: its header .* move the file away"):
        merge_rows(tmp_path / "results.csv", [row("quick", "0.5")])


def test_a_row_has_the_seed_and_the_command_of_its_run(smoke, tmp_path):
    results = Results(
        "fig6_high_dimensional",
        Config(publish=True, seed=0, dataset="mnist"),
        figure="6",
        extra=dict(code_dims=[32], seeds=None),
    )
    for seed in (None, 0, 3):
        results.row("ours", "fid", 1.0, seed)
    alone = (
        "papermill nbs/fig6_high_dimensional.ipynb out/fig6_high_dimensional.ipynb "
        "-p dataset mnist -p publish true -p code_dims 32"
    )
    assert [(r["seed"], r["command"]) for r in results.rows[:2]] == [("0", alone)] * 2
    assert results.rows[2]["seed"] == "3" and "-p seed 3" in results.rows[2]["command"]
    smoke.record["statistics"] = "own"
    assert about(smoke)["statistics"] == "own"
    del smoke.record["statistics"]
    assert about(smoke)["statistics"] == "mixed"  # a run of before

    class Judge:
        digest = "0123456789abcdef"

    assert (judge_of(Judge()), judge_of(object())) == ("0123456789ab", "")


def values(path):
    return {(r["seed"], r["value"]) for r in read_rows(path)}


def test_seeds_live_beside_each_other_and_the_same_one_is_replaced(tmp_path):
    path = tmp_path / "results.csv"
    for seed, value in (("0", "0.1"), ("1", "0.2"), ("0", "0.3")):
        merge_rows(path, [row("quick", value, seed)])
    merge_rows(path, [row("cpu", "0.9", "0")])
    assert values(path) == {("0", "0.3"), ("1", "0.2"), ("0", "0.9")}


def test_a_seed_takes_the_place_of_a_mean_whose_seeds_were_not_kept(tmp_path):
    path = tmp_path / "results.csv"
    merge_rows(path, [row("quick", "0.5", "0;1;2"), row("quick", "0.6", "0;1;2", metric="label_consistency")])
    merge_rows(path, [row("quick", "0.7", "5")])
    assert values(path) == {("5", "0.7"), ("0;1;2", "0.6")}


@pytest.mark.parametrize(
    "old, new, stays",
    [
        (dict(statistics="mixed"), dict(statistics="own"), False),
        (dict(epochs="9"), dict(epochs="3"), False),
        (dict(command="papermill a b -p lr 0.001"), dict(command="papermill a b -p seed 1"), False),
        (dict(command="papermill a b -p overrides r1=1"), dict(command="papermill a b -p overrides r1=2"), False),
        (
            dict(command="papermill a b -p device cuda -p publish true -p code_dims 8"),
            dict(command="papermill a b -p model ours -p seed 1 -p precision bf16"),
            True,
        ),
        (
            dict(hardware="one", wall_time="1 s", judge="a" * 12),
            dict(hardware="another", wall_time="2 s", judge="b" * 12),
            True,
        ),
    ],
)
def test_one_mean_is_over_one_training(tmp_path, old, new, stays):
    path = tmp_path / "results.csv"
    merge_rows(path, [row("quick", "0.1", "0", **old), row("cpu", "0.2", "0", **old)])
    merge_rows(path, [row("quick", "0.3", "1", **new)])
    assert values(path) == {("1", "0.3"), ("0", "0.2")} | ({("0", "0.1")} if stays else set())
    assert stays == (training_of(row("quick", "", **old)) == training_of(row("quick", "", **new)))


def test_two_processes_that_publish_at_once_lose_nothing(tmp_path):
    code = """if True:
        import sys
        from aae_prior.results import HEADER, merge_rows
        path, seed, metrics = sys.argv[1], sys.argv[2], 12
        print("ready", flush=True)
        sys.stdin.readline()
        facts = dict.fromkeys(HEADER, "") | dict(figure="8", dataset="digits", value=seed, seed=seed)
        for i in range(metrics):
            merge_rows(path, [facts | dict(metric=f"m{i}")])"""
    path = tmp_path / "results.csv"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, path, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for seed in (0, 1)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"  # both have imported all they need
    for process in started:
        process.stdin.write("go\n"), process.stdin.flush()
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert sorted((r["metric"], r["seed"]) for r in read_rows(path)) == sorted(
        (f"m{i}", seed) for i in range(12) for seed in "01"
    )


def test_mean_and_spread_over_seeds_are_those_of_the_standard_library():
    numbers = [0.829, 0.649, 0.757, 0.9]
    rows = [
        row("quick", str(value), str(seed), wall_time=f"{seed // 2} s", command=f"papermill a b -p seed {seed}")
        for seed, value in enumerate(numbers)
    ]
    assert over_seeds(rows) == (statistics.fmean(numbers), statistics.stdev(numbers), 4)
    [shown] = means(rows[::-1])
    assert (shown["value"], shown["spread"], shown["seeds"]) == (
        f"{statistics.fmean(numbers):.4g}",
        f"{statistics.stdev(numbers):.2g}",
        "4",
    )
    assert (shown["seed"], shown["wall_time"], shown["command"]) == ("0;1;2;3", "0 s; 1 s", "papermill a b -p seed 0")
    assert means([*rows, row("quick", "0.5", "3")])[0]["seeds"] == "4"  # the newer row of a seed counts


def test_one_seed_keeps_the_spread_within_its_number_and_an_old_mean_its_own():
    assert over_seeds([row("quick", "7.5", spread="0.46")]) == (7.5, 0.46, 1) and over_seeds([row("quick", "7.5")]) == (
        7.5,
        None,
        1,
    )
    pooled = row("quick", "0.7447", "0;1;2", spread="0.091")
    assert over_seeds([pooled]) == (0.7447, 0.091, 3) and means([pooled]) == [pooled | dict(seeds="3")]
    assert over_seeds([row("quick", "7", "0", spread="0.4"), row("quick", "8", "1", spread="0.4")]) == (
        7.5,
        statistics.stdev([7, 8]),
        2,
    )


def test_words_in_the_place_of_numbers_are_kept():
    assert mean_row([row("quick", "not computed", "0"), row("quick", "not computed", "1")])["value"] == "not computed"


def test_captions_show_means(tmp_path):
    path = tmp_path / "results.csv"
    merge_rows(path, [row("quick", "0.5", "0"), row("quick", "0.7", "1")])
    said = picture_note("fig8_supervised", "digits", read_rows(path))
    assert "preset quick, 2 seeds. `ours`: diversity 0.6 ± 0.14. `papermill" in said
    assert (
        numbers([row("quick", "0.5", spread="0.1")]) == "`ours`: diversity 0.5."
    )  # the spread within a number is left to the table
    [shown] = means(read_rows(path))
    assert [shown[name] for name in ("model", "value", "spread", "seeds")] == ["ours", "0.6", "0.14", "2"]
