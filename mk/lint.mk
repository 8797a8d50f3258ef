# Checks that are not tests, formatting, and the Bazel build.

.PHONY: lint lint-sources format
C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cc')
LINT = $(SYSTEM_PYTHON) -B tests/lint/run.py

lint: $(if $(wildcard proxy/main.c),$(B)/sluice) | $(APT_DEV) ## Layers, sizes, wording, format, filter rows, linked symbols
	$(Q)$(LINT) $(if $(wildcard proxy/main.c),--binary $(B)/sluice)

lint-sources: | $(APT_DEV) ## The checks that need no build; CHECKS='layers sizes' for some
	$(Q)$(LINT) $(CHECKS)

format: | $(APT_DEV) ## Format C files in place; FILES= for some
	$(Q)$(SYSTEM_PYTHON) scripts/format.py $(or $(FILES),$(C_FILES))

.PHONY: bazel
bazel: $(PROTO_LIB) $(BORINGSSL_STAMP) | $(APT_DEV) $(APT_TEST) ## The same binary and unit tests, built by Bazel
	$(Q)bazel build //proxy:sluice
	$(Q)bazel test //tests/unit:all || [ $$? -eq 4 ] # 4: there is no test yet
