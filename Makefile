# `make help` lists the targets. README.md and .ci/run call these and nothing else.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Root is needed for network namespaces: what is built as you runs through sudo where you are not root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Cargo takes no empty runner, so it is set only where it is needed.
ifneq ($(SUDO),)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
endif

.PHONY: help setup build lab test test-kubelets test-upgrade simulate fuzz miri asan advisories bench bench-cluster lint deny doc crds manifests reference pictures image release clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: ## install what the build, the lab and the tests need (Debian, Ubuntu)
	@tests/setup build lab test

build: ## the program, in target/release
	@tests/setup build
	cargo build --release

lab: ## one machine, a router, three nodes: a Service gets an address and answers (ARGS="--router bird …")
	@tests/setup build lab
	@cargo build --release --features emulator
	@$(SUDO) target/release/ironcast lab $(ARGS)

test: ## every test, with real routers and a real API server
	@tests/setup build lab test
	@tests/helm/build > /dev/null
	@assets=$$(tests/cluster/build) && export KUBEBUILDER_ASSETS=$$assets && cargo test --workspace --all-features

SEEDS ?= 1000000
simulate: ## nodes, leader, provider and routers under a virtual clock, optimised (SEEDS=1000000; docs/reliability.md)
	@tests/setup build
	IRONCAST_SIMULATION_SEEDS=$(SEEDS) cargo test --release --all-features --lib simulation::tests::no_seed -- --nocapture

ARCH := $(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
test-kubelets: ## the image on three nodes with kubelets: install, rolling update under load, uninstall
	@tests/setup build lab test kubelets static-$(ARCH)
	@deploy/static $(ARCH)
	@TAG=registry.example/ironcast:0.1.0 deploy/image $(ARCH)
	@assets=$$(tests/cluster/build) && export KUBEBUILDER_ASSETS=$$assets && tests/node/build > /dev/null && \
	  cargo test --workspace --all-features --test kubelets -- --ignored --nocapture

FROM ?= HEAD~1
test-upgrade: ## daemons of another commit become this version and go back, under traffic (FROM=commit)
	@tests/setup build lab
	@cargo build --features emulator
	@previous=$$(tests/previous $(FROM)) && $(SUDO) target/debug/ironcast lab --scenario restart --previous $$previous $(ARGS)

SECONDS_EACH ?= 30
MUTATIONS ?= 30000
SEED ?= $(shell date +%s)
fuzz: ## libFuzzer on bgp/, damaged input and frames for everything else (SECONDS_EACH=30 MUTATIONS=30000)
	@tests/setup build fuzz
	@bgp/fuzz/run $(SECONDS_EACH)
	IRONCAST_MUTATIONS=$(MUTATIONS) IRONCAST_MUTATIONS_SEED=$(SEED) cargo test --workspace --all-features --lib -- mutated damage
	IRONCAST_FRAMES=$$((10 * $(MUTATIONS))) IRONCAST_FRAMES_SEED=$(SEED) cargo test --workspace --all-features --test datapath_generated

bench: ## figures as ratios against a floor or a peer
	@tests/setup build
	cargo bench --workspace --all-features

SERVICES ?= 10000
ENDPOINTS ?= 10
bench-cluster: ## one daemon and a real API server with many Services (SERVICES=10000 ENDPOINTS=10)
	@tests/setup build test
	@assets=$$(tests/cluster/build) && export KUBEBUILDER_ASSETS=$$assets && \
	  cargo bench -p ironcast --all-features --bench cluster -- $(SERVICES) $(ENDPOINTS)

NIGHTLY ?= nightly
miri: ## the core of bgp/ and what it depends on under Miri (NIGHTLY=nightly)
	@tests/setup build nightly
	MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 cargo +$(NIGHTLY) miri test -p ironcast-bgp --no-default-features --lib

asan: ## what talks to the kernel, with AddressSanitizer: bgp/ and the packet path (NIGHTLY=nightly)
	@tests/setup build nightly
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo +$(NIGHTLY) test --target-dir target/asan \
	  --target $$(rustc -vV | sed -n 's/^host: //p') -p ironcast-bgp --all-features
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo +$(NIGHTLY) test --target-dir target/asan \
	  --target $$(rustc -vV | sed -n 's/^host: //p') -p ironcast --test datapath_vectors --test datapath_flows

advisories: ## known weaknesses of every dependency; needs the internet
	@tests/setup deny
	cargo deny check advisories

lint: ## formatting, clippy, the core without I/O
	cargo fmt --all --check
	cargo fmt --manifest-path bgp/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo check -p ironcast-bgp --no-default-features

deny: ## licences, sources and bans of every dependency
	@tests/setup deny
	cargo deny check licenses bans sources

doc: ## the API documentation; a broken link is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

crds: ## deploy/crds anew from the Rust types
	UPDATE_CRDS=1 cargo test --quiet --lib crds_in_deploy

manifests: ## deploy/manifests anew from the chart
	@tests/helm/build > /dev/null
	UPDATE_MANIFESTS=1 cargo test --quiet --workspace --all-features --test deploy manifests_are

pictures: ## the pictures of docs/ anew, from a running lab
	@tests/setup build lab test
	@cargo build --release --features emulator
	@$(SUDO) docs/pictures/take target/release/ironcast

reference: ## docs/configuration.md anew from the types, the flags and the annotations
	UPDATE_REFERENCE=1 cargo test --quiet --workspace --all-features --test deploy reference_says

ARCHS ?= $(ARCH)
image: ## OCI image of a static binary, and what is in it (ARCHS="amd64 arm64")
	@tests/setup build $(ARCHS:%=static-%)
	@set -e; for arch in $(ARCHS); do deploy/static $$arch; done
	@deploy/image $(ARCHS)

release: ## programs, image, chart, manifests, notes and checksums of this version (SIGNING_KEY=FILE signs them)
	@$(MAKE) --no-print-directory image ARCHS="amd64 arm64"
	@tests/setup release
	@deploy/release amd64 arm64

clean: ## what was built
	cargo clean
