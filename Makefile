# What there is to do here. Each target can be run alone on a fresh clone.
#   make demo         three nodes on this machine, hurt on purpose, and the report
#   make demo-san     three nodes and a disk array in networks of their own, which are cut, and the report (root)
#   make demo-replica two sites with a replicated device; the one that is written is killed, and the report
#   make test         every test, with its time; lists what was skipped and why (at most 15 minutes)
#   make test-quick   unit and tidy tests only
#   make test-long    also the long ones: thousands of simulated clusters
#   make check        format, clippy, documentation, licences, tidy tests
#   make bench        Shorefast beside its peers, interleaved
# REQUIRE_ALL=1 makes a skipped test a failure. CARGO and CARGO_TARGET_DIR are obeyed.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Passed on to `shorefast demo`, for example DEMO="--keep".
DEMO ?=
# Passed on to the benchmark, for example BENCH="--pairs 3 --seconds 1.5 --only takeover".
BENCH ?=

.PHONY: demo demo-san demo-replica build test test-quick test-long check fmt clippy doc deny tidy bench

demo:
	@./setup --for demo
	@$(CARGO) build -p shorefast
	@$(TARGET)/debug/shorefast demo $(DEMO)

demo-san:
	@./setup --for demo-san
	@$(CARGO) build -p shorefast
	@$(TARGET)/debug/shorefast demo --san $(DEMO)

demo-replica:
	@$(CARGO) build -p shorefast
	@$(TARGET)/debug/shorefast demo --replica $(DEMO)

build:
	$(CARGO) build --workspace

test:
	@./setup --for test
	@tests/suites.sh full

test-quick:
	@tests/suites.sh quick

test-long:
	@./setup --for test
	@tests/suites.sh long

check: fmt clippy doc deny tidy

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items

deny:
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; \
	else echo "skipped: cargo-deny is not installed (./setup --with-deny installs it): licences of dependencies unchecked"; fi

tidy:
	$(CARGO) test -p shorefast-tests

bench:
	@./setup --for bench
	$(CARGO) build --release -p shorefast -p shorefast-minifuse -p shorefast-benches
	$(TARGET)/release/shorefast-bench $(BENCH)
	$(CARGO) bench -p shorefast-benches --bench micro -- --noplot
