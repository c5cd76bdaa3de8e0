"""Builds the explorer, a page that draws from the pretrained models in the browser, into out/explorer.

The models of pretrained/ become ONNX files, and onnxruntime-web comes from its npm package. Both are kept under out/
and made again only when they change."""

import argparse
import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import warnings
from pathlib import Path

from aae_prior.files import write_json
from aae_prior.onnx_export import export_onnx
from aae_prior.runs import load, read_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ("index.html", "explorer.js", "noise.js", "explorer.css")
PICTURES = ("fig8_supervised_mnist.png", "fig11_unsupervised_mnist_classes.png")
MODELS = ("ours", "maae")
CONDITIONS = ("label", "category")

# Releases before and after have the same interface; the size of the .wasm file differs by megabytes.
RUNTIME = "onnxruntime-web@1.22.0"
INTEGRITY = (  # of the package, as npm gives it
    "sha512-Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg=="
)
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
BINARY = "ort-wasm-simd-threaded.wasm"  # 11 MB; the page unpacks it, since not every server compresses


class NoRuntime(ValueError):
    "The runtime cannot be had: no npm, or no network."


def integrity(path: Path) -> str:
    "The sha512 of a file in npm's form."
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def runtime_package(folder: Path) -> Path:
    "The package RUNTIME as `npm pack` brings it, in `folder`. NoRuntime without it, ValueError for another."
    path = folder / (RUNTIME.replace("@", "-") + ".tgz")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "pack", RUNTIME, "--silent", "--pack-destination", str(folder)]
        try:
            subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            raise NoRuntime(f"npm is not installed; it brings {RUNTIME}, which the explorer runs on") from None
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = " ".join(str(error.stderr or error).split())
            raise NoRuntime(f"`{' '.join(words)}` failed: {said[-300:]}") from None
    if integrity(path) != INTEGRITY:
        raise ValueError(f"{path} is not {RUNTIME} as pinned in {__file__}; remove it and build again")
    return path


def copy_runtime(package: Path, folder: Path):
    "Unpack RUNTIME_FILES of the npm `package` into `folder`, and BINARY, gzipped."
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for name in RUNTIME_FILES:
            with archive.extractfile(f"package/dist/{name}") as source:
                (folder / name).write_bytes(source.read())
        with archive.extractfile(f"package/dist/{BINARY}") as source:
            # Not ".gz": some servers announce that as an encoding, and the browser would unpack it before the page.
            (folder / f"{BINARY}.gzip").write_bytes(gzip.compress(source.read(), 9, mtime=0))


def pretrained_folders() -> list:
    "Folders of the pretrained models that the explorer offers."
    records = sorted((ROOT / "pretrained").glob("*/record.json"))
    configs = {path.parent: read_record(path.parent)["config"] for path in records}
    return [folder for folder, c in configs.items() if c["model"] in MODELS and c["condition"] in CONDITIONS]


def export_model(source: Path, folder: Path) -> dict:
    "What describes the model in `source`, exported to `folder` unless the same weights were exported there before."
    weights = read_record(source)["weights_sha256"]
    described, stamp = folder / "sampler.json", folder / "weights_sha256"
    if not (described.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == weights):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_onnx(load(source, "cpu"), folder)
        stamp.write_text(weights, encoding="utf-8")
    return json.loads(described.read_text(encoding="utf-8"))


def build(out: Path, cache: Path) -> Path:
    "Build the page in the folder `out`; downloads and exports are kept in `cache`. ValueError as above."
    out.mkdir(parents=True, exist_ok=True)
    copy_runtime(runtime_package(cache / "npm"), out / "onnxruntime")
    models = []
    for source in pretrained_folders():
        exported = cache / "models" / source.name
        models.append(export_model(source, exported) | dict(file=f"models/{source.name}.onnx"))
        (out / "models").mkdir(exist_ok=True)
        shutil.copyfile(exported / "sampler.onnx", out / "models" / f"{source.name}.onnx")
    write_json(out / "models.json", models)
    for name in PAGE:
        shutil.copyfile(HERE / name, out / name)
    for name in PICTURES:
        shutil.copyfile(ROOT / "figures" / name, out / name)
    return out


def main():
    "Build, and say how large the result is."
    parser = argparse.ArgumentParser(description="Build the explorer.")
    parser.add_argument("--to", type=Path, default=ROOT / "out" / "explorer", help="folder to build [out/explorer]")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "explorer_cache", help="kept [out/explorer_cache]")
    a = parser.parse_args()
    try:
        out = build(a.to, a.cache)
    except (ValueError, OSError) as error:
        parser.exit(1, f"the explorer was not built: {error}\n")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB; to look at it: python -m http.server --directory {out}")


if __name__ == "__main__":
    main()
