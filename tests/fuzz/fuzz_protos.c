/* Bytes as a message of any type: wire, JSON, YAML and text format, then everything that is done
 * with the message.
 * Input: one byte for the format, two for the type, the rest is the document. */
#include "protos/any.h"
#include "protos/findings.h"
#include "protos/pb_json.h"
#include "protos/pb_rules.h"
#include "protos/pb_text.h"
#include "protos/pb_yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static ProtobufCMessage *from_yaml(const struct proto_type *t, sv doc, struct arena *a,
                                   struct diag *d) {
    json_t *tree = pb_yaml_parse(doc, d);
    ProtobufCMessage *m = tree ? pb_json_parse(t, tree, PB_JSON_UNKNOWN_SKIP, a, d) : NULL;
    json_decref(tree);
    return m;
}

static ProtobufCMessage *read_message(unsigned format, const struct proto_type *t, sv doc,
                                      struct arena *a, struct diag *d) {
    switch (format % 4) {
    case 0:
        return proto_unpack(t->desc, doc, a, d);
    case 1:
        return pb_json_parse_text(t, doc, PB_JSON_UNKNOWN_WARN, a, d);
    case 2:
        return from_yaml(t, doc, a, d);
    default:
        return pb_text_parse(t, doc, a, d);
    }
}

/* What was read must survive being packed and read again. */
static void use(const ProtobufCMessage *m, struct arena *a, struct diag *d) {
    struct buf out BUF_AUTO;
    buf_init(&out);
    pb_rules_check(m, d);
    findings_unknown_fields(m, false, d);
    pb_json_append(&out, m, PB_JSON_REDACT, 1);
    diag_reset(d);
    ProtobufCMessage *again = proto_unpack(m->descriptor, proto_pack(m, a), a, d);
    CHECK(again != NULL);
    if (m->descriptor == &pb__any__descriptor) {
        any_unpack((const Pb__Any *)(const void *)m, SV("fuzz"), a, d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 3) {
        return 0;
    }
    const struct proto_type *t = &proto_types[(data[1] << 8 | data[2]) % proto_types_n];
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    ProtobufCMessage *m = read_message(data[0], t, sv_from(data + 3, n - 3), &a, &d);
    if (m) {
        use(m, &a, &d);
    }
    diag_fini(&d);
    arena_fini(&a);
    chunk_cache_trim();
    return 0;
}
