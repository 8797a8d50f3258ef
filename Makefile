# Sluice's build. `make help` lists the targets; mk/ holds the parts.
#
#   B=dir          output of this build (default build, build/asan, …): several trees from one clone
#   VARIANT=name   release (default), asan, tsan, fuzz
#   LTO=1          link-time optimisation        CC=, CXX=      other compilers
#   T=test_buf     one unit test only            ONLY='dir …'   only these source folders go into the library
#   PYTEST_ARGS=   passed on to pytest           V=1            show commands

MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(filter -j%,$(MAKEFLAGS))$(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
.SUFFIXES:
.DELETE_ON_ERROR:
SHELL := /bin/sh

VARIANT ?= release
OUT := build
B ?= $(if $(filter release,$(VARIANT)),$(OUT),$(OUT)/$(VARIANT))
Q := $(if $(V),,@)

.DEFAULT_GOAL := all
.PHONY: all run lib clean help FORCE
all: $(B)/sluice ## Build build/sluice

include mk/deps.mk
include mk/flags.mk
include mk/protos.mk
include mk/compile.mk
include mk/test.mk
include mk/image.mk
include mk/lint.mk

lib: $(LIB) ## Build the library of everything but main, only

run: $(B)/sluice $(VENV_STAMP) ## Build, then run the gateway demo
	$(Q)SLUICE=$(B)/sluice $(PYTHON) examples/gateway/run.py

clean: ## Remove build outputs; the cache outside the tree stays
	$(Q)rm -rf $(OUT)

help: ## List the targets
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'
	@echo 'Variables:'
	@sed -n 's/^#   \(.*\)/  \1/p' Makefile
