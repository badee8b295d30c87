# The first target is what `make` alone does.
.DEFAULT_GOAL := help
.PHONY: help demo gate-demo evidence-demo backup-demo contributors-demo build release test bench lint package bootstrap-state deploy plan rollback deny audit postgres clean

# Which of the systems: blackwater, backup, contributors, evidence, gate.
STACK = blackwater

DENY_VERSION = 0.20.2
DENY = target/tools/bin/cargo-deny
MOTO = target/tools/moto/ready
# The tests that find changes, by the write-ahead log.
CHANGES = cutting:: definitions:: deletions:: histories:: joins:: killed_at_any_message_to_the_source other_database:: partitions:: recovery:: snapshots:: standby:: transactions::
BENCH = target/tools/bench/ready

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-17s %s\n", $$1, $$2 }'

# Unoptimized: built in a quarter of the time of a release, which would make the demo 3 s shorter.
demo: postgres ## See it work on this machine: private servers, sample data, both sides compared
	cargo run --locked --bin blackwater -- demo $(ARGS)

gate-demo: ## See the companion gate work on this machine: uploads that are let in or not, the issue, the mail
	cargo run --locked --bin gate -- demo

backup-demo: ## See the companion backup work on this machine: a small account backed up, damaged, verified, restored; needs git
	cargo run --locked --bin backup -- demo

evidence-demo: ## See the companion evidence work on this machine: a month of two repositories, the zips, Drive, Slack
	cargo run --locked --bin evidence -- demo

contributors-demo: postgres ## See the companion contributors work on this machine: a made-up organization polled into Postgres, and through Blackwater into a warehouse
	cargo build --locked --bin blackwater --bin contributors
	target/debug/contributors demo

build: ## Build the program: target/debug/blackwater
	cargo build --locked --bin blackwater

release: ## Build it for speed, which takes longer: target/release/blackwater, and the companions
	cargo build --locked --release --bin blackwater --bin backup --bin contributors --bin evidence --bin gate

test: postgres $(MOTO) ## Build everything and run every test, against real servers; the change detection tests run twice, by scan and by WAL
	cargo test --locked --workspace
	BLACKWATER_SOURCE__CHANGES=wal cargo test --locked --workspace --test end_to_end -- --skip capture $(CHANGES)

bench: postgres package release $(BENCH) ## Measure the functions, load, the whole pipeline, extract, the gate, the backup and contributors, beside COPY, Python, Sling, dlt and git
	cargo run --locked --bin bench

lint: ## Check the format, the lints and the documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet

package: ## Pack the Lambda functions of a stack with their files: make package PACK=models/totesys (which is the default)
	lambda/package $(STACK) $(PACK)

bootstrap-state: ## Make the bucket for Terraform's state, once in an account and region (AWS_REGION)
	terraform/state make

deploy: ## Pack, and make the stack on AWS or bring it up to date: make deploy ENV=prod, and STACK=gate for a companion's
	terraform/deploy $(STACK) $(ENV)

plan: ## Show what a deployment would change: make plan ENV=prod
	PLAN=1 terraform/deploy $(STACK) $(ENV)

rollback: ## Move the functions back to the version before: make rollback ENV=prod
	terraform/rollback $(STACK) $(ENV)

deny: $(DENY) ## Check the dependencies' licences and sources
	$(DENY) check licenses bans sources

audit: $(DENY) ## Check the dependencies for known faults, and the authorities that are trusted; needs the network
	$(DENY) check advisories
	shared/rds-authorities

$(DENY):
	cargo install --locked --debug --quiet cargo-deny --version $(DENY_VERSION) --root target/tools

# An emulator of AWS, for the tests of the functions.
$(MOTO): tests/aws/requirements.txt
	python3 -m venv target/tools/moto
	target/tools/moto/bin/pip install --quiet --requirement tests/aws/requirements.txt
	touch $@

$(BENCH): bench/python/requirements.txt
	python3 -m venv target/tools/bench
	target/tools/bench/bin/pip install --quiet --requirement bench/python/requirements.txt
	touch $@

postgres: # Installs a Postgres server by the system's package manager, if there is none.
	@./install-postgres

clean: ## Remove what was built
	cargo clean
