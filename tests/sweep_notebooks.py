"""Small notebooks to sweep over."""

import nbformat

PARAMETERS = """dataset: str = None  # data set
preset: str = None  # how long and how wide
model: str = None  # which model
device: str = None  # where to compute
seed: int = None  # of everything random
out_dir: str = None  # folder of results
publish: bool = None  # also write figures/
steps: int = None  # updates
batch_size: int = None  # images per step
eval_every: int = None  # steps between evaluations"""
CHECK = "from aae_prior.config import notebook_parameters\nconfig = notebook_parameters(globals())"
TRAINS = (
    PARAMETERS,
    CHECK,
    """from aae_prior.results import Results, about
from aae_prior.runs import fit
run = fit(config)
results = Results("trains", config, figure="8")
measured = run.history[-1] | run.evaluations[-1]
for metric in ("diversity", "L_rec"):
    results.row(config.model, metric, measured[metric], n=80, **about(run))
results.write()""",
)


def notebook(path, *cells):
    "A notebook of code cells in the file `path`, the first one tagged parameters."
    made = [
        nbformat.v4.new_code_cell(source, metadata=dict(tags=["parameters"] if i == 0 else []))
        for i, source in enumerate(cells)
    ]
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=made, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
        ),
        path,
    )
    return path
