# netpold: build, test, demo, install. `make help` lists the targets.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# What of it was built: target/TARGET/release has those of another target.
BUILT ?= target/release
BIN     := $(DESTDIR)$(PREFIX)/bin
SYSCONF := $(DESTDIR)/etc/netpold
UNITS   := $(DESTDIR)$(PREFIX)/lib/systemd/system
TMPFILE := $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/netpold.conf
MAN     := $(DESTDIR)$(PREFIX)/share/man
BASH    := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH     := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH    := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
PROGRAM := $(notdir $(basename $(wildcard daemon/src/bin/*.rs)))
UNIT    := $(notdir $(wildcard systemd/*.service))
NETPOL  := $(BUILT)/netpol

# What is for root, by sudo where another user calls.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env NO_COLOR="$$NO_COLOR")

# The target whose libc is linked in.
STATIC  := $(shell uname -m)-unknown-linux-musl

# How long each fuzz target runs.
SECONDS ?= 60

.PHONY: build help deps demo test test-kernels test-engines check bench fuzz fmt install uninstall deb static dist test-system clean

build: ## Build netpold and netpol (the default)
	@tests/deps.sh build
	$(CARGO) build --release

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install what building, demo and tests need and is missing (Debian)
	@tests/deps.sh test

demo: ## Show the main job on real packets (needs root)
	@tests/deps.sh demo
	@$(CARGO) build --release
	@$(AS_ROOT) config/examples/payments/demo.sh $(MODE)

test: deps ## Run every test (those that need root: where there is root)
	@tests/run.sh

test-kernels: ## Run the datapath's suites on Debian's kernels, emulated (KERNEL=5.10 for one)
	@tests/deps.sh kernels
	@tests/kernels/run.sh $(KERNEL)

test-engines: ## Run the engines' suites with the engines of Debian's newer suites (SUITE=trixie for one)
	@tests/deps.sh engines
	@tests/engines/run.sh $(SUITE)

check: ## Formatting and lints alone
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --exclude netpol-ebpf --all-targets -- -D warnings

fmt: ## Format the sources
	$(CARGO) fmt --all

bench: deps ## What checking, compiling, a packet and a container's start cost (the last two need root)
	$(CARGO) build --release
	$(CARGO) bench -p netpol-engine --bench growth
	$(CARGO) bench -p netpold-tests

fuzz: ## Fuzz manifests, labels, streams of events and packets (SECONDS=60 each)
	@tests/fuzz/run.sh $(SECONDS)

# Builds nothing: `make` does, so that root need not have a compiler.
install: ## Install what `make` built (DESTDIR, PREFIX)
	@test -x $(NETPOL) || { echo "install: nothing is built: run \`make\` first" >&2; exit 1; }
	install -D -m 755 -t $(BIN) $(PROGRAM:%=$(BUILT)/%)
	install -D -m 644 -t $(UNITS) $(UNIT:%=systemd/%)
	sed -i 's|^\(Exec[A-Z][a-z]*\)=/usr/bin/netpol|\1=$(PREFIX)/bin/netpol|' $(UNIT:%=$(UNITS)/%)
	install -D -m 644 systemd/netpold.tmpfiles $(TMPFILE)
	install -d -m 755 $(SYSCONF)/manifests
	test -e $(SYSCONF)/netpold.toml || install -m 644 -t $(SYSCONF) config/netpold.toml
	install -d $(MAN)/man1 $(MAN)/man8 $(BASH) $(ZSH) $(FISH)
	$(NETPOL) man $(MAN)/man1 > /dev/null
	mv $(MAN)/man1/*.8 $(MAN)/man8/
	$(NETPOL) completions bash > $(BASH)/netpol
	$(NETPOL) completions zsh > $(ZSH)/_netpol
	$(NETPOL) completions fish > $(FISH)/netpol.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
	@echo "Installed. Start it: systemctl enable --now netpold"

# Policies, configuration and state stay: they are yours.
uninstall: ## Remove what install put there; enforcement first
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl disable --now $(UNIT) 2> /dev/null || true
	@test -n "$(DESTDIR)" || ! test -x $(BIN)/netpol || $(BIN)/netpol uninstall
	rm -f $(PROGRAM:%=$(BIN)/%) $(UNIT:%=$(UNITS)/%) $(TMPFILE)
	rm -f $(MAN)/man1/netpol.1 $(MAN)/man1/netpol-*.1 $(MAN)/man8/netpold*.8 $(BASH)/netpol $(ZSH)/_netpol $(FISH)/netpol.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload

deb: ## Make the Debian package, target/debian/netpold_*.deb
	@tests/deps.sh deb
	$(CARGO) build --release
	@packaging/deb/build.sh

# Runs on any Linux of this processor: libraries of its own, none of the system's.
static: ## Build netpold and netpol without shared libraries, in target/*-musl/release
	@tests/deps.sh static
	$(CARGO) build --release --target $(STATIC)
	@packaging/static.sh target/$(STATIC)/release

# A release: docs/operations.md has the recipe.
dist: ## Make a release in target/dist: archives and packages for x86-64 and arm64, checksums, parts list
	@tests/deps.sh dist
	@packaging/dist.sh

test-system: deb ## Install the package on an emulated Debian with Docker, reboot, upgrade, remove
	@tests/deps.sh system
	@tests/system/run.sh

clean: ## Remove what was built
	$(CARGO) clean
