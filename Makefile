# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# A shell opened before rustup was installed does not know its cargo yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
export KEEP PROFILE FUZZ_RUNS FUZZ_SECONDS

COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
SECRETS := $(addprefix secrets/,webhook_token api_token redis_receiver_password redis_prompt_server_password grafana_admin_password)

.PHONY: help demo test bench bench-peers dist-pgo fuzz chaos compat properties fmt lint secrets up down pins requirements

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## ship bad prompts; one is rolled back by itself, one by you, and both are verified; KEEP=1 leaves it running, PROFILE=fast scrapes every second
	scripts/demo

test: ## everything that CI runs
	scripts/install-deps test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/check-dependencies
	scripts/check-rules
	scripts/check-configs
	# most tests wait for real programs more than they compute
	cargo test --workspace -- --test-threads=4

chaos: ## CHAOS_RUNS (100) seeded runs in which everything fails, from CHAOS_FROM (0) on, for CHAOS_SECONDS (1800) at most
	scripts/install-deps test
	CHAOS_SECONDS=$${CHAOS_SECONDS:-1800} cargo test --test chaos many_runs -- --ignored --nocapture

compat: ## the tests that depend on a server's version, with every Redis and Valkey of Debian's other suites
	scripts/install-deps test
	scripts/compat

properties: ## what must hold of every history of decisions, over PROPTEST_CASES (200000) random ones each
	scripts/install-deps test
	PROPTEST_CASES=$${PROPTEST_CASES:-200000} cargo test --release -p prompt-rollback-decision -- promises properties

bench: ## the figures of the README
	scripts/install-deps test
	cargo bench

bench-peers: target/peers/requirements.txt ## the price of a rollback, beside a receiver in FastAPI and a bare script; ARGS='-- --quick'
	scripts/install-deps test
	cargo bench --bench peers $(ARGS)

target/peers/requirements.txt: benches/peers/requirements.txt
	python3 -m venv --clear target/peers
	target/peers/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	cp $< $@

dist-pgo: ## the fastest receiver: built, watched under rollbacks, and built again by that; in target/dist-pgo
	scripts/install-deps test
	scripts/dist-pgo

fuzz: ## fuzz for long what comes from outside; FUZZ_RUNS=1000000 for a tenth of it
	scripts/install-deps fuzz
	scripts/fuzz

fmt: ## format the code
	cargo fmt --all

lint: ## fmt and clippy only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

secrets: $(SECRETS) ## make the tokens and passwords of docker-compose.yml, where there are none yet
up: $(SECRETS) ## everything in containers, and what to try there
	COMPOSE='$(COMPOSE)' scripts/up

down: ## stop the containers, keep the data
	$(COMPOSE) down

pins: ## the digests of the images that the containers are made of
	scripts/pins

requirements: ## lock the packages in Python anew, of the example, of bench-peers and of scripts/, to the newest that requirements.in permits
	tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	python3 -m venv "$$tmp"; "$$tmp/bin/pip" install --quiet uv==0.13.9; \
	lock() { (cd "$$1" && "$$tmp/bin/uv" pip compile --quiet --upgrade --generate-hashes \
		--custom-compile-command 'make requirements' "$${@:2}" requirements.in -o requirements.txt); }; \
	lock examples/python --python-version "$$(sed -n 's/^FROM python:\([0-9]*\.[0-9]*\).*/\1/p' examples/python/Dockerfile)"; \
	lock benches/peers --universal --python-version 3.11; \
	lock scripts --universal --python-version 3.11

# Each container reads its secrets as a user of its own, so the files are open; the directory is not, and git ignores it.
$(SECRETS):
	@mkdir -p -m 700 secrets
	@echo '*' >secrets/.gitignore
	@head -c 32 /dev/urandom | sha256sum | cut -d' ' -f1 >$@
	@chmod 644 $@
