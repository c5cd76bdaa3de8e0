"""Sphinx's settings of the book; `python book/make.py` gathers its pages and runs Sphinx over them."""

import re
from pathlib import Path

import itables
import mathjax

from aae_prior import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "Learned priors, reproduced"
author = copyright = "the aae_prior authors"
release = version = __version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx.ext.mathjax", "sphinx_copybutton"]

# ---- notebooks and pages, as they stand: nothing is executed ----

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a notebook may go from a title to a heading of the third level

# ---- look ----

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = dict(
    show_toc_level=2,
    use_download_button=False,
    navbar_persistent=[],  # one field to search is enough
    show_navbar_depth=0,  # the parts fold; the one that the page is in is open
    collapse_navbar=True,  # half of the building time went into margins with every page in them
    max_navbar_depth=2,
)
html_static_path = [
    str(ROOT / "book/_static"),
    str(Path(itables.__file__).parent / "html/dt_bundle.js"),
    str(Path(itables.__file__).parent / "html/dt_bundle.css"),
    str(Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"),
]
html_css_files = ["book.css"]
html_js_files = [("search.js", {"priority": 100})]  # before Sphinx's own search, which looks for its Scorer
html_favicon = str(ROOT / "book/_static/favicon.svg")
html_context = {"default_mode": "auto"}
html_extra_path = [str(ROOT / "out/book_source/extra")]  # the explorer, where it was built
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False  # an index of modules beside reference/api has nothing more to say
mathjax_path = "tex-svg.js"  # one file with its glyphs in it, from the package and not from another host

# ---- reference: a docstring is plain text with `code`; its source is the cell that defines it ----

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "exclude-members": "set"}  # `set` is what matplotlib writes by itself
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"


def plain_docstring(app, what, name, obj, options, lines):
    "Backticks as code; what reStructuredText would read as its own marks stays what it is."
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    text = "".join(f"`{part}`\\ " if part[:1] == "`" else re.sub(r"([*|_\\])", r"\\\1", part) for part in parts)
    lines[:] = [line.strip() for line in text.splitlines()] + [""]


CELL = re.compile(r"^# %% \.\./nbs/(\w+)\.ipynb #(\w+)\n(.*?)(?=^# %% |\Z)", re.M | re.S)


def linkcode_resolve(domain, info):
    "Address of the notebook cell that defines a function, class or constant, as seen from reference/."
    module = info["module"].removeprefix("aae_prior.")
    name = info["fullname"].split(".")[0]
    text = (ROOT / f"aae_prior/{module}.py").read_text(encoding="utf-8")
    for notebook, cell, source in CELL.findall(text):
        if re.search(rf"^(def|class) {name}\b|^{name}\b.*=", source, re.M):
            return f"../nbs/{notebook}.html#cell-{cell}"
    return None


def setup(app):
    app.connect("autodoc-process-docstring", plain_docstring)
