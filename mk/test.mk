# Unit, integration and further tests; scripts/testrun.py runs them and counts.

UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
SUPPORT_SOURCES := $(wildcard tests/support/*.c)
SUPPORT_OBJECTS := $(call object,$(SUPPORT_SOURCES))
UNIT_ALL := $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT_SOURCES))
UNIT_TESTS := $(if $(T),$(addprefix $(B)/unit/,$(basename $(notdir $(T)))),$(UNIT_ALL))
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(FUZZ_SOURCES))
FUZZ_SECONDS ?= 60

# A test may say more for its own link line: a line `/* link: -Wl,--wrap=foo */`.
extra_link = $(shell sed -n 's|^/\* link: \(.*\) \*/|\1|p' $(1))

$(UNIT_ALL): $(B)/unit/%: $(OBJ)/tests/unit/%.o $(SUPPORT_OBJECTS) $(LIB) $(PROTO_LIB) | $(APT_TEST)
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@.new $< $(SUPPORT_OBJECTS) $(LINKED_LIBS) -lcmocka $(call extra_link,tests/unit/$*.c) && mv $@.new $@

$(B)/fuzz/%: $(OBJ)/tests/fuzz/%.o $(SUPPORT_OBJECTS) $(LIB) $(PROTO_LIB) | $(APT_TEST)
	@mkdir -p $(@D)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@.new $< $(SUPPORT_OBJECTS) $(LINKED_LIBS) $(call extra_link,tests/fuzz/$*.c) && mv $@.new $@

# Programs that tests run beside the proxy.
TOOL_SOURCES := $(wildcard tests/tools/*.c)
TOOLS := $(patsubst tests/tools/%.c,$(B)/tools/%,$(TOOL_SOURCES))
$(TOOLS): $(B)/tools/%: $(OBJ)/tests/tools/%.o $(LIB) $(PROTO_LIB) | $(APT_TEST)
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@.new $< $(LINKED_LIBS) && mv $@.new $@

TEST_OBJECTS := $(call object,$(UNIT_SOURCES) $(SUPPORT_SOURCES) $(FUZZ_SOURCES) $(TOOL_SOURCES))
.SECONDARY: $(TEST_OBJECTS)
$(TEST_OBJECTS): | $(APT_TEST)
-include $(TEST_OBJECTS:.o=.d)

RESULTS := $(B)/results
RUN_TESTS = $(PYTHON) scripts/testrun.py --results $(RESULTS)
PYTEST = SLUICE=$(abspath $(B)/sluice) $(RUN_TESTS) pytest
# The real Envoy, where its package keeps it.
PEERS = SLUICE=$(abspath $(B)/sluice) ENVOY=$(abspath $(wildcard $(OUT)/venv-dev/lib/python3*/site-packages/envoy/_bin/envoy))
# Sanitizer builds run these: the whole suite would take too long there.
SUBSET ?= smoke

export ASAN_OPTIONS ?= detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export LSAN_OPTIONS ?= suppressions=$(CURDIR)/scripts/lsan.supp:print_suppressions=0
export TSAN_OPTIONS ?= suppressions=$(CURDIR)/scripts/tsan.supp:ignore_noninstrumented_modules=1:second_deadlock_stack=1

.PHONY: test test-unit test-integration test-subset asan tsan parity protocol churn scale soak rotation bench fuzz-smoke
.PHONY: conformance conformance-istio conformance-gocp
test: $(APT_TEST) $(VENV_STAMP) ## Unit, then integration tests; the last line sums both up
	$(Q)rm -rf $(RESULTS)
	$(Q)$(MAKE) test-unit || :
	$(Q)$(MAKE) test-integration || :
	$(Q)$(RUN_TESTS) sum unit integration

test-unit: $(UNIT_TESTS) $(VENV_STAMP) ## Unit tests; T=test_buf for one
	$(Q)$(RUN_TESTS) unit $(UNIT_TESTS)

test-integration: $(B)/sluice $(TOOLS) $(VENV_STAMP) | $(APT_TEST) ## The proxy among real clients, servers and control planes
	$(Q)$(PYTEST) --name integration -n 2 tests/integration tests/protocol $(PYTEST_ARGS)

test-subset: $(B)/sluice $(TOOLS) $(VENV_STAMP) | $(APT_TEST)
	$(Q)$(PYTEST) --name integration -n 2 -m $(SUBSET) tests/integration tests/protocol $(PYTEST_ARGS)

asan tsan: $(APT_TEST) $(VENV_STAMP)
	$(Q)rm -rf $(OUT)/$@/results
	$(Q)$(MAKE) VARIANT=$@ test-unit || :
	$(Q)$(MAKE) VARIANT=$@ test-subset || :
	$(Q)$(PYTHON) scripts/testrun.py --results $(OUT)/$@/results sum unit integration
asan: ## Unit tests and the integration subset under ASan and UBSan
tsan: ## Unit tests and the integration subset under TSan

parity: $(B)/sluice $(DEV_VENV_STAMP) | $(APT_TEST) ## Same config, same request: sluice beside a real Envoy
	$(Q)$(PEERS) $(DEV_PYTHON) scripts/testrun.py --results $(RESULTS) pytest \
	    --name parity tests/parity $(PYTEST_ARGS)

protocol: $(B)/sluice $(DEV_VENV_STAMP) | $(APT_TEST) ## The xDS protocol cases: sluice, then a real Envoy to prove them
	$(Q)$(PEERS) $(DEV_PYTHON) scripts/testrun.py --results $(RESULTS) pytest \
	    --name protocol -n 2 tests/protocol $(PYTEST_ARGS)
	$(Q)$(PEERS) $(DEV_PYTHON) scripts/testrun.py --results $(RESULTS) pytest \
	    --name protocol-envoy -n 4 tests/protocol --peer envoy $(PYTEST_ARGS)

conformance: $(B)/sluice $(DEV_VENV_STAMP) | $(APT_TEST) ## h2spec and h2load on h2c and TLS, with a real Envoy to compare
	$(Q)$(PEERS) $(DEV_PYTHON) scripts/testrun.py --results $(RESULTS) pytest \
	    --name conformance tests/conformance/test_h2spec.py $(PYTEST_ARGS)

scale: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## What one change costs among 100,000 resources (SLUICE_SCALE: services, two each)
	$(Q)SLUICE_SCALE=$${SLUICE_SCALE:-50000} $(PYTEST) --name scale tests/integration/test_scale.py -k 'one_change or config_thread' --timeout=0 $(PYTEST_ARGS)

churn: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## 1000 (SLUICE_CHURN) random updates below load: nothing fails, nothing grows
	$(Q)$(PYTEST) --name churn tests/conformance/test_churn.py $(PYTEST_ARGS)

SLUICE_SOAK ?= 600
soak: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## SLUICE_SOAK (600) seconds of a control plane that comes and goes, below load
	$(Q)SLUICE_SOAK=$(SLUICE_SOAK) $(PYTEST) --name soak tests/integration/test_faults.py -k flapping $(PYTEST_ARGS)

rotation: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## SLUICE_ROTATION_SECONDS (3600) of new certificates each second below mutual TLS
	$(Q)$(PYTEST) --name rotation --timeout=0 tests/conformance/test_rotation.py $(PYTEST_ARGS)

conformance-istio: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## Istio's own pilot and agent against sluice
	$(Q)$(PYTEST) --name conformance-istio tests/conformance/istio $(PYTEST_ARGS)

conformance-gocp: $(B)/sluice $(VENV_STAMP) | $(APT_TEST) ## go-control-plane's caches: 200 (SLUICE_GOCP) snapshots a transport; DATAPLANE= for another proxy
	$(Q)$(PYTEST) --name conformance-gocp tests/gocp $(PYTEST_ARGS)

bench: $(B)/sluice $(DEV_VENV_STAMP) | $(APT_DEV) ## Benchmarks with their budgets; nothing else should run
	$(Q)$(PEERS) $(DEV_PYTHON) tests/bench/run.py $(BENCH_ARGS)

bench-sidecar: $(B)/sluice $(DEV_VENV_STAMP) | $(APT_DEV) ## CPU, memory and latency of sidecars that istiod programs, beside a real Envoy
	$(Q)$(PEERS) $(DEV_PYTHON) tests/bench/sidecar_cost.py $(BENCH_ARGS)

.PHONY: fuzz-run bench-sidecar
fuzz-smoke: ## Each fuzz target for FUZZ_SECONDS (60)
	$(Q)$(MAKE) VARIANT=fuzz fuzz-run
fuzz-run: $(FUZZ_TARGETS) $(VENV_STAMP)
	$(Q)$(PYTHON) tests/fuzz/seeds.py $(B)/corpus
	$(Q)$(RUN_TESTS) fuzz --seconds $(FUZZ_SECONDS) --corpus tests/fuzz/corpus --work $(B)/corpus $(FUZZ_TARGETS)
