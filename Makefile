# `make` alone lists what there is to make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check simulate bench bench-quick bench-throttle bench-room soak release deny \
        build-tools test-tools fmt clippy rust-tests api-tests browser-tests script-checks deploy-checks

# How many seeds `make simulate` tries, and, to replay one, which.
SEEDS ?= 2000
SEED ?=

# Tries the queue API; see deploy/install-test-tools.sh.
SCHEMATHESIS := $(CURDIR)/tests/openapi/tools/bin/schemathesis

step = @printf '\n== %s\n' "$(1)"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build-tools ## start the demo: a gateway, a service behind it, a limit and a waiting room to try
	cargo run --locked -- demo

test: build-tools test-tools fmt clippy rust-tests api-tests script-checks deploy-checks browser-tests ## everything a change must pass
	$(call step,all steps passed; a step that could not run says SKIPPED above)

check: build-tools fmt clippy ## the quick part of it: format, lints, the rules of the house
	$(call step,the rules of the house)
	@cargo test --locked --quiet --test architecture

simulate: build-tools ## simulations over many seeds: SEEDS=2000, or SEED=7 to replay one
	$(call step,simulations over $(if $(SEED),seed $(SEED),$(SEEDS) seeds))
	@TIDEGATE_SIM_SEEDS=$(SEEDS) $(if $(SEED),TIDEGATE_SIM_SEED=$(SEED)) cargo test --locked --test simulation

release: build-tools ## target/release/tidegate, tuned: fat LTO, one unit, 4 to 5 minutes
	cargo build --release --locked --bin tidegate

bench: release ## CPU and latency beside bare Pingora and nginx; writes the table into benches/README.md
	@deploy/install-test-tools.sh bench
	cargo build --release --locked --example bare
	benches/run.py

bench-quick: release ## the same in half a minute, printed only
	@deploy/install-test-tools.sh bench
	cargo build --release --locked --example bare
	benches/run.py --quick

bench-throttle: release ## a limit shared through one Redis: what it admits and what it costs; writes tables and a chart
	@deploy/install-test-tools.sh bench
	cargo build --release --locked --example usual
	benches/throttle.py

bench-room: release ## a waiting room of up to 300,000: joins, polls, memory, an opening; writes tables and a chart
	@deploy/install-test-tools.sh bench
	cargo build --release --locked --example rank --example crowd
	benches/room.py

soak: release ## a fleet that is broken again and again under load: SOAK_MINUTES=10
	@deploy/install-test-tools.sh bench
	benches/soak.py --minutes $(or $(SOAK_MINUTES),10)

deny: ## licences, bans, advisories and sources of the dependencies, by cargo-deny
	@command -v cargo-deny >/dev/null || { echo 'cargo-deny is not installed: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny check

build-tools:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust from https://rustup.rs' >&2; exit 1; }
	@deploy/install-test-tools.sh build

# Without the tools what needs them cannot be trusted. On a machine of CI that ends the run; elsewhere it is said,
# and the tests that miss a tool say so themselves.
test-tools:
	$(call step,tools)
	@deploy/install-test-tools.sh test bench || { \
	  echo 'SKIPPED tools: not all are there, as listed above'; \
	  [ "$${CI:-}" != true ]; \
	}

# Cargo does not see the modules that the plugins' table declares, so they are named.
fmt:
	$(call step,format)
	@cargo fmt --check
	@git ls-files 'src/plugins/*.rs' | xargs rustfmt --edition 2024 --check

clippy:
	$(call step,lints)
	@cargo clippy --locked --all-targets -- -D warnings

rust-tests:
	$(call step,tests)
	@cargo test --locked

# Half a minute of requests that somebody might make, and what the gateway's own description says of the answers.
api-tests:
	$(call step,the queue API against its OpenAPI document)
	@if [ -x $(SCHEMATHESIS) ]; then \
	  cargo test --locked --quiet --test it --no-run; \
	  tests/openapi/check.sh target/debug/tidegate $(SCHEMATHESIS); \
	else \
	  echo 'SKIPPED schemathesis: it is not installed in tests/openapi/tools'; [ "$${CI:-}" != true ]; \
	fi

script-checks:
	$(call step,scripts)
	@git ls-files '*.py' | xargs -r python3 -c 'import ast, sys; [ast.parse(open(path).read(), path) for path in sys.argv[1:]]'
	@git ls-files '*.sh' .ci | xargs -r -n 1 bash -n
	@if command -v node >/dev/null; then \
	  git ls-files '*.js' '*.mjs' | xargs -r -n 1 node --check; \
	else \
	  echo 'SKIPPED node --check: node is not installed'; [ "$${CI:-}" != true ]; \
	fi

# systemd looks for the program that a unit starts, so it is shown one that is there. What it does not understand in a
# unit it merely mentions; here that is a fault.
deploy-checks:
	$(call step,what runs a fleet)
	@if command -v promtool >/dev/null; then \
	  promtool check config deploy/prometheus/prometheus.yaml; \
	  promtool test rules deploy/prometheus/alerts_test.yaml; \
	else \
	  echo 'SKIPPED promtool: it is not installed (package prometheus)'; [ "$${CI:-}" != true ]; \
	fi
	@if command -v systemd-analyze >/dev/null; then \
	  folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	  sed 's,/usr/local/bin/tidegate,/bin/true,' deploy/systemd/tidegate.service >"$$folder/tidegate.service"; \
	  said=$$(systemd-analyze verify --man=no "$$folder/tidegate.service" 2>&1 | grep -F tidegate.service || true); \
	  [ -z "$$said" ] || { echo "$$said" >&2; exit 1; }; \
	else \
	  echo 'SKIPPED systemd-analyze: it is not installed (package systemd)'; [ "$${CI:-}" != true ]; \
	fi

browser-tests:
	$(call step,the waiting page in a browser)
	@if [ ! -f tests/browser/package.json ]; then \
	  echo 'SKIPPED browser: there is no tests/browser/package.json'; [ "$${CI:-}" != true ]; \
	elif [ ! -d tests/browser/node_modules ]; then \
	  echo 'SKIPPED browser: its modules are not installed (npm ci in tests/browser)'; [ "$${CI:-}" != true ]; \
	elif ! command -v chromium chromium-browser google-chrome >/dev/null; then \
	  echo 'SKIPPED browser: chromium is not installed'; [ "$${CI:-}" != true ]; \
	else \
	  cd tests/browser && npm run --if-present page </dev/null && npm test </dev/null; \
	fi
