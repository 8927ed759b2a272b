# Two commands do everything on a new machine: `make backtest` and `make test`.
PYTHON ?=
export PYTHON
python := .venv/bin/python

.PHONY: backtest test long check bench mutants lock install

install:
	@.ci/bootstrap

backtest: install  ## train, backtest, print the result, write the tearsheets
	$(python) -m backtests

test: install  ## every test but the long ones, with coverage
	$(python) -m pytest -n 4 --dist loadscope --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90  # many wait: -n beyond cores

long: install  ## what takes many minutes: many kills, a hundred thousand messages, benchmarks, every command of the README
	$(python) -m pytest -n 2 --dist loadscope -m long -o timeout=3600 -o faulthandler_timeout=4000

check: install  ## format, lint, types, layers, dead code, and no function of radon grade D or worse
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	.venv/bin/lint-imports
	$(python) -m vulture
	@complex=$$($(python) -m radon cc --show-complexity --min D ml4t_actor) || exit 1; \
		test -z "$$complex" || { echo "$$complex"; echo "split these: no function is to be worse than C"; exit 1; }

bench: install  ## speed, as ratios against named baselines
	$(python) -m benchmarks

mutants: install  ## change the limits and the sizer in a thousand ways: which changes does no test notice? 10 to 20 minutes
	$(python) -m mutmut run --max-children 2
	$(python) -m mutmut results

lock: install  ## renew requirements.lock from pyproject.toml
	.venv/bin/uv pip compile pyproject.toml --group dev --all-extras --universal --generate-hashes \
		--no-annotate --no-header --python-version 3.12 --upgrade --quiet -o requirements.lock
