# Compiles the generated sources into build/protos/libprotos.a; called by mk/protos.mk once they exist.

OUT := build
CC := gcc
CCACHE ?= $(shell command -v ccache)
GENERATED := $(wildcard $(OUT)/gen/protos/gen/*.c)
OBJECTS := $(GENERATED:$(OUT)/gen/protos/gen/%.c=$(OUT)/protos/%.o)

$(OUT)/protos/libprotos.a: $(OBJECTS) $(OUT)/gen/.list
	rm -f $@ && ar rcs $@ $(OBJECTS)

$(OUT)/protos/%.o: $(OUT)/gen/protos/gen/%.c
	@mkdir -p $(@D)
	$(CCACHE) $(CC) -std=gnu11 -w -O2 -g1 -fPIE -fvisibility=hidden -ffunction-sections -fdata-sections -fno-plt \
	    -I. -I$(OUT)/gen -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d)
