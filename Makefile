# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# A shell that was opened before the installation of rustup does not have cargo on its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin
export KEEP PROFILE FUZZ_RUNS FUZZ_SECONDS

COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
SECRETS := $(addprefix secrets/,webhook_token api_token redis_receiver_password redis_prompt_server_password grafana_admin_password)

.PHONY: help demo test bench bench-peers dist check-deb dist-pgo kubernetes accessibility screenshots fuzz chaos compat properties fmt lint secrets up down pins requirements

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## ship two bad versions: one is rolled back automatically, one by you; verify both rollbacks; KEEP=1 keeps it running, PROFILE=fast scrapes every second
	scripts/demo

test: ## run everything that CI runs
	scripts/install-deps test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --all-targets --features otlp -- -D warnings
	scripts/check-dependencies
	scripts/check-rules
	scripts/check-configs
	# most tests spend more time waiting for real programs than using the CPU
	cargo test --workspace --features otlp --no-fail-fast -- --test-threads=4

chaos: ## run CHAOS_RUNS (100) seeded fault-injection tests, from seed CHAOS_FROM (0), for at most CHAOS_SECONDS (1800) seconds
	scripts/install-deps test
	CHAOS_SECONDS=$${CHAOS_SECONDS:-1800} cargo test --test chaos many_runs -- --ignored --nocapture

compat: ## run the tests that depend on a server's version with every Redis, Valkey, Prometheus and Alertmanager in Debian's other suites
	scripts/install-deps test
	scripts/compat

properties: ## test the properties in docs/decisions.md, each against PROPTEST_CASES (200000) random histories
	scripts/install-deps test
	PROPTEST_CASES=$${PROPTEST_CASES:-200000} cargo test --release -p prompt-rollback-decision -- promises properties

bench: ## run the benchmarks of docs/benchmarks.md, except bench-peers, rules and soak
	scripts/install-deps test
	cargo bench

bench-peers: target/peers/requirements.txt ## compare the cost of a rollback with a receiver in FastAPI and with a bare script; ARGS='-- --quick' shortens it
	scripts/install-deps test
	cargo bench --bench peers $(ARGS)

target/peers/requirements.txt: benches/peers/requirements.txt
	python3 -m venv --clear target/peers
	target/peers/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	cp $< $@

accessibility: target/axe/node_modules ## check every page with axe-core in Chromium; needs npm
	scripts/install-deps test
	AXE_CORE=$(CURDIR)/$</axe-core/axe.min.js cargo test --features otlp --test integration accessibility -- --ignored --nocapture

target/axe/node_modules: tests/browser/axe/package-lock.json
	mkdir -p target/axe
	cp tests/browser/axe/package*.json target/axe/
	cd target/axe && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

screenshots: ## update the pictures in docs/page/ from a run of the demo
	scripts/install-deps test
	scripts/demo --yes --screenshots docs/page

dist: ## build a release into target/dist: .deb, archives, bill of materials, Helm chart, manifests for kubectl, checksums
	scripts/install-deps dist
	scripts/dist

check-deb: ## install and run the .deb of `make dist` in a new Debian root; needs root and debootstrap
	scripts/check-deb

kubernetes: ## write deploy/kubernetes/generated.yaml, for `kubectl apply -k deploy/kubernetes`; set NAMESPACE, or VALUES=FILE for values of the chart
	scripts/install-deps kubernetes
	scripts/kubernetes

dist-pgo: ## build the fastest receiver into target/dist-pgo, with profile-guided optimization based on rollbacks
	scripts/install-deps test
	scripts/dist-pgo

fuzz: ## fuzz the parsers of external input for hours; FUZZ_RUNS=1000000 runs a tenth of the inputs
	scripts/install-deps fuzz
	scripts/fuzz

fmt: ## format the code
	cargo fmt --all

lint: ## run rustfmt and clippy only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

secrets: $(SECRETS) ## create missing tokens and passwords for docker-compose.yml
up: $(SECRETS) ## start everything except Slack in containers, and print commands to try
	COMPOSE='$(COMPOSE)' scripts/up

down: ## stop the containers and keep their data
	$(COMPOSE) down

pins: ## print the digests of the container images
	scripts/pins

requirements: ## lock the Python packages of the example, bench-peers, scripts/ and the tests to the newest versions that requirements.in allows
	tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	python3 -m venv "$$tmp"; "$$tmp/bin/pip" install --quiet uv==0.13.9; \
	lock() { (cd "$$1" && "$$tmp/bin/uv" pip compile --quiet --upgrade --generate-hashes \
		--custom-compile-command 'make requirements' "$${@:2}" requirements.in -o requirements.txt); }; \
	lock examples/python --python-version "$$(sed -n 's/^FROM python:\([0-9]*\.[0-9]*\).*/\1/p' examples/python/Dockerfile)"; \
	lock benches/peers --universal --python-version 3.11; \
	lock scripts --universal --python-version 3.11 --no-deps; \
	lock tests/kubernetes --universal --python-version 3.11; \
	lock tests/api --universal --python-version 3.11

# Each container reads its secrets as a different user, so the files are world-readable. The directory is not, and git ignores it.
$(SECRETS):
	@mkdir -p -m 700 secrets
	@echo '*' >secrets/.gitignore
	@head -c 32 /dev/urandom | sha256sum | cut -d' ' -f1 >$@
	@chmod 644 $@
