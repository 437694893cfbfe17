# make help lists the targets. Everything that a target needs is set up by it first, and what is there already is left
# alone, so each of them may be run at any time and twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := $(CURDIR)/.cache/bin

# Packages of the test run at once. The end-to-end tests measure times: more than the cores would make them lie.
TEST_JOBS ?= 2
TEST_FLAGS ?=
TEST_PACKAGES ?= ./...
SOAK ?= 10m

export PATH := $(BIN):$(PATH)

.PHONY: help build run test soak bench lint generate clean setup-run setup-test setup-lint setup-bench
.PHONY: packages-run packages-test packages-lint

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

build: ## build bin/sluice
	go build -trimpath -o bin/sluice ./cmd/sluice

run: setup-run build ## start a live cluster: nginx, embedded etcd, three Socket.IO nodes; Ctrl-C stops it
	@exec scripts/run.sh

test: setup-test ## run all tests, with the race detector
	go test -race -timeout 25m -p $(TEST_JOBS) $(TEST_FLAGS) $(TEST_PACKAGES)

soak: setup-test ## run the long versions of the end-to-end tests, SOAK=10m each
	SLUICE_SOAK=$(SOAK) go test -race -timeout 6h -p 1 -count 1 -v $(TEST_FLAGS) ./e2e/...

bench: setup-bench build ## measure sluice beside a bare nginx, a bare etcd and consul-template
	SLUICE_BINARY=$(CURDIR)/bin/sluice go test -tags bench -timeout 60m -count 1 -v -run '^TestBench' $(TEST_FLAGS) ./e2e/...

lint: setup-lint ## check the code, the scripts, the API's document, and what is generated
	scripts/lint.sh

generate: ## generate the API's server and client from openapi.yaml
	go generate ./...

clean: ## remove what make made, but for the installed packages
	rm -rf bin .cache .run tools/npm/node_modules examples/socketio/node_modules

# Debian's packages come first: what follows may need them.
setup-run: packages-run examples/socketio/node_modules/.package-lock.json
setup-test: packages-test examples/socketio/node_modules/.package-lock.json $(BIN)/etcd $(BIN)/etcdctl $(BIN)/consul
setup-lint: packages-lint $(BIN)/golangci-lint tools/npm/node_modules/.package-lock.json
setup-bench: setup-test $(BIN)/consul-template

packages-run packages-test packages-lint: packages-%:
	@scripts/setup.sh $*

# npm writes its own lock file last, so a broken install is done again.
%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund --no-progress --loglevel error
	touch $@

$(BIN)/golangci-lint: tools/go.mod tools/go.sum
	$(call tool,tools,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

$(BIN)/etcd: tools/etcd/go.mod tools/etcd/go.sum
	$(call tool,tools/etcd,go.etcd.io/etcd/server/v3)

$(BIN)/etcdctl: tools/etcd/go.mod tools/etcd/go.sum
	$(call tool,tools/etcd,go.etcd.io/etcd/etcdctl/v3)

# This one takes minutes.
$(BIN)/consul: tools/consul/go.mod tools/consul/go.sum
	$(call tool,tools/consul,github.com/hashicorp/consul)

# This one is only there to be measured against.
$(BIN)/consul-template: tools/consul-template/go.mod tools/consul-template/go.sum
	$(call tool,tools/consul-template,github.com/hashicorp/consul-template)

# tool MODULE,PACKAGE builds a program at the version that the module's go.mod names.
define tool
	@echo 'building $(@F) (once; minutes when nothing is cached)'
	@mkdir -p $(@D)
	go build -C $(1) -o $@ $(2)
	@touch $@
endef
