# Compiles the generated sources into $(B)/libprotos.a; called by mk/protos.mk once they exist.
OUT := build
Q := $(if $(V),,@)
include mk/flags.mk

GENERATED := $(wildcard $(OUT)/gen/protos/gen/*.c)
OBJECTS := $(GENERATED:$(OUT)/gen/%.c=$(B)/obj/gen/%.o)

$(B)/libprotos.a: $(OBJECTS) $(OUT)/gen/.list
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJECTS)

# Tables, not code: sanitizers would find nothing in them and slow everything.
$(B)/obj/gen/%.o: $(OUT)/gen/%.c
	@mkdir -p $(@D)
	$(Q)$(CCACHE) $(CC) -std=gnu11 -w -O2 -g -fPIE -fvisibility=hidden -ffunction-sections -fdata-sections \
	    $(CPPFLAGS_ALL) -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d)
