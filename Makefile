# A newcomer's doors. Each sets up what is missing (tests/setup.sh), so the order does not matter.
#
#   make demo     the whole pipeline on this machine, an outage included (ARGS="--devices 200 --serve", ARGS=--help)
#   make test     every test
#   make soak     everything goes wrong for some minutes, or hours, and nothing is lost (ARGS="--hours 8 --seed 42")
#   make firmware the firmware for every board: sizes against budgets, paths of the images (firmware/README.md)
#   make bench    speed and size, as a table and as JSON (ARGS=--quick for a small one)
#   make pi       packages of the gateway for a Raspberry Pi, 64 and 32 bits (deploy/pi/README.md)
#   make lint     formatting, clippy and, where it is installed, cargo deny
#   make setup    only what the others need: nats-server, mosquitto, stock MQTT clients

.PHONY: help setup demo test soak bench firmware pi lint
.DEFAULT_GOAL := help

CARGO ?= cargo
ARGS ?=

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@tests/setup.sh

# The demo starts the others as processes of their own, so all binaries are built first.
demo: setup
	@$(CARGO) build --quiet --locked --workspace --bins
	@$(CARGO) run --quiet --locked --bin weir-demo -- $(ARGS)

firmware:
	@firmware/build.sh

test: setup firmware
	$(CARGO) build --locked --workspace --bins
	@deploy/pi/test.sh
	$(CARGO) test --locked --workspace
	$(CARGO) test --locked --manifest-path firmware/Cargo.toml -p weir-firmware -p plain-words

# With debug assertions, as the tests.
soak: setup
	@$(CARGO) build --quiet --locked --workspace --bins
	@$(CARGO) run --quiet --locked --bin weir-soak -- $(ARGS)

bench: setup
	$(CARGO) build --locked --release --workspace --bins
	@$(CARGO) run --quiet --locked --release --bin weir-bench -- $(ARGS)

pi: setup
	@packages=$$(deploy/pi/package.sh arm64 armhf) && deploy/pi/check.sh $$packages && printf '%s\n' $$packages

lint:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --manifest-path firmware/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; \
	else echo "lint: cargo deny is not installed, so deny.toml was not checked (cargo install --locked cargo-deny)"; fi
