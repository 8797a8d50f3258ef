# Checks that are not tests, and formatting.

.PHONY: lint lint-sources format
C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cc')
LINT = $(SYSTEM_PYTHON) -B tests/lint/run.py

lint: $(if $(wildcard proxy/main.c),$(B)/sluice) | $(APT_DEV) ## Layers, sizes, wording, format, filter rows, linked symbols
	$(Q)$(LINT) $(if $(wildcard proxy/main.c),--binary $(B)/sluice)

lint-sources: | $(APT_DEV) ## The checks that need no build; CHECKS='layers sizes' for some
	$(Q)$(LINT) $(CHECKS)

format: | $(APT_DEV) ## Format C files in place; FILES= for some
	$(Q)$(SYSTEM_PYTHON) scripts/format.py $(or $(FILES),$(C_FILES))
