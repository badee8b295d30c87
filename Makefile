# The first target is what `make` alone does.
.DEFAULT_GOAL := help
.PHONY: help demo build test lint clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

demo: ## See it work on this machine: private servers, sample data, both sides compared
	cargo run --locked --bin blackwater -- demo

build: ## Build the program: target/debug/blackwater
	cargo build --locked --workspace

test: ## Build everything and run every test, against real servers
	cargo test --locked --workspace

lint: ## Check the format, the lints and the documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet

clean: ## Remove what was built
	cargo clean
