# Checks that are not tests, and formatting.
.PHONY: lint format
C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cc' | grep -v '^build/')

format: | $(APT_DEV) ## clang-format everything in place
	$(Q)clang-format -i $(C_FILES)
