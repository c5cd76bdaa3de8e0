"""Render README.md from nbs/index.ipynb, the front door: no quarto, no download, the same bytes every time.

python tools/readme.py
"""

import os
import re
from pathlib import Path

from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TARGET = "nbs/index.ipynb", "README.md"
NOTE = f"<!-- rendered from {SOURCE} by tools/readme.py: edit the notebook -->"
LINK = re.compile(r"""(\]\(|(?:src|href)=")(?![a-z]+:|[#/])([^)"\s]+)""")  # the relative ones


def from_root(text):
    """Links of a notebook in nbs/ as seen from the root

    `../figures/a.png` -> `figures/a.png`, `x.ipynb` -> `nbs/x.ipynb`.
    """
    return LINK.sub(lambda m: m[1] + os.path.normpath(f"nbs/{m[2]}").replace(os.sep, "/"), text)


def joined(text):
    "Notebook text, which is stored as one string or as a list of lines."
    return text if isinstance(text, str) else "".join(text)


def output(out):
    "One output as markdown: streams and plain results as a block of text, markdown as it is."
    data = out.get("data", {"text/plain": out.get("text", "")})
    if "text/markdown" in data:
        return from_root(joined(data["text/markdown"]).strip())
    return f"```text\n{joined(data['text/plain']).rstrip()}\n```"


def parts(cell):
    "A cell as pieces of markdown; `#| hide` drops it, `#| echo: false` drops its source only."
    source = cell.source.strip()
    if cell.cell_type == "markdown":
        return [from_root(source)]
    if cell.cell_type != "code" or "hide" in cell.directives_:
        return []
    code = re.sub(r"^#\|.*\n", "", source, flags=re.M)
    shown = [] if cell.directives_.get("echo:") == ["false"] else [f"```python\n{code}\n```"]
    return shown + [output(out) for out in cell.get("outputs", [])]


def render(root=ROOT):
    "The text of README.md."
    cells = NBProcessor(root / SOURCE).nb.cells
    for out in (out for cell in cells for out in cell.get("outputs", [])):  # of hidden cells as well
        if out["output_type"] == "error":
            raise ValueError(f"{SOURCE}: a cell failed ({out['ename']}); run the notebook again, then render it")
    return "\n\n".join([NOTE] + [part for cell in cells for part in parts(cell) if part]) + "\n"


if __name__ == "__main__":
    (ROOT / TARGET).write_text(render(), encoding="utf-8")
    print(ROOT / TARGET)
