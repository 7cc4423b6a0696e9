# Everything that a developer types. `make` alone says what there is.
# The scripts bring what they need into a cache folder (WHARF_CACHE, ~/.cache/wharf when not set).

.DEFAULT_GOAL := help
.PHONY: help setup guests run test check bench fuzz clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Bring the toolchains of the guests, the test servers and the checking tools
	@scripts/setup

guests: ## Build the guest examples and the test guests
	@scripts/setup guests
	@scripts/build-guests

run: guests ## Try it: the host with the examples, an FTP server and a Dropbox emulator
	@scripts/setup servers
	cargo build --workspace
	@scripts/run-demo

test: guests ## Run every test, against real servers
	@scripts/setup servers
	cargo test --workspace --no-fail-fast

check: ## Check form, lints, documentation, licences and known vulnerabilities
	@scripts/setup check
	@scripts/check

bench: guests ## Measure the host against its peers (20 minutes, the first time longer)
	@scripts/setup servers bench
	cargo build --release --package wharf --package dropbox-emulator
	bench/bench.py

fuzz: ## Feed the parsers of what servers sent with inputs that nobody has thought of (a minute each)
	@scripts/fuzz

clean: ## Remove what was built here; the cache folder stays
	cargo clean
	rm -rf guest-examples/build tests/guests/build
