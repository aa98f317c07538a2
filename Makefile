# `make help` says what there is to make.
.DEFAULT_GOAL := help
.PHONY: help demo test bench slow lint

TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(TOKENWARDEN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tokenwarden)

help: ## says this
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

demo: ## builds tokenwarden and shows it at work on a generated fortnight
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	@$(TARGET)/release/tokenwarden demo

test: ## runs every test, on a real Kafka, ClickHouse engine and mail server that it starts and stops
	@deploy/setup.sh test
	cargo build --locked
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked

bench: ## measures speed, as ratios of runs made in turn
	@deploy/setup.sh run
	cargo build --release --locked --bin tokenwarden
	@deploy/setup.sh convert $(TARGET)/release/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo bench --locked

slow: ## tests that take minutes: every test, those marked as slow too
	@deploy/setup.sh test
	cargo build --locked
	@deploy/setup.sh convert $(TARGET)/debug/tokenwarden
	TOKENWARDEN_CACHE=$(CACHE) cargo test --locked -- --include-ignored

lint: ## formatting, clippy, and what the dependencies may be
	@deploy/setup.sh ci
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	$(CACHE)/tools/bin/cargo-deny --locked check bans licenses sources
