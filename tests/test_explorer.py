"""The explorer in a real browser: what it draws, how fast, what it asks for, and its use without a mouse."""

import base64
import importlib.util
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from aae_prior.extractors import Classifier, ClassifierNet, read_classifier
from aae_prior.runs import load
from aae_prior.sampling import generate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "explorer"
WIDTHS = (390, 1280)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The explorer as it is built, what it downloads kept under out/."
    spec = importlib.util.spec_from_file_location("explorer_build", PAGE / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    try:
        return build.build(tmp_path_factory.mktemp("site") / "explorer", ROOT / "out" / "explorer_cache")
    except build.NoRuntime as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def address(site, serve):
    return f"{serve(site)}/index.html"


@pytest.fixture(scope="module")
def browser(start_browser):
    return start_browser()


def opened(browser, address, words=""):
    "The page with `words` as its state, when its first pictures are there; how many seconds it took."
    browser.get("about:blank")
    began = time.perf_counter()
    browser.get(f"{address}#{words}")
    wait_for(browser, "return Boolean(window.explorer && Object.keys(window.explorer.shown).length)")
    taken = time.perf_counter() - began
    wait_for(browser, "return document.getElementById('status').textContent === ''")
    return taken


def wait_for(browser, script, seconds=30):
    "Wait until `script` returns something true; AssertionError after so many `seconds`."
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.02)


def change(browser, **changes):
    "Change the state as the controls do, and wait for the pictures."
    browser.execute_async_script("explorer.change(arguments[0]).then(arguments[1])", changes)


def shown(browser, model):
    "z (1, noise_length), s (1, k) and the pixels (32, 32) of the large picture of `model`, as the page has them."
    z, s, grey = browser.execute_script(
        """const canvas = document.querySelector(`#picture-${arguments[0]} .one`);
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
        const { z, s } = explorer.shown[arguments[0]];
        return [Array.from(z), Array.from(s), Array.from(pixels).filter((_, i) => i % 4 === 0)];""",
        model,
    )
    return torch.tensor([z]), torch.tensor([s]), np.array(grey).reshape(32, 32)


def control(browser, name):
    return browser.find_element("id", name)


def judge():
    "The project's judge of MNIST digits."
    [path] = (ROOT / "pretrained" / "judges").glob("mnist-*.safetensors.gz")
    facts, weights = read_classifier(path)
    recipe = facts["recipe"]
    net = ClassifierNet(recipe["channels"], recipe["classes"], recipe["size"], recipe["width"])
    net.load_state_dict(weights)
    return Classifier(net.eval(), recipe, facts["test_accuracy"], facts["seconds"])


def judged(pixels):
    "The digit that the judge sees in pixels (32, 32)."
    return judge().probabilities(torch.tensor(pixels, dtype=torch.uint8)[None, None]).argmax().item()


def errors(browser):
    "What the page complained of since the last call."
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_first_picture_is_quick_and_nothing_is_wrong(browser, address):
    tries = []
    for _ in range(3):  # a busy machine is no failure
        browser.execute_cdp_cmd("Network.clearBrowserCache", {})
        tries.append(opened(browser, address))
    assert not errors(browser)
    assert browser.title and browser.find_element("tag name", "html").get_attribute("lang") == "en"
    assert all(image.get_attribute("alt") for image in browser.find_elements("tag name", "img"))
    print("first pictures after", ", ".join(f"{taken:.2f} s" for taken in tries))
    assert min(tries) < 3


def test_nothing_is_asked_of_another_host(browser, address):
    browser.get_log("performance")
    opened(browser, address, "condition=category")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    files = [url for url in asked if not url.startswith(("data:", "about:"))]
    assert len(files) >= 7
    assert all(url.startswith(address.removesuffix("index.html")) for url in files)


def test_a_three_is_a_three(browser, address):
    opened(browser, address, "condition=label&model=both&label=3&seed=11")
    assert {model: judged(shown(browser, model)[2]) for model in ("ours", "maae")} == dict(ours=3, maae=3)
    found = []
    for label in range(10):
        change(browser, label=label)
        found.append(judged(shown(browser, "ours")[2]))
    assert sum(a == b for a, b in enumerate(found)) >= 9


@pytest.mark.parametrize("condition", ["label", "category"])
def test_agrees_with_pytorch(browser, address, condition):
    opened(browser, address, f"condition={condition}&model=both&label=5&seed=3&move=0.5,-1")
    runs = {model: load(ROOT / "pretrained" / f"mnist-{condition}-{model}", "cpu") for model in ("ours", "maae")}
    for changes in (dict(), dict(seed=4, label=7), dict(part=0.4)):
        change(browser, **changes)
        both = {model: shown(browser, model) for model in runs}
        assert torch.equal(both["ours"][0], both["maae"][0])
        assert torch.equal(both["ours"][1], both["maae"][1])
        for model, (z, s, pixels) in both.items():
            wanted = ((generate(runs[model].nets, z, s)[0, 0] + 1) * 127.5).round().numpy()
            off = np.abs(wanted - pixels).max()
            print(condition, model, changes, f"off by {off:.0f} of 255")
            assert off <= 2 and np.ptp(pixels) > 200


def test_noise_is_standard_normal(browser, address):
    opened(browser, address)
    values = browser.execute_async_script(
        """const done = arguments[0];
        import("./noise.js").then(({ gaussian, movedNoise, between }) => {
          const many = (f) => Array.from({ length: 400 }, (_, seed) => Array.from(f(seed))).flat();
          done([many((seed) => gaussian(seed, 0, 50)), many((seed) => movedNoise(seed, [1.5, -2], 50)),
            many((seed) => between(gaussian(seed, 0, 50), gaussian(seed + 1000, 0, 50), 0.3)),
            Array.from(gaussian(7, 0, 50)), Array.from(gaussian(7, 0, 90))]);
        });"""
    )
    for sample in values[:3]:
        assert abs(np.mean(sample)) < 0.03 and abs(np.std(sample) - 1) < 0.03
        assert 0.66 < np.mean(np.abs(sample) < 1) < 0.71
    assert values[3] == values[4][:50]


def test_the_address_holds_the_picture(browser, start_browser, address):
    opened(browser, address)
    change(browser, seed=123, label=6, offsets=[0.5, -1.25, 0, 0.3, 0, 0, 0, 0, 0, 0], toLabel=2, toSeed=9, part=0.25)
    time.sleep(0.5)
    words = browser.current_url.split("#")[1]
    before = {model: shown(browser, model)[2] for model in ("ours", "maae")}
    other = start_browser()
    opened(other, address, words)
    for model, pixels in before.items():
        assert np.array_equal(shown(other, model)[2], pixels)
    change(other, seed=124)
    assert not np.array_equal(shown(other, "ours")[2], before["ours"])


def test_an_address_that_makes_no_sense_draws_all_the_same(browser, address):
    opened(browser, address, "dataset=moon&condition=none&model=5&label=99&seed=-1&move=a,1e9&part=7")
    state = browser.execute_script("return explorer.state")
    assert state["dataset"] == "mnist" and state["condition"] == "label" and state["label"] == 9
    assert state["offsets"][:2] == [0, 2] and state["part"] == 1
    assert not errors(browser)


def test_without_a_mouse(browser, address):
    from selenium.webdriver.common.keys import Keys

    opened(browser, address, "label=3&seed=1")
    before = shown(browser, "ours")[2]
    for name, offset in (("x", 0), ("y", 1)):
        control(browser, name).send_keys(Keys.ARROW_RIGHT * 10)
        wait_for(browser, f"return Math.abs(explorer.state.offsets[{offset}] - 0.5) < 1e-6")
    control(browser, "next").send_keys(Keys.ENTER)
    assert "3 and 4" in control(browser, "pair").text
    control(browser, "x").send_keys(Keys.END)
    wait_for(browser, "return explorer.state.offsets[2] === 2")
    change(browser)
    moved = shown(browser, "ours")[2]
    assert not np.array_equal(before, moved)
    control(browser, "part").send_keys(Keys.END)
    wait_for(browser, "return explorer.state.part === 1")
    control(browser, "centre").send_keys(Keys.SPACE)
    wait_for(browser, "return explorer.state.offsets.every((a) => a === 0)")
    seed = control(browser, "seed")
    seed.send_keys(Keys.CONTROL + "a")
    seed.send_keys("77" + Keys.ENTER)
    wait_for(browser, "return explorer.state.seed === 77")
    named = browser.execute_script(
        """return Array.from(document.querySelectorAll("#live input, #live select, #live button, #live canvas"))
          .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
          .map((e) => e.outerHTML);"""
    )
    assert not named
    assert not errors(browser)


def test_pad_and_play(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.set_window_size(1280, 1000)
    opened(browser, address, "label=3&seed=1")
    ActionChains(browser).move_to_element_with_offset(
        control(browser, "pad"), 55, -55
    ).click_and_hold().release().perform()
    wait_for(browser, "return explorer.state.offsets[0] > 0.9 && explorer.state.offsets[1] > 0.9")
    control(browser, "play").click()
    wait_for(browser, "return explorer.state.part > 0.5")
    control(browser, "play").click()
    assert control(browser, "play").text == "Play"


def test_draws_sixty_pictures_of_both_models_in_turn(browser, address):
    opened(browser, address, "model=both")
    seconds = browser.execute_async_script(
        """const done = arguments[0];
        (async () => {
          const began = performance.now();
          for (let i = 0; i < 60; i++) await explorer.change({ part: i / 60 });
          done((performance.now() - began) / 1000);
        })();"""
    )
    print(f"{120 / seconds:.0f} images/s of both models, address and controls included; one takes", end=" ")
    print(control(browser, "speed").text)
    assert browser.execute_script("return explorer.state.part") == pytest.approx(59 / 60)
    assert re.search(r"\d", control(browser, "speed").text)


@pytest.mark.parametrize("missing", ["WebAssembly", "models/mnist-label-ours.onnx", "onnxruntime"])
def test_pictures_where_networks_cannot_run(start_browser, address, missing):
    lame = start_browser()
    if missing == "WebAssembly":
        script = "delete window.WebAssembly"
        lame.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", dict(source=script))
    else:
        lame.execute_cdp_cmd("Network.enable", {})
        lame.execute_cdp_cmd("Network.setBlockedURLs", dict(urls=[f"*{missing}*"]))
    lame.get(address)
    wait_for(lame, "return !document.getElementById('static').hidden && document.getElementById('live').hidden")
    said = control(lame, "status").text
    assert said.startswith("The networks cannot run here") and missing in said and "\n" not in said
    pictures = lame.find_elements("css selector", "#static img")
    assert pictures and all(picture.get_property("naturalWidth") > 100 for picture in pictures)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_the_screen(browser, address, width, scheme):
    phone = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    features = [dict(name="prefers-color-scheme", value=scheme)]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=features))
    try:
        opened(browser, address, "label=3&seed=11")
        time.sleep(0.5)  # the rows come when nothing moves
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, back.removeprefix("rgb(").removesuffix(")").split(","))) < 200) == (scheme == "dark")
        if folder := os.environ.get("AAE_PRIOR_SCREENSHOTS"):
            picture = browser.execute_cdp_cmd("Page.captureScreenshot", dict(captureBeyondViewport=True))
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"explorer_{width}_{scheme}.png").write_bytes(base64.b64decode(picture["data"]))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[]))
