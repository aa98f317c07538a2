# `make help` says what there is to make.
.DEFAULT_GOAL := help
.PHONY: help demo evaluate test bench slow lint advisories

TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(TOKENWARDEN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tokenwarden)
FUZZED := $(basename $(notdir $(wildcard tests/fuzz/fuzz_targets/*.rs)))

help: ## says this
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

demo: ## builds tokenwarden and shows it at work on a generated fortnight
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@$(TARGET)/release/tokenwarden demo

# No setting was tuned on this seed.
SEED ?= 7701
MEASURED := $(TARGET)/evaluate-$(SEED)
BUILD = $(or $(shell git describe --always --dirty 2>/dev/null),unknown)

evaluate: ## simulates a quarter with SEED=7701, and writes the measurements into docs/results.md
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	$(TARGET)/release/tokenwarden simulate --size quarter --seed $(SEED) --compress zstd --out $(MEASURED)
	$(TARGET)/release/tokenwarden evaluate $(MEASURED) --peers --warmup 14 --json $(MEASURED)/figures.json \
		--roc docs/results.svg --into docs/results.md
	sed -i 's/^\(Build of the generated tables: \).*/\1commit `$(BUILD)`./' docs/results.md

test: ## runs every test, on a real Kafka, ClickHouse engine and mail server that it starts and stops
	@deploy/setup.sh test
	cargo build --locked
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked

bench: ## measures speed, as ratios of runs made in turn
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@# With huge pages where the system gives them, as deploy/tokenwarden.service runs it.
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked

slow: ## tests that take minutes: every test, those marked as slow too, and each fuzz target for two minutes
	@deploy/setup.sh slow
	cargo build --locked
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked -- --include-ignored
	@# Without a sanitizer the stable compiler can do it, and there is no unsafe code in what is fuzzed.
	@# What it finds stays under $(TARGET); it begins from what there is of real files.
	for target in $(FUZZED); do mkdir -p $(TARGET)/fuzz/found/$$target && PATH="$(CACHE)/tools/bin:$$PATH" \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none $$target \
		$(TARGET)/fuzz/found/$$target rules tests/data/formats -- -max_total_time=120 || exit 1; done

lint: ## formatting, clippy, what the dependencies may be, and how far the systemd unit is confined
	@deploy/setup.sh lint
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	$(CACHE)/tools/bin/cargo-deny --locked check bans licenses sources
	@.ci/exposure deploy/tokenwarden.service

advisories: ## known vulnerabilities of the dependencies, where the database of them can be fetched
	@deploy/setup.sh lint
	@.ci/advisories $(CACHE)/tools/bin/cargo-deny
