# Objects, the library of everything but main.c, and the binary. Sources are found by wildcard, at any depth.

DIRS := proxy xds filters protos
FOUND := $(shell find $(wildcard $(or $(ONLY),$(DIRS))) -name '*.c' -o -name '*.cc' 2>/dev/null | LC_ALL=C sort)
MAIN := proxy/main.c
SOURCES := $(filter-out $(MAIN),$(FOUND))
OBJ := $(B)/obj
object = $(addprefix $(OBJ)/,$(addsuffix .o,$(basename $(1))))
LLHTTP_OBJECTS := $(foreach f,llhttp http api,$(OBJ)/llhttp/$(f).o)
OBJECTS := $(call object,$(SOURCES)) $(LLHTTP_OBJECTS)
LIB := $(B)/libsluice$(if $(ONLY),-only).a
LINKED_LIBS = $(LIB) $(PROTO_LIB) $(LIBS)

# Rewritten only when its content changes, so that what depends on it is remade exactly then.
# $(call remember,text)
remember = @mkdir -p $(@D); printf '%s\n' '$(1)' >$@.$$$$; cmp -s $@.$$$$ $@ && rm -f $@.$$$$ || mv $@.$$$$ $@

FLAGS_FILE := $(B)/.flags
$(FLAGS_FILE): FORCE
	$(call remember,$(subst ','\'',$(CC) $(CFLAGS_ALL) $(CPPFLAGS_ALL) $(CXX) $(CXXFLAGS_ALL)))
MEMBERS_FILE := $(B)/.members$(if $(ONLY),-only)
$(MEMBERS_FILE): FORCE
	$(call remember,$(OBJECTS))

# Present before anything compiles, yet no reason to compile anew (headers are tracked one by one).
READY := $(APT_BUILD) $(BORINGSSL_STAMP) $(PROTO_LIST)

$(OBJ)/%.o: %.c $(FLAGS_FILE) | $(READY)
	@mkdir -p $(@D)
	$(Q)$(CCACHE) $(CC) $(CFLAGS_ALL) $(CPPFLAGS_ALL) -MMD -MP -c -o $@ $<

# The commit is compiled into one object only.
GIT_SHA := $(shell git rev-parse HEAD 2>/dev/null)
VERSION_FILE := $(B)/.version
$(VERSION_FILE): FORCE
	$(call remember,$(subst ','\'',$(VERSION_FLAGS)))
VERSION_FLAGS := $(if $(GIT_SHA),-DSLUICE_GIT_SHA='"$(GIT_SHA)"' \
    -DSLUICE_GIT_STATUS='"$(if $(shell git status --porcelain -uno 2>/dev/null),Modified,Clean)"')
$(OBJ)/proxy/base/version.o: $(VERSION_FILE)
$(OBJ)/proxy/base/version.o: private CPPFLAGS_ALL += $(VERSION_FLAGS)

$(OBJ)/%.o: %.cc $(FLAGS_FILE) | $(READY)
	@mkdir -p $(@D)
	$(Q)$(CCACHE) $(CXX) $(CXXFLAGS_ALL) $(CPPFLAGS_ALL) -MMD -MP -c -o $@ $<

$(LLHTTP_OBJECTS): $(OBJ)/llhttp/%.o: $(FLAGS_FILE) | $(READY)
	@mkdir -p $(@D)
	$(Q)$(CCACHE) $(CC) $(CFLAGS_FOREIGN) $(CPPFLAGS_ALL) -c -o $@ $(LLHTTP_SOURCES)/$*.c

$(LIB): $(OBJECTS) $(MEMBERS_FILE)
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJECTS)

$(B)/sluice: $(call object,$(MAIN)) $(LIB) $(PROTO_LIB) | $(READY)
	@mkdir -p $(@D)
	$(Q)$(LINK) $(LINKED_PACKED) -o $@.new $(call object,$(MAIN)) $(LINKED_LIBS) && mv $@.new $@

-include $(patsubst %.o,%.d,$(OBJECTS) $(call object,$(MAIN)))
