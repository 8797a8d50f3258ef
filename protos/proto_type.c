/* Lookups in the generated tables of messages and enum values.
 * Threads: any; the tables are constant.
 * Not here: the tables themselves (build/gen/protos/gen/registry.c, written by gen.py). */
#include "protos/proto_type.h"

const struct proto_type *proto_type_find(sv name) {
    size_t low = 0, high = proto_types_n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = sv_cmp(name, sv_cstr(proto_types[mid].name));
        if (c == 0) {
            return &proto_types[mid];
        }
        if (c < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

const struct proto_type *proto_type_of(const ProtobufCMessageDescriptor *desc) {
    const struct proto_type *t = proto_type_find(sv_cstr(desc->name));
    return t && t->desc == desc ? t : NULL;
}

unsigned proto_enum_value_flags(const ProtobufCEnumDescriptor *desc, int value) {
    for (size_t i = 0; i < proto_enum_values_n; i++) {
        if (proto_enum_values[i].desc == desc && proto_enum_values[i].value == value) {
            return proto_enum_values[i].flags;
        }
    }
    return 0;
}
