# Generated protobuf C: protos/gen.py writes $(OUT)/gen from the official descriptors, kept in the cache by content.
# The sources are then compiled like any other (mk/protolib.mk, a make of its own: the file list is known only after).

PROTO_LIB :=
.PHONY: protos
ifneq ($(wildcard protos/gen.py),)
PROTO_STAMP := $(STAMPS)/protos-$(call digest,$(wildcard protos/*.py) protos/roots.txt requirements.txt scripts/protos.py)
PROTO_LIB := $(B)/libprotos.a

$(PROTO_STAMP): | $(VENV_STAMP)
	$(Q)$(PYTHON) scripts/protos.py $(OUT)/gen
	$(Q)mkdir -p $(@D) && touch $@

# Always asked, rarely anything to do; its time changes only when it was made anew.
$(PROTO_LIB): FORCE | $(PROTO_STAMP)
	$(Q)+$(MAKE) -f mk/protolib.mk VARIANT=$(VARIANT) B=$(B) $@
endif

protos: $(PROTO_LIB) ## Generate the protobuf C code and compile it
	@:
