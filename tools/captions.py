"""Write the captions of the published pictures into the figure notebooks, from figures/results.csv.

python tools/captions.py
"""

from pathlib import Path

from aae_prior.captions import write_published

ROOT = Path(__file__).resolve().parents[1]


if __name__ == "__main__":
    for notebook in sorted((ROOT / "nbs").glob("*.ipynb")):
        if write_published(notebook, ROOT / "figures"):
            print(notebook)
