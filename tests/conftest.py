"""What every test relies on: no window, one thread, runs in a folder of their own, repeatable examples."""

import functools
import http.server
import os
import shutil
import threading

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


class Handler(http.server.SimpleHTTPRequestHandler):
    "Files of a folder, without a line for each."

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def serve():
    "Serves a folder on this machine and says under which address."
    servers = []

    def start(folder):
        servers.append(
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        )
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def start_browser():
    "Starts a headless Chromium with further switches; all of them end with the tests."
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: Debian's packages chromium and chromium-driver are not installed")
    started = []

    def start(*switches):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        plain = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
        if os.geteuid() == 0:
            plain.append("--no-sandbox")  # Chromium refuses to run as root with one
        for switch in (*plain, *switches):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        started.append(webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)))
        started[-1].set_script_timeout(60)
        return started[-1]

    yield start
    for browser in started:
        browser.quit()


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
