"""What every test relies on: no window, one thread, runs in a folder of their own, repeatable examples."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; small networks are fastest so
os.environ["MPLBACKEND"] = "Agg"

import importlib.util
from pathlib import Path

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


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    "What book/make.py can do, its pages gathered in a folder of their own, `book.SOURCE`, as Sphinx takes them."
    path = Path(__file__).resolve().parents[1] / "book" / "make.py"
    spec = importlib.util.spec_from_file_location("book_make", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SOURCE = tmp_path_factory.mktemp("book") / "source"
    module.gather()
    return module
