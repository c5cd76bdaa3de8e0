"""What every test relies on: no window, one thread, runs in a folder of their own, repeatable examples."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; small networks are fastest so
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import pytest

# A red example must be red again, and a busy machine is no failure.
hypothesis.settings.register_profile("aae_prior", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("aae_prior")


@pytest.fixture(scope="session", autouse=True)
def runs_folder(tmp_path_factory):
    "Runs of the tests, child processes included, stay out of the checkout."
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAE_PRIOR_RUNS", str(folder))
        yield folder
