# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo evaluate evaluate-worlds test bench bench-store bench-kafka faults slow lint advisories

TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(TOKENWARDEN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tokenwarden)
FUZZED := $(basename $(notdir $(wildcard tests/fuzz/fuzz_targets/*.rs)))

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 22

demo: ## builds tokenwarden and runs it on a generated fortnight with thefts
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@$(TARGET)/release/tokenwarden demo

# The seed of the tables in docs/results.md.
SEED ?= 7701
MEASURED := $(TARGET)/evaluate-$(SEED)
BUILD = $(or $(shell git describe --always --dirty 2>/dev/null),unknown)

evaluate: ## simulates a quarter (SEED=7701), evaluates it and writes the tables into docs/results.md
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	$(TARGET)/release/tokenwarden simulate --size quarter --seed $(SEED) --compress zstd --out $(MEASURED)
	$(TARGET)/release/tokenwarden evaluate $(MEASURED) --peers --warmup 14 --json $(MEASURED)/figures.json \
		--roc docs/results.svg --into docs/results.md
	sed -i 's/^\(Build of the generated tables: \).*/\1commit `$(BUILD)`./' docs/results.md

SEEDS := 7701 7702 7703 7704 7705
BOARD := $(TARGET)/board
EVALUATE = $(TARGET)/release/tokenwarden evaluate --warmup 14 --control matched_network

evaluate-worlds: ## writes a scoreboard of five simulated quarters and the labelled sets in WORLDS=DIR into docs/results.md
	@ls '$(WORLDS)'/*/events.ndjson.zst >/dev/null 2>&1 || { echo "make evaluate-worlds WORLDS=DIR: WORLDS is '$(WORLDS)'," \
		"but it must be a directory of directories that have events.ndjson.zst and labels.ndjson.zst;" \
		"docs/evaluation.md describes the files" >&2; exit 2; }
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@rm -rf $(BOARD) && mkdir -p $(BOARD)
	@set -e; for seed in $(SEEDS); do echo "simulator-$$seed"; \
		$(TARGET)/release/tokenwarden simulate --size quarter --seed $$seed --compress zstd --out $(TARGET)/evaluate-$$seed; \
		$(EVALUATE) $(TARGET)/evaluate-$$seed --json $(BOARD)/simulator-$$seed.json >$(BOARD)/simulator-$$seed.txt; done
	@set -e; for events in '$(WORLDS)'/*/events.ndjson.zst; do world=$${events%/*}; name=$${world##*/}; echo "$$name"; \
		$(EVALUATE) "$$world" --json "$(BOARD)/$$name.json" >"$(BOARD)/$$name.txt"; done
	$(TARGET)/release/tokenwarden evaluate --into docs/results.md --board $(BOARD)/*.json
	sed -i 's/^\(Build of the scoreboard: \).*/\1commit `$(BUILD)`./' docs/results.md

test: ## runs every test; starts and stops a Kafka, a ClickHouse engine and a mail server
	@deploy/setup.sh test
	cargo build --locked --features full-tests
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked --features full-tests

bench: ## runs the benchmarks (docs/benchmarks.md)
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@# With huge pages if the system has them, as in deploy/tokenwarden.service.
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked

# The commit with which `make bench-store` compares. It must have benches/store.rs.
AGAINST ?=
OTHER := $(TARGET)/bench-store

bench-store: ## measures the ClickHouse engine's CPU time and disk per stored event (AGAINST=COMMIT: in turn with that build)
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@set -e; if [ -z '$(AGAINST)' ]; then TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked --bench store; exit; fi; \
		rm -rf $(OTHER)/source && mkdir -p $(OTHER)/source && git archive '$(AGAINST)' | tar -x -C $(OTHER)/source; \
		other=$$(cd $(OTHER)/source && CARGO_TARGET_DIR=$(abspath $(OTHER)) cargo bench --locked --bench store --no-run 2>&1 \
			| tee /dev/stderr | sed -n 's/.*benches\/store.rs (\(.*\))$$/\1/p'); \
		test -x "$$other"; \
		TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked --bench store -- --against "$$other"

# The number of events, and further arguments of benches/kafka/main.rs.
KAFKA_BENCH ?= 1000000

bench-kafka: ## measures throughput, revocation latency and restoration with a real Kafka (KAFKA_BENCH="EVENTS --turns N --only PART")
	@deploy/setup.sh test
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@# With huge pages if the system has them, as in deploy/tokenwarden.service.
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked --features full-tests --bench kafka \
		-- $(KAFKA_BENCH)

# Number of kills, and the seed that chooses the faults.
KILLS ?= 20
FAULT_SEED ?= 1

faults: ## kills the service again and again with faults around it (KILLS=20 FAULT_SEED=1) and writes docs/reliability.md
	@deploy/setup.sh test
	TOKENWARDEN_CACHE=$(CACHE) TOKENWARDEN_FAULTS=$(KILLS) TOKENWARDEN_FAULTS_SEED=$(FAULT_SEED) \
		TOKENWARDEN_FAULTS_PAGE=docs/reliability.md TOKENWARDEN_FAULTS_COMMIT=$(BUILD) \
		cargo test --locked --features full-tests --test live faults:: -- --ignored

slow: ## runs every test including slow ones, and each fuzz target for two minutes
	@deploy/setup.sh slow
	cargo build --locked --features full-tests
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked --features full-tests -- --include-ignored
	@# Without a sanitizer, because the stable compiler has none and the fuzzed code has no unsafe blocks.
	@# The corpus is kept in $(TARGET) and starts with the rule files and test data.
	for target in $(FUZZED); do mkdir -p $(TARGET)/fuzz/found/$$target && PATH="$(CACHE)/tools/bin:$$PATH" \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(TARGET)/fuzz --sanitizer none $$target \
		$(TARGET)/fuzz/found/$$target rules tests/data/formats -- -max_total_time=120 || exit 1; done

lint: ## checks formatting, clippy, documentation, dependency licences and sources, and the systemd unit's sandbox
	@deploy/setup.sh lint
	cargo fmt --check
	cargo clippy --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet
	$(CACHE)/tools/bin/cargo-deny --locked check bans licenses sources
	@.ci/exposure deploy/tokenwarden.service

advisories: ## checks dependencies for known vulnerabilities, if the database can be downloaded
	@deploy/setup.sh lint
	@.ci/advisories $(CACHE)/tools/bin/cargo-deny
