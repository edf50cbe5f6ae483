# `make help` lists the commands. All of them run from .venv, which the first one builds: `make demo` as much of it as
# the demo needs, the others all of it.

# The Python that .venv is built with, for instance `make PYTHON=/usr/bin/python3.12 demo`; empty: the newest that fits.
PYTHON ?=
# What is handed on to the command, for instance `make test ARGS='-k rotation'`.
ARGS ?=
# How many processes share the tests: twice as many as the cores that they are timed on, for most tests also wait.
JOBS ?= 4

# Commands get these variables of the caller and no others, so that they run alike for everybody: what pip and uv need
# to reach an index, the language of the terminal, and what names servers, Pythons or examples to the tests.
NAMED := PATH HOME TMPDIR CI LANG LANGUAGE LC_% PIP_% UV_% XDG_CACHE_HOME XDG_CONFIG_HOME \
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE \
    http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY \
    HOOKSEAL_TEST_% PYENV_ROOT %_EXAMPLES
$(foreach name,$(filter-out $(NAMED),$(.VARIABLES)), \
    $(if $(filter environment,$(firstword $(origin $(name)))),$(eval unexport $(name))))

DEMO := .venv/demo
VENV := .venv/ready
RUN := .venv/bin/python -m

.PHONY: help demo test test-faults pages bench bench-secrets bench-keys bench-status bench-migration fairness soak mutants coverage image smoke release validate validate-traceability validate-evidence check format fmt lint types public-types floors docs docs-site docs-pictures next lock clean
.DEFAULT_GOAL := help
# Two commands must not build .venv at once, and `validate` reads what `test` has reported.
.NOTPARALLEL:

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO) ## the main job from end to end, on an embedded PostgreSQL and Valkey
	@.venv/bin/hookseal demo $(ARGS)

test: $(VENV) ## all tests, the long ones first, else in random order, each on its own database
	@$(RUN) pytest -n $(JOBS) --maxschedchunk=1 $(ARGS)

test-faults: $(VENV) ## the long form of the faults: kills, stops, pauses and outages under load, about half an hour
	@$(RUN) tools.faults $(ARGS)

pages: .venv/pages ## the pages in a real Chromium, which it installs if it may; without one nothing is proven
	@$(RUN) tools.browser $(ARGS)

bench: $(VENV) ## what a delivery costs, beside other queues, in one run of 40 minutes: docs/proof/performance.md, docs/scaling.md
	@$(RUN) tools.bench $(ARGS)

fairness: $(VENV) ## the figures of docs/fairness.md, from a simulation: docs/proof/fairness.md
	@$(RUN) tools.fairness $(ARGS)

bench-secrets: $(VENV) ## what the secret path costs, beside what it could not be cheaper than
	@$(RUN) tools.bench_secrets $(ARGS)

bench-status: $(VENV) ## how long `hookseal status` takes, while a million deliveries wait for 100,000 endpoints
	@$(RUN) tools.bench_status $(ARGS)

bench-keys: $(VENV) ## what it costs to seal every record under another master key, while a worker delivers
	@$(RUN) tools.bench_keys $(ARGS)

bench-migration: $(VENV) ## how fast plaintext secrets are migrated, beside the same statements without a secret
	@$(RUN) tools.bench_migration $(ARGS)

soak: $(VENV) ## two million deliveries come, end and leave, in about an hour: docs/proof/soak.md
	@$(RUN) tools.soak $(ARGS)

mutants: $(VENV) ## make each change of tools/mutants/mutants.toml in a copy of the tree: a test must notice it
	@$(RUN) tools.mutants $(ARGS)

# These tests hardly wait, so two processes suffice on two cores.
coverage: $(VENV) ## the pure rooms: fail if a branch is not taken by their own tests
	@$(RUN) pytest -q -n 2 -m "not servers or pure" --cov --cov-branch \
	    tests/ground tests/audit tests/receiver tests/dispatcher tests/secrets

image: $(VENV) .release/ready ## build the image and run it, alone and by compose; what cannot run here is named, and not proven
	@$(RUN) tools.image $(ARGS)

smoke: $(VENV) .release/ready ## rehearse a release of the commit, and try its files with each supported Python that is here
	@$(RUN) tools.smoke $(ARGS)

release: $(VENV) .release/ready ## the files of a release of this commit, in dist/: docs/releasing.md
	@$(RUN) tools.release $(ARGS)

validate: $(VENV) ## hold docs/requirements.md, tests, records and generated pages to each other
	@$(RUN) tools.governance.validate $(ARGS)

validate-traceability: $(VENV) ## only the tests of each requirement, and the pages that name them
	@$(RUN) tools.governance.validate --only traceability $(ARGS)

validate-evidence: $(VENV) ## only the records, and what has changed since each; needs no test run
	@$(RUN) tools.governance.validate --only evidence $(ARGS)

check: format lint types public-types floors coverage test pages smoke validate ## every gate

format: $(VENV) ## fail if the formatter would change a file
	@$(RUN) ruff format --check

fmt: $(VENV) ## format, and fix what the linter can fix
	@$(RUN) ruff check --fix-only --quiet
	@$(RUN) ruff format

lint: $(VENV) ## the linter
	@$(RUN) ruff check

types: $(VENV) ## the type checker
	@$(RUN) mypy

public-types: .types/ready ## whether the types of the public interface are complete, as pyright reads them
	@$(RUN) tools.public_types $(ARGS)

floors: $(VENV) ## who may import whom
	@.venv/bin/lint-imports --no-logo

docs: $(VENV) ## write the generated pages, after a run of all tests (20 minutes) unless there is one of this tree
	@$(RUN) tools.governance.fingerprint
	@$(RUN) tools.governance.validate --write

# Not with --quiet: then mkdocs counts no warning, and `strict` fails at none.
docs-site: .site/ready ## the documentation as a site, in .site/html: fail at a link that leads nowhere
	@.site/bin/python -m tools.diagrams
	@NO_MKDOCS_2_WARNING=1 .site/bin/python -m mkdocs build

docs-pictures: docs-site .venv/pages ## pictures of the site in a real Chromium, in .reports/site: fail if a page asks another server
	@$(RUN) tools.docs_pictures $(ARGS)

next: $(VENV) ## name what breaks with the newest aiohttp, redis and packages of a product; before a release, by hand
	@$(RUN) tools.next

lock: $(VENV) ## pin the newest versions that pyproject.toml allows
	@PATH="$(CURDIR)/.venv/bin:$$PATH" bash requirements/lock.sh

clean: ## remove what the commands built
	@rm -rf .bench .release .site .types .venv .reports dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests tools -name __pycache__ -prune -exec rm -rf {} +

$(DEMO): requirements/build.txt requirements/embedded.txt pyproject.toml tools/install.sh tools/venv.sh
	@sh tools/venv.sh demo $(PYTHON)

$(VENV): requirements/build.txt requirements/dev.txt pyproject.toml tools/install.sh tools/venv.sh
	@sh tools/venv.sh ready $(PYTHON)

.venv/pages: $(VENV) requirements/pages/browser.txt
	@sh tools/install.sh .venv/bin/python requirements/pages/browser.txt
	@.venv/bin/python -m pip check --quiet
	@touch .venv/pages

.site/ready: $(VENV) requirements/site/mkdocs.txt
	@.venv/bin/python -m venv --clear .site
	@sh tools/install.sh .site/bin/python requirements/build.txt
	@sh tools/install.sh .site/bin/python requirements/site/mkdocs.txt
	@touch .site/ready

.types/ready: $(VENV) requirements/types/pyright.txt
	@.venv/bin/python -m venv --clear .types
	@sh tools/install.sh .types/bin/python requirements/build.txt
	@sh tools/install.sh .types/bin/python requirements/types/pyright.txt
	@touch .types/ready

.release/ready: $(VENV) requirements/release/cyclonedx.txt
	@.venv/bin/python -m venv --clear .release
	@sh tools/install.sh .release/bin/python requirements/build.txt
	@sh tools/install.sh .release/bin/python requirements/release/cyclonedx.txt
	@touch .release/ready
