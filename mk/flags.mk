# Compiler and linker flags, by variant.

ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(VARIANT)),clang,gcc)
endif
ifeq ($(origin CXX),default)
CXX := $(if $(filter fuzz,$(VARIANT)),clang++,g++)
endif
IS_CLANG := $(findstring clang,$(CC))
CCACHE ?= $(shell command -v ccache)

LLHTTP_SOURCES := /usr/share/llhttp
CPPFLAGS_ALL := -I. -I$(OUT)/gen -isystem $(OUT)/boringssl/include -isystem /usr/share/include/llhttp \
    -D_GNU_SOURCE $(CPPFLAGS)
WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wcast-qual -Werror
CODEGEN := -g -fvisibility=hidden -fno-common -ffunction-sections -fdata-sections -fPIE
# What hardening costs nothing that can be measured.
HARDEN := -fstack-protector-strong -fstack-clash-protection -fcf-protection
LDFLAGS_ALL := -pie -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS)

ifeq ($(VARIANT),release)
CODEGEN += -O2 $(HARDEN) -fno-plt
CPPFLAGS_ALL += -DNDEBUG -D_FORTIFY_SOURCE=2
else
CODEGEN += -O1 -fno-omit-frame-pointer -fno-optimize-sibling-calls
CPPFLAGS_ALL += -DSLUICE_DEBUG
endif
ifeq ($(VARIANT),debug)
CODEGEN += -Og
endif
ifeq ($(VARIANT),asan)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifeq ($(VARIANT),tsan)
SANITIZE := -fsanitize=thread
endif
ifeq ($(VARIANT),fuzz)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize=fuzzer-no-link
endif

ifdef LTO
CODEGEN += $(if $(IS_CLANG),-flto=thin,-flto=auto)
AR := $(if $(IS_CLANG),llvm-ar-14,gcc-ar)
# gcc's LTO objects need a linker that loads gcc's plugin; lld reads only clang's.
LDFLAGS_ALL += $(if $(IS_CLANG),-fuse-ld=lld) -O2
else
AR := ar
LDFLAGS_ALL += -fuse-ld=lld
endif
# The program itself is linked by GNU ld, which packs relative relocations: 0.8 MB less in every process.
LINKED_PACKED := $(if $(IS_CLANG)$(filter-out release,$(VARIANT)),,-fuse-ld=bfd -Wl,-z,pack-relative-relocs)

CFLAGS_ALL := -std=gnu11 $(WARNINGS) -Wmissing-prototypes $(CODEGEN) $(SANITIZE) $(CFLAGS)
CXXFLAGS_ALL := -std=c++17 $(WARNINGS) $(CODEGEN) $(SANITIZE) -fno-exceptions -fno-rtti $(CXXFLAGS)
CFLAGS_FOREIGN := -std=gnu11 -w $(CODEGEN) $(SANITIZE) $(CFLAGS)

# No library here may pull libssl or libcrypto in: BoringSSL's symbols would meet OpenSSL's (`make lint` looks).
LIBS := $(OUT)/boringssl/lib/libssl.a $(OUT)/boringssl/lib/libcrypto.a \
    -lgrpc_unsecure -lgpr -lprotobuf-c -luv -lnghttp2 -lcares -lre2 -lyaml -ljansson -lxxhash -lz \
    -lbrotlienc -lbrotlidec -lbrotlicommon -lzstd -lpcre2-8 -lstdc++ -lm -pthread

LINK = $(CC) $(CODEGEN) $(SANITIZE) $(CFLAGS) $(LDFLAGS_ALL)
