# Every target sets up .venv itself when it is missing or setup.cfg has changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint bench bench-latency bench-search bench-data bench-fashion-mnist bench-emoji web clean

demo: .venv/ready           ## the main job on handwritten digits: train, specialize, export, bundle, report
	$(BIN)/ofa run digits --resume

test: .venv/ready           ## the tests that take under 10 minutes on 2 cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-all: .venv/ready       ## all tests, with the runtimes that take long to install
	$(BIN)/python -m pip install --quiet --editable '.[dev,coreml,executorch,litert]'
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m ""

lint: .venv/ready           ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready          ## speed as ratios in one run, and ONNX against PyTorch
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.parity

bench-latency: .venv/ready  ## latency predicted against measured, for three families and four devices
	$(BIN)/python -m benchmarks.latency

bench-search: .venv/ready   ## search and prediction judged on published tables, in the folder TABLES, and their pages
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.search --tables $(TABLES)

bench-data: .venv/ready     ## how large data sets are read, and its page
	$(BIN)/python -m benchmarks.data

bench-fashion-mnist: .venv/ready  ## the main job on Fashion-MNIST, one to two and a half hours on 2 cores, and its page of results
	$(BIN)/python -m benchmarks.whole_run fashion_mnist

bench-emoji: .venv/ready    ## the main job on emoji, which npm installs, and its page of results
	npm install --no-save emoji-datasource-google@16 emoji-datasource-twitter@16
	$(BIN)/python -m benchmarks.whole_run emoji

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "ofa needs Python 3.11 or later: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -rf *.egg-info  # a stale one would hide new entry points
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

web: .venv/ready            ## brings onnxruntime-web, which `ofa serve` needs, by npm
	npm install --no-save --no-audit --no-fund --prefix build/web onnxruntime-web@1.30
	$(BIN)/python -m export.web.assets build/web/node_modules/onnxruntime-web

clean:
	rm -rf .venv build dist export/web/vendor *.egg-info
