# The binary without shared libraries, and the root file system of the image around it (Containerfile).

PACKAGED := grpc_unsecure libprotobuf-c libuv-static libnghttp2 libcares re2 yaml-0.1 jansson libxxhash zlib libbrotlienc \
    libbrotlidec libzstd libpcre2-8
# gRPC's own description leaves out two archives of its package. A group: libraries refer to each other in both directions.
STATIC_LIBS = $(OUT)/boringssl/lib/libssl.a $(OUT)/boringssl/lib/libcrypto.a -Wl,--start-group \
    $(shell pkg-config --static --libs $(PACKAGED)) -laddress_sorting -lupb -lstdc++ -lm -Wl,--end-group -pthread
IMAGE := $(B)/image
CA_BUNDLE := /etc/ssl/certs/ca-certificates.crt

.PHONY: static image test-image
static: $(B)/sluice-static ## Build build/sluice-static, which needs no shared library
image: $(IMAGE)/usr/local/bin/sluice ## Lay out the container image's root in build/image (Containerfile copies it)

$(B)/sluice-static: $(call object,$(MAIN)) $(LIB) $(PROTO_LIB) | $(READY)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LINKED_PACKED) -static-pie -o $@.new $(call object,$(MAIN)) $(LIB) $(PROTO_LIB) $(STATIC_LIBS) && mv $@.new $@

$(IMAGE)/usr/local/bin/sluice: $(B)/sluice-static mk/image.mk
	$(Q)rm -rf $(IMAGE) && mkdir -p $(@D) $(IMAGE)/etc/ssl/certs $(IMAGE)/etc/sluice $(IMAGE)/tmp && chmod 1777 $(IMAGE)/tmp
	$(Q)printf 'root:x:0:0:root:/:/nonexistent\nsluice:x:65532:65532:sluice:/tmp:/nonexistent\n' >$(IMAGE)/etc/passwd
	$(Q)printf 'root:x:0:\nsluice:x:65532:\n' >$(IMAGE)/etc/group
	$(Q)cp $(CA_BUNDLE) $(IMAGE)/etc/ssl/certs/
	$(Q)objcopy --strip-debug $(B)/sluice-static $@

test-image: image $(TOOLS) $(DEV_VENV_STAMP) | $(APT_TEST) ## The image's root, run as its user, and the manifests of examples/istio
	$(Q)IMAGE=$(abspath $(IMAGE)) SLUICE=$(abspath $(B)/sluice-static) $(DEV_PYTHON) scripts/testrun.py --results $(RESULTS) pytest \
	    --name image tests/conformance/test_image.py tests/integration -m 'image or smoke' $(PYTEST_ARGS)
