# Debian packages, the Python environments and BoringSSL: what must be there before anything compiles.
# Stamps carry a digest of the list they stand for, so an edited list is looked at again and nothing else is.

export SLUICE_CACHE
digest = $(firstword $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-12))

STAMPS := $(OUT)/.stamps
apt_stamp = $(STAMPS)/apt-$(1)-$(call digest,deps/apt.txt scripts/deps.sh)
APT_BUILD := $(call apt_stamp,build)
APT_TEST := $(call apt_stamp,test)
APT_DEV := $(call apt_stamp,dev)
VENV_STAMP := $(STAMPS)/venv-$(call digest,requirements.txt scripts/python_env.py)
DEV_VENV_STAMP := $(STAMPS)/venv-dev-$(call digest,requirements-dev.txt scripts/python_env.py)
BORINGSSL_STAMP := $(STAMPS)/boringssl-$(call digest,deps/boringssl.txt scripts/boringssl.py)

SYSTEM_PYTHON ?= /usr/bin/python3
PYTHON := $(OUT)/venv/bin/python
DEV_PYTHON := $(OUT)/venv-dev/bin/python

.PHONY: deps
deps: $(APT_BUILD) $(APT_TEST) $(APT_DEV) $(VENV_STAMP) $(DEV_VENV_STAMP) $(BORINGSSL_STAMP) ## Install every package needed to build, test and check
	@:

# A stamp counts only while what it stands for is there (the cache may have been emptied).
unless = $(if $(wildcard $(1)),,FORCE)
$(VENV_STAMP): $(call unless,$(PYTHON))
$(DEV_VENV_STAMP): $(call unless,$(DEV_PYTHON))
$(BORINGSSL_STAMP): $(call unless,$(OUT)/boringssl/lib/libssl.a)

# One apt at a time: it holds a lock.
$(APT_TEST): | $(APT_BUILD)
$(APT_DEV): | $(APT_TEST)
$(STAMPS)/apt-%:
	$(Q)scripts/deps.sh $(firstword $(subst -, ,$*))
	$(Q)mkdir -p $(@D) && touch $@

$(VENV_STAMP): | $(APT_BUILD)
	$(Q)$(SYSTEM_PYTHON) scripts/python_env.py requirements.txt $(OUT)/venv
	$(Q)mkdir -p $(@D) && touch $@

$(DEV_VENV_STAMP): | $(APT_BUILD)
	$(Q)$(SYSTEM_PYTHON) scripts/python_env.py requirements-dev.txt $(OUT)/venv-dev
	$(Q)mkdir -p $(@D) && touch $@

$(BORINGSSL_STAMP): | $(VENV_STAMP)
	$(Q)$(PYTHON) scripts/boringssl.py $(OUT)/boringssl
	$(Q)mkdir -p $(@D) && touch $@
