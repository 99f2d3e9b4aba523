# What a contributor needs. CONTRIBUTING.md says more.

GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODULES = $(dir $(shell git ls-files -co --exclude-standard go.mod '*/go.mod'))
RELEASED = $(filter-out benchmarks/% examples/% internal/%,$(MODULES))

.PHONY: help build test race lint fuzz rehearsal vulnerabilities ci

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 18

build: ## build the modules that are released
	for m in $(RELEASED); do (cd $$m && go build ./...) || exit; done

test: ## test the root module
	go test ./...

race: ## the same with the race detector
	go test -race ./...

lint: ## vet all modules, and run golangci-lint, which has to be installed
	gofmt -l . && for m in $(MODULES); do (cd $$m && go vet ./...) || exit; done
	golangci-lint run

fuzz: ## fuzz FUZZ in package PKG, such as make fuzz PKG=./internal/h2 FUZZ=FuzzParse
	go test $(PKG) -run '^$$' -fuzz '^$(FUZZ)$$'

rehearsal: ## rehearse a whole release with a module proxy in a folder
	cd internal/release && go test -v .

vulnerabilities: ## look for known vulnerabilities in the modules that are released
	for m in $(RELEASED); do (cd $$m && go run $(GOVULNCHECK) ./...) || exit; done

ci: ## everything that a change has to pass: a quarter of an hour
	.ci/run
