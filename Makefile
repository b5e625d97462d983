# netpold: build, test, demo, install. `make help` lists the targets.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
SYSCONF := $(DESTDIR)/etc/netpold
UNITS   := $(DESTDIR)$(PREFIX)/lib/systemd/system
MAN     := $(DESTDIR)$(PREFIX)/share/man
BASH    := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH     := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH    := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
NETPOL  := target/release/netpol

# What is for root, by sudo where somebody else calls.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env NO_COLOR="$$NO_COLOR")

# How long each fuzz target runs.
SECONDS ?= 60

.PHONY: build help deps demo test test-kernels check bench fuzz fmt install uninstall clean

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
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin target/release/netpold target/release/netpold-cni target/release/netpold-oci $(NETPOL)
	install -D -m 644 -t $(UNITS) systemd/netpold.service systemd/netpold-gate.service
	sed -i 's|^\(Exec[A-Z][a-z]*\)=/usr/bin/|\1=$(PREFIX)/bin/|' $(UNITS)/netpold.service $(UNITS)/netpold-gate.service
	install -d -m 755 $(SYSCONF)/manifests
	test -e $(SYSCONF)/netpold.toml || install -m 644 -t $(SYSCONF) config/netpold.toml
	install -d $(MAN)/man1 $(MAN)/man8 $(BASH) $(ZSH) $(FISH)
	$(NETPOL) man $(MAN)/man1 > /dev/null
	mv $(MAN)/man1/netpold.8 $(MAN)/man8/
	$(NETPOL) completions bash > $(BASH)/netpol
	$(NETPOL) completions zsh > $(ZSH)/_netpol
	$(NETPOL) completions fish > $(FISH)/netpol.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload
	@echo "Installed. Start it: systemctl enable --now netpold"

# Policies, configuration and state stay: they are yours.
uninstall: ## Remove what install put there; enforcement first
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl disable --now netpold netpold-gate 2> /dev/null || true
	@test -n "$(DESTDIR)" || ! test -x $(PREFIX)/bin/netpol || $(PREFIX)/bin/netpol uninstall
	rm -f $(DESTDIR)$(PREFIX)/bin/netpold $(DESTDIR)$(PREFIX)/bin/netpold-cni $(DESTDIR)$(PREFIX)/bin/netpold-oci $(DESTDIR)$(PREFIX)/bin/netpol $(UNITS)/netpold.service $(UNITS)/netpold-gate.service
	rm -f $(MAN)/man1/netpol.1 $(MAN)/man1/netpol-*.1 $(MAN)/man8/netpold.8 $(BASH)/netpol $(ZSH)/_netpol $(FISH)/netpol.fish
	@test -n "$(DESTDIR)" || ! test -d /run/systemd/system || systemctl daemon-reload

clean: ## Remove what was built
	$(CARGO) clean
