"""What a notebook cannot show about itself: that notebooks, package, README and rules stay in step."""

import ast
import graphlib
import importlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tokenize
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
from papermill import inspect_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
MODULES = sorted(file for file in (ROOT / "aae_prior").glob("*.py") if not file.name.startswith("_"))

# The house by groups: a module imports from its own group and from those above it in this list, never in a circle.
GROUPS = dict(
    ground={
        "files",
        "refusals",
        "values",
        "recipes",
        "machine",
        "config",
        "parameters",
        "sources",
        "published",
        "data",
        "pictures",
    },
    method={
        "losses",
        "networks",
        "batches",
        "norm_stats",
        "precision",
        "extensions",
        "training",
        "reference",
        "sampling",
    },
    measures={"metrics", "extractors", "text", "colours", "plots", "diagrams", "priors"},
    runs={
        "progress",
        "watch",
        "checkpoints",
        "runs",
        "results",
        "verdicts",
        "captions",
        "glance",
        "table1",
        "pretrained",
        "onnx_export",
        "benchmark",
    },
    use={"samples", "model"},
    command_line={"notebooks", "jobs", "sweep", "report", "plan", "cli"},
)


def cells(notebook, kind="code"):
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def exported_module(notebook):
    "The module that a library notebook writes, None for the others."
    found = [
        line.split()[-1]
        for cell in cells(notebook)
        for line in source(cell).splitlines()
        if line.startswith("#| default_exp")
    ]
    return found[0] if found else None


LIBRARY = [notebook for notebook in NOTEBOOKS if exported_module(notebook)]
PAPER = [
    notebook for notebook in NOTEBOOKS if notebook not in LIBRARY and notebook.stem not in ("index", "trials")
]  # trials: prose and tables alone
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
each_library_notebook = pytest.mark.parametrize("notebook", LIBRARY, ids=lambda file: file.stem)
each_paper_notebook = pytest.mark.parametrize("notebook", PAPER, ids=lambda file: file.stem)
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda file: file.stem)


def tracked():
    "Text files under version control."
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.suffix not in {".png", ".gz", ".npz", ".safetensors"} and file.is_file()]


# ---- notebooks as files ----


@each_notebook
def test_notebook_is_valid_and_small(notebook):
    nbformat.validate(nbformat.read(notebook, as_version=4))
    limit = 120_000 if notebook in LIBRARY else 300_000
    assert notebook.stat().st_size < limit, f"{notebook.name}: {notebook.stat().st_size} bytes, allowed are {limit}"


@each_notebook
def test_kernel_is_python3(notebook):
    kernel = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["kernelspec"]
    assert (kernel["name"], kernel["language"]) == ("python3", "python"), "papermill starts it by this name"


@each_notebook
def test_stored_outputs_hold_no_error(notebook):
    kinds = {out["output_type"] for cell in cells(notebook) for out in cell["outputs"]}
    assert "error" not in kinds
    texts = [
        "".join(out["text"]) for cell in cells(notebook) for out in cell["outputs"] if out["output_type"] == "stream"
    ]
    assert not [text for text in texts if "Warning" in text]


# ---- paper notebooks ----


def is_parameters(cell):
    return "parameters" in cell["metadata"].get("tags", [])


@each_paper_notebook
def test_lines_end_by_column_120(notebook):
    "ruff sees to it elsewhere: in a paper notebook papermill wants each parameter with its comment on one line."
    lines = [line for cell in cells(notebook) if not is_parameters(cell) for line in source(cell).splitlines()]
    assert not [line for line in lines if len(line) > 120]


@each_paper_notebook
def test_paper_notebook_is_left_to_papermill(notebook):
    assert "skip_exec: true" in source(cells(notebook, "raw")[0]), "nbdev_test would train"


@each_paper_notebook
def test_parameters_are_annotated_commented_literals(notebook):
    tagged = [cell for cell in cells(notebook) if is_parameters(cell)]
    assert len(tagged) == 1
    text = source(tagged[0])
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    for node in ast.parse(text).body:
        line = ast.get_source_segment(text, node)
        assert isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name), (
            f"`name: type = value` wanted: {line}"
        )
        assert node.annotation.id in {"int", "float", "str", "bool"}, line
        ast.literal_eval(node.value)
        assert node.lineno == node.end_lineno and node.lineno in commented, f"trailing comment wanted: {line}"


@each_paper_notebook
def test_parameters_are_checked_before_anything_else(notebook):
    code = cells(notebook)
    position = [index for index, cell in enumerate(code) if is_parameters(cell)][0]
    assert "notebook_parameters(globals()" in re.sub(r"\s", "", source(code[position + 1]))


@each_paper_notebook
def test_papermill_knows_every_parameter(notebook):
    known = inspect_notebook(str(notebook))
    assert known
    for name, parameter in known.items():
        assert parameter["inferred_type_name"] not in (None, "None") and parameter["help"], name


# ---- the package ----


@each_module
def test_module_comes_from_a_notebook(module):
    named = re.search(r"File to edit: \.\./nbs/(.+\.ipynb)\.", module.read_text(encoding="utf-8"))
    assert named and exported_module(ROOT / "nbs" / named[1]) == module.stem


@each_library_notebook
def test_notebook_has_its_module(notebook):
    assert (ROOT / "aae_prior" / f"{exported_module(notebook)}.py").exists()


def siblings(module):
    "Names of our own modules that `module` imports anywhere, functions included."
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "aae_prior"):
            path = [part for part in (node.module or "").split(".") if part not in ("", "aae_prior")]
            yield from path[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("aae_prior."))


def test_every_module_has_its_group():
    assert {module.stem for module in MODULES} == set().union(*GROUPS.values())


@each_module
def test_dependencies_point_one_way(module):
    names = list(GROUPS)
    own = next(i for i, name in enumerate(names) if module.stem in GROUPS[name])
    assert set(siblings(module)) <= set().union(*(GROUPS[name] for name in names[: own + 1]))


def test_no_module_imports_itself_in_a_circle():
    graph = {module.stem: set(siblings(module)) for module in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


def normal(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.fixture(scope="session")
def imports_of():
    "Import name -> the distributions that bring it."
    return {name: {normal(source) for source in sources} for name, sources in packages_distributions().items()}


@each_module
def test_imported_packages_are_declared(module, imports_of):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def name_of(line):
        return normal(re.match(r"[\w-]+", line)[0])

    always = {name_of(line) for line in project["dependencies"]}
    extras = {name_of(line) for lines in project["optional-dependencies"].values() for line in lines}
    tree = ast.parse(module.read_text(encoding="utf-8"))
    guarded = {
        id(node) for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in ast.walk(attempt)
    }  # an extra's absence is answered for
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"aae_prior"}:
            declared = always | (extras if id(node) in guarded else set())
            assert imports_of.get(name, {normal(name)}) & declared, f"{name} is not declared in pyproject.toml"


@each_module
def test_public_names(module):
    loaded = importlib.import_module(f"aae_prior.{module.stem}")
    namespace = {}
    exec(f"from aae_prior.{module.stem} import *", namespace)
    for name in set(namespace) - {"__builtins__"}:
        value = getattr(loaded, name)
        if callable(value):
            assert value.__module__ == loaded.__name__, f"{name} is another module's"
            assert value.__doc__, f"{name} has no docstring"
        else:
            assert len(name) > 1 and name.isupper(), f"{name} looks like a leftover"
    assert loaded.__doc__, "the notebook's one-line summary is missing"


@each_module
def test_text_files_name_their_encoding(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        builtin_open = name == "open" and isinstance(node.func, ast.Name)
        if name in {"read_text", "write_text"} or builtin_open:
            binary = builtin_open and len(node.args) > 1 and "b" in ast.literal_eval(node.args[1])
            assert binary or any(keyword.arg == "encoding" for keyword in node.keywords), f"line {node.lineno}"


# ---- generated things are in step ----


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of what nbdev reads and writes, after nbdev_clean and nbdev_export."
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "settings.ini", folder)
    for name in ("nbs", "aae_prior"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    bin_folder = Path(sys.executable).parent
    env = os.environ | {"JUPYTER_DATA_DIR": str(folder / "jupyter")}  # nbdev_clean signs notebooks there
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([bin_folder / command], cwd=folder, env=env, check=True)
    return folder


@each_notebook
def test_clean_changes_nothing(notebook, copy):
    assert (copy / "nbs" / notebook.name).read_bytes() == notebook.read_bytes(), "run nbdev_clean"


def test_clean_keeps_the_parameters_tag(tmp_path):
    "nbdev's own default would delete it, and papermill would then ignore every -p in silence."
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "nbs").mkdir()
    cell = nbformat.v4.new_code_cell("epochs: int = 1  # passes", metadata={"tags": ["parameters"], "scrolled": True})
    notebook = tmp_path / "nbs" / "some.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    env = os.environ | {"JUPYTER_DATA_DIR": str(tmp_path / "jupyter")}
    subprocess.run([Path(sys.executable).parent / "nbdev_clean"], cwd=tmp_path, env=env, check=True)
    assert cells(notebook)[0]["metadata"] == {"tags": ["parameters"]}


def test_export_changes_nothing(copy):
    def contents(folder):
        return {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.py")}

    assert contents(copy / "aae_prior") == contents(ROOT / "aae_prior"), "run nbdev_export"


def test_readme_is_the_rendered_index():
    tool = runpy.run_path(str(ROOT / "tools" / "readme.py"))
    assert (ROOT / "README.md").read_text(encoding="utf-8") == tool["render"](), "run make readme"


def test_links_between_notebooks_lead_somewhere():
    "Anchors as GitHub and Jupyter make them of a heading; the book turns them into its own"
    texts = {}
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        markdown = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        texts[notebook.resolve()] = "\n\n".join(markdown)
    headings = {path: re.findall(r"^#+ +(.*)", text, re.M) for path, text in texts.items()}
    anchors = {path: {line.replace("`", "").replace(" ", "-") for line in lines} for path, lines in headings.items()}
    found, broken = 0, []
    for path, text in texts.items():
        for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            other = (path.parent / file).resolve() if file else path
            found += 1
            if not other.exists() or (anchor and anchor not in anchors[other]):
                broken.append(f"{path.name}: {target}")
    assert found > 100
    assert broken == []


# ---- files under version control ----


def test_version_is_said_once():
    settings = (ROOT / "settings.ini").read_text(encoding="ascii")
    version = re.search(r"^version = (.+)$", settings, re.M)[1]
    assert importlib.import_module("aae_prior").__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_path_of_a_machine():
    here = [re.escape(str(path)) + r"\b" for path in (ROOT, Path(sys.prefix)) if len(path.parts) > 3]
    pattern = re.compile(
        "|".join([r"(?<![\w./-])/(?:root|home|Users|work)/\w", r"\b[A-Z]:\\\w+", "site-packages/", *here])
    )
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in tracked()
        if (match := pattern.search(file.read_text(encoding="utf-8"))) and file != Path(__file__)
    ]
    assert not found
