# Two commands set everything up on a fresh machine: `make fig8` and `make test`.
# Another interpreter: `make test PYTHON=python3.12`. Another setting: `make fig8 ARGS="-p dataset mnist -p preset cpu"`.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: help fig8 paper bench book explorer test test-all captions readme check clean

help:
	@echo "make fig8      train both models on the embedded digits and draw Figure 8"
	@echo "make paper     everything that is published, or a part: make paper DATASET=mnist FIGURE=8 PRESET=cpu SEED=0;"
	@echo "               with PLAN=1 only say what would run, what is there and how long it takes"
	@echo "make bench     time the training step beside its references (about 10 minutes on a quiet machine)"
	@echo "make book      the notebooks as a web site in out/book (1 to 2 minutes, nothing is trained), with the explorer"
	@echo "               in it if that was built before"
	@echo "make explorer  build the page that draws in the browser into out/explorer (npm brings onnxruntime-web)"
	@echo "make test      every library notebook and the fast tests"
	@echo "make test-all  the slow tests as well, those of the book and the explorer included (in Chromium, if there is one)"
	@echo "make captions  captions of the published pictures, from figures/results.csv"
	@echo "make readme    README.md from nbs/index.ipynb"
	@echo "make check     style by ruff, notebooks clean, package, captions and README in step with them"
	@echo "make clean     remove the environment and what builds leave behind (out/ stays)"

# ---- environment: installed again only when pyproject.toml changes ----

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): torch is large, this takes some minutes"
	$(PIP) install -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), with the test tools: torch is large, this takes some minutes"
	$(PIP) install -e '.[dev]'
	@touch $(VENV)/installed $@

$(VENV)/installed-bench: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), with pythae: torch is large, this takes some minutes"
	$(PIP) install -e '.[bench]'
	@touch $(VENV)/installed $@

$(VENV)/installed-book: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), with Sphinx: torch is large, this takes some minutes"
	$(PIP) install -e '.[book]'
	@touch $(VENV)/installed $@

# Nothing is left for the slow tests to miss but a browser and npm.
$(VENV)/installed-all: $(VENV)/installed-dev
	@echo "installing into $(VENV), with Sphinx"
	$(PIP) install -e '.[dev,book]'
	@touch $(VENV)/installed-book $(VENV)/installed-onnx $@

$(VENV)/installed-onnx: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), with onnx: torch is large, this takes some minutes"
	$(PIP) install -e '.[onnx]'
	@touch $(VENV)/installed $@

# ---- figures: `make fig8` runs nbs/fig8_*.ipynb ----

fig8: $(VENV)/installed
	@$(call run_notebook,$(wildcard nbs/$@_*.ipynb))

# Everything that nbs/plan.toml lists, published, or a part of it: `make paper DATASET=mnist FIGURE=8`.
# What is done is not done again.
PART := $(foreach name,FIGURE DATASET PRESET SEED,$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))
PART += $(if $(filter-out 0,$(PLAN)),--plan) $(if $(filter-out 0,$(MISSING)),--missing)

paper: $(VENV)/installed
	@$(BIN)/aae-prior paper $(PART) $(ARGS)

bench: $(VENV)/installed-bench
	@$(call run_notebook,nbs/benchmark.ipynb)

explorer: $(VENV)/installed-onnx
	@$(BIN)/python book/explorer/build.py

# Called with nbs/NAME.ipynb: writes out/NAME.ipynb and names the pictures it drew.
define run_notebook
set -e; name=$(basename $(notdir $(1))); mkdir -p out; touch out/.started; \
echo "aae-prior run $(1) out/$$name.ipynb $(ARGS)"; \
$(BIN)/aae-prior run $(1) out/$$name.ipynb $(ARGS); \
echo "pictures:"; find "$(CURDIR)/out" "$(CURDIR)/figures" -name '*.png' -newer out/.started
endef

# ---- the book: out/book/index.html ----

book: $(VENV)/installed-book
	$(BIN)/python book/make.py

# ---- tests ----

# One OpenMP thread a process: nbdev_test runs a notebook on every core. pytest gives each core its share of the tests
# in order; a core that is done takes over half of what another has left, so the long notebook tests are shared.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

test-all: test $(VENV)/installed-all
	$(BIN)/pytest -m slow

# ---- style; notebooks, package and README in step ----

captions: $(VENV)/installed-dev
	$(BIN)/python tools/captions.py

readme: $(VENV)/installed-dev
	$(BIN)/python tools/readme.py

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/captions.py
	$(BIN)/python tools/readme.py
	git diff --exit-code -- nbs aae_prior README.md
	@test -z "$$(git status --porcelain -- nbs aae_prior README.md)" || \
	  { git status --short -- nbs aae_prior README.md; echo "the files above are not committed"; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
