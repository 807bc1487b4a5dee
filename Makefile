# What a developer types. 'make help' lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TAGS    := nomsgpack
BIN     := .bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
FUZZTIME ?= 30s
JOBS    ?= 1
ROUNDS  ?= 15
# Folders with a buf.yaml of their own.
PROTO   := proto examples/chat/chatpb

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build ./oneport
	go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o oneport ./cmd/oneport

.PHONY: run
run: build certs ## build, make a development certificate, serve the demo on 127.0.0.1:8443
	./oneport demo $(ARGS)

.PHONY: certs
certs: build ## make the development CA and certificate in certs/dev
	./oneport certs >/dev/null

.PHONY: test
test: ## all that Go alone can run; as root with apt also what needs other programs
	go vet -tags $(TAGS) ./...
	go test -race -vet=off -tags $(TAGS) ./...
	$(MAKE) suites
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		$(MAKE) test-clients; \
	else \
		echo; \
		echo "NOT RUN: the README's commands, and clients that are not Go (curl, nghttp, h2load, node, Python, Chromium)."; \
		echo "They need apt and root. To run them: sudo make test-clients"; \
	fi

.PHONY: suites
suites: $(BIN)/suites ## h2spec, the grpc interop client, grpcurl and pebble, from the Go module proxy
	go test -tags $(TAGS),suites -count=1 ./internal/suites

.PHONY: bulk
bulk: ## a GiB each way through oneport serve, in every combination of protocols; a minute and a half
	go test -tags $(TAGS),suites,bulk -count=1 -v -run TestBulk ./internal/suites

.PHONY: test-clients
test-clients: $(BIN)/suites ## curl, nghttp, h2load, node, Python and Chromium against the demo, limits on Redis (root, apt)
	internal/clients/setup.sh
	go test -tags $(TAGS),clients -count=1 -p 1 -v ./internal/clients ./examples/... ./router/redisstore ./router/broadcast
	go test -tags $(TAGS),clients -count=1 -v -run TestOthers ./internal/doctor

.PHONY: check
check: lint ## lint, and look whether generated code and formatting are up to date
	go mod tidy -diff
	$(MAKE) proto
	git diff --exit-code -- proto examples

.PHONY: lint
lint: $(BIN)/lint ## golangci-lint and buf lint
	$(BIN)/golangci-lint run --allow-parallel-runners ./...
	$(MAKE) $(BIN)/buf
	for dir in $(PROTO); do $(BIN)/buf lint "$$dir"; done

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s), JOBS (1) packages at a time
	@grep -rlE '^func Fuzz' --include=*_test.go . | xargs -n1 dirname | sort -u | \
		xargs -P $(JOBS) -I {} sh -c 'tools/fuzz.sh {} $(FUZZTIME) -tags $(TAGS) || exit 255'

.PHONY: attacks
attacks: ## ten seconds of each attack on a running port; minutes, and not on a busy machine
	go test -tags $(TAGS),attacks -count=1 -timeout 30m -v ./internal/attacks

.PHONY: faults
faults: ## one of three servers killed, stopped and slowed under load; 10,000 WebSockets and a flood; minutes
	go test -tags $(TAGS),faults -count=1 -timeout 10m -v ./internal/faults

.PHONY: bench
bench: ## compare the port with the same handlers on ports of their own
	go run -tags $(TAGS) ./bench -rounds $(ROUNDS)

.PHONY: bench-proxy
bench-proxy: build ## compare oneport serve with nginx and HAProxy, if they are installed (ROUNDS=5 at least)
	go run -tags $(TAGS) ./bench -only proxy -oneport ./oneport -rounds $(ROUNDS)

.PHONY: bench-telemetry
bench-telemetry: build ## compare oneport serve with metrics, traces and access lines and without
	go run -tags $(TAGS) ./bench -only telemetry -oneport ./oneport -rounds $(ROUNDS)

.PHONY: bench-guards
bench-guards: build ## compare oneport serve with and without a token checked and calls counted
	go run -tags $(TAGS) ./bench -only guards -oneport ./oneport -rounds $(ROUNDS)

.PHONY: bench-fanout
bench-fanout: ## compare the broadcast with a loop over 10,000 connections of gorilla's (ulimit -n 20000; ROUNDS=5)
	go run -tags $(TAGS) ./bench -only fanout -sockets 10000 -rounds $(ROUNDS)

.PHONY: docs
docs: ## write the reference of oneport.yaml, its JSON Schema, and the outputs of router/config/testdata
	go test -tags $(TAGS) ./router/config -update

.PHONY: proto
proto: $(BIN)/buf $(BIN)/gen ## generate Go from the .proto files
	export PATH="$(CURDIR)/$(BIN):$$PATH"; for dir in $(PROTO); do (cd "$$dir" && buf generate); done

# Tools have modules of their own, so that what they need never reaches an
# embedder's go.sum. A stamp file says that all tools of a module are built.
$(BIN)/lint: tools/lint/go.mod
	@mkdir -p $(BIN)
	cd tools/lint && go build -o ../../$(BIN)/ tool && touch ../../$@

$(BIN)/suites: tools/suites/go.mod $(wildcard tools/suites/*/*.go)
	@mkdir -p $(BIN)
	cd tools/suites && go build -o ../../$(BIN)/ tool ./client-gzip ./ext-authz && touch ../../$@

$(BIN)/gen: tools/gen/go.mod
	@mkdir -p $(BIN)
	cd tools/gen && go build -o ../../$(BIN)/ tool && touch ../../$@

$(BIN)/buf: tools/buf/go.mod
	@mkdir -p $(BIN)
	cd tools/buf && go build -o ../../$(BIN)/ tool && touch ../../$@
