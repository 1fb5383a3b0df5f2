# Everything runs inside .venv, which is made here; nothing else needs to be installed. PYTHON names the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow gpu frontends lint bench clean

demo: $(VENV)/.installed
	bash scripts/demo.sh

test: $(VENV)/.tested-with
	$(BIN)/python -m pytest -m "not slow and not frontends"

test-slow: $(VENV)/.tested-with
	$(BIN)/python -m pytest -m slow

gpu: $(VENV)/.tested-with
	$(BIN)/python -m pytest -m gpu -rs

frontends: $(VENV)/.tested-with $(VENV)/transformers4/.installed
	TRANSFORMERS_4=$(abspath $(VENV))/transformers4 $(BIN)/python -m pytest -m frontends

lint: $(VENV)/.tested-with
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.tested-with
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/document_mask.py
	test -z "$$TP_EXT_REAL_DATA" || $(BIN)/python benchmarks/vocabulary.py --data "$$TP_EXT_REAL_DATA"
	test -z "$$TP_EXT_REAL_DATA" || $(BIN)/python scripts/fetch_sample_text.py --output .cache/sample_text
	test -z "$$TP_EXT_REAL_DATA" || $(BIN)/python benchmarks/cleaning.py --lines "$$TP_EXT_REAL_DATA/text/zh_train.txt" \
		--long .cache/sample_text/zh.jsonl
	test -z "$$TP_EXT_REAL_DATA" || $(BIN)/python benchmarks/encoding.py --data "$$TP_EXT_REAL_DATA"

clean:
	rm -rf $(VENV) .cache outputs build *.egg-info

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info < (3, 14), "tp_ext needs Python 3.10 to 3.13; name one with PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

# The last transformers with slow tokenizers, beside the one that is installed.
$(VENV)/transformers4/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install -q --no-deps --target $(VENV)/transformers4 \
		transformers==4.57.1 tokenizers==0.22.1 huggingface_hub==0.36.0
	touch $@

$(VENV)/.tested-with: $(VENV)/.installed requirements-test.txt
	$(BIN)/python -m pip install -q -r requirements-test.txt
	touch $@
