__version__ = "0.1.0"


def __getattr__(name):
    "`Model` of `aae_prior.model`, imported when it is first asked for: what it needs takes seconds."
    if name == "Model":
        from aae_prior.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
