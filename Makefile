# make help lists what there is.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
PYTHON_SOURCES := operator runtime devcluster bench tests tools
bin := .venv/bin

.PHONY: help environment binaries test check format generate verify lock demo images bench bench-images bench-gpu bench-operator
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

environment:  ## create .venv/ from hashed requirements (done by the other targets when needed)
	@tools/environment.sh

binaries: environment  ## build etcd, Kubernetes, kubectl and helm once (about 7 minutes on 2 cores), cached by content
	@$(bin)/python -m devcluster build

demo: environment  ## control plane, helm install, an EmbeddingService, real vectors. KEEP=1 keeps it, MODEL=owner/name serves another
	@$(bin)/python -m tools.demo

test: environment check binaries  ## everything: checks, unit tests, real sockets, real model, real control plane
	@$(bin)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile

check: environment verify  ## format, lint, types, import contracts, generated files
	@$(bin)/ruff format --check $(PYTHON_SOURCES)
	@$(bin)/ruff check $(PYTHON_SOURCES)
	@$(bin)/mypy
	@$(bin)/lint-imports

format: environment  ## format the sources and apply the linter's safe fixes
	@$(bin)/ruff format $(PYTHON_SOURCES)
	@$(bin)/ruff check --fix $(PYTHON_SOURCES)

generate: environment  ## write crds/, the chart's copy and docs/reference from the API models, and the chart's table of values
	@$(bin)/python -m tools.generate
	@$(bin)/python -m tools.chart_values

verify: environment  ## fail when a generated file is stale
	@$(bin)/python -m tools.generate --verify
	@$(bin)/python -m tools.chart_values --verify

lock: environment  ## resolve requirements/*.in again into hashed pins
	@tools/lock.sh

bench: environment $(if $(QUICK),,binaries)  ## our server beside infinity and others, then images and the operator with 1 000 services, 20 minutes; QUICK=1 a look at the first in 3, TEI=path another peer, FLAGS=--help explains
	@$(bin)/python -m bench $(if $(QUICK),--quick) $(FLAGS)
	@$(if $(QUICK)$(FLAGS),,$(bin)/python -m bench.images)
	@$(if $(QUICK)$(FLAGS),,$(bin)/python -m bench.scale)

bench-images: environment  ## images/s and where their time goes; FLAGS=--help explains
	@$(bin)/python -m bench.images $(FLAGS)

bench-gpu: environment  ## tokens/s of BERT-base, BERT-large and a 1B Llama on this host's GPU, unattended; FLAGS=--help explains
	@$(bin)/python -m bench.gpu $(FLAGS)

bench-operator: environment binaries  ## the operator with many EmbeddingServices on a real control plane; FLAGS=--help explains
	@$(bin)/python -m bench.scale $(FLAGS)

images:  ## build both container images with docker or buildah; FLAGS='--repository registry.example.com/team --push', FLAGS=--help explains
	@tools/images.sh $(FLAGS)
