# The menu. Each line of help stands behind its target.
.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test check bench build setup fixtures

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: setup ## build, stream a two-voice conversation, show live transcript, record, webhook and search
	cargo build --quiet --locked --profile quick --bin auricle
	@AURICLE=$(TARGET)/quick/auricle scripts/demo

test: ## everything that is promised, checked: tests, doc tests, others' SDKs, a little fuzzing
	@scripts/test

check: setup ## formatting, lints as errors, and which crate may use which
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --quiet --locked -p auricle-testkit --test arrows

bench: setup ## what a live session costs, beside a floor measured in the same run (SESSIONS=200 SECONDS_LONG=20)
	cargo build --quiet --locked --release --bin auricle
	$(TARGET)/release/auricle bench sessions --sessions $(or $(SESSIONS),200) --seconds $(or $(SECONDS_LONG),20)

build: setup ## the release binary, target/release/auricle (FEATURES=whisper)
	cargo build --locked --release --bin auricle $(if $(FEATURES),--features $(FEATURES))

setup: ## install what is missing (Debian, Ubuntu)
	@scripts/setup

fixtures: ## make the demonstration's audio again (needs flite)
	fixtures/two-voices/make.sh
