# Generated protobuf C: protos/gen.py writes $(OUT)/gen from the official descriptors, kept in the cache by content.
# One library serves all variants: it is tables, in which a sanitizer would find nothing.

PROTO_INPUTS := $(shell find protos -type f ! -name '*.[ch]' ! -name '*.md' ! -name 'BUILD*' ! -path '*/__pycache__/*' | LC_ALL=C sort)
PROTO_STAMP := $(STAMPS)/protos-$(call digest,$(PROTO_INPUTS) requirements.txt scripts/protos.py)
PROTO_LIST := $(OUT)/gen/.list
PROTO_LIB := $(OUT)/protos/libprotos.a

$(PROTO_STAMP): $(call unless,$(PROTO_LIST)) | $(VENV_STAMP)
	$(Q)$(PYTHON) scripts/protos.py $(OUT)/gen $(PROTO_INPUTS)
	$(Q)mkdir -p $(@D) && touch $@

# Its time changes only when the generated files did.
$(PROTO_LIST): $(PROTO_STAMP)
	@:

# A make of its own: which files there are is known only now.
$(PROTO_LIB): $(PROTO_LIST) $(wildcard protos/*.h) mk/protolib.mk | $(APT_BUILD)
	$(Q)+$(MAKE) $(if $(V),,-s) -f mk/protolib.mk

.PHONY: protos
protos: $(PROTO_LIB) ## Generate the protobuf C code and compile it
	@:
