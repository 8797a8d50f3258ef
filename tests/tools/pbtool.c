/* The protobuf layer as a filter for tests: one request after another on stdin, one answer each on
 * stdout.
 *   request  COMMAND TYPE LENGTH\n followed by LENGTH bytes
 *   answer   ok|error LENGTH\n followed by LENGTH bytes
 * Commands: json2pb pb2json pb2json-redacted pb2json-defaults yaml2json yaml2pb text2pb rules
 * unknown any fields. */
#include <errno.h>
#include <stdio.h>

#include "protos/any.h"
#include "protos/findings.h"
#include "protos/pb_json.h"
#include "protos/pb_rules.h"
#include "protos/pb_text.h"
#include "protos/pb_yaml.h"
#include "protos/reflect.h"
#include "proxy/base/mem.h"

struct request {
    const struct proto_type *type; /* NULL where the command needs none */
    sv input;
    struct arena arena;
    struct diag diag;
    struct buf out;
};

static bool pack(struct request *r, const ProtobufCMessage *m) {
    if (m) {
        buf_append_sv(&r->out, proto_pack(m, &r->arena));
    }
    return m != NULL;
}

static ProtobufCMessage *unpack(struct request *r) {
    return proto_unpack(r->type->desc, r->input, &r->arena, &r->diag);
}

static bool json2pb(struct request *r) {
    return pack(r,
                pb_json_parse_text(r->type, r->input, PB_JSON_UNKNOWN_ERROR, &r->arena, &r->diag));
}

static bool write_json(struct request *r, unsigned flags) {
    ProtobufCMessage *m = unpack(r);
    if (m) {
        pb_json_append(&r->out, m, flags, 0);
    }
    return m != NULL;
}

static bool pb2json(struct request *r) { return write_json(r, 0); }
static bool pb2json_redacted(struct request *r) { return write_json(r, PB_JSON_REDACT); }
static bool pb2json_defaults(struct request *r) { return write_json(r, PB_JSON_DEFAULTS); }

static bool yaml2json(struct request *r) {
    json_t *tree = pb_yaml_parse(r->input, &r->diag);
    if (!tree) {
        return false;
    }
    char *text = json_dumps(tree, JSON_ENCODE_ANY | JSON_COMPACT);
    buf_append_sv(&r->out, sv_cstr(text));
    free(text);
    json_decref(tree);
    return true;
}

static bool yaml2pb(struct request *r) {
    json_t *tree = pb_yaml_parse(r->input, &r->diag);
    if (!tree) {
        return false;
    }
    bool ok = pack(r, pb_json_parse(r->type, tree, PB_JSON_UNKNOWN_ERROR, &r->arena, &r->diag));
    json_decref(tree);
    return ok;
}

static bool text2pb(struct request *r) {
    return pack(r, pb_text_parse(r->type, r->input, &r->arena, &r->diag));
}

static bool rules(struct request *r) {
    ProtobufCMessage *m = unpack(r);
    return m && pb_rules_check(m, &r->diag);
}

static bool unknown(struct request *r) {
    ProtobufCMessage *m = unpack(r);
    return m && findings_unknown_fields(m, true, &r->diag) == 0;
}

static bool any(struct request *r) {
    ProtobufCMessage *m = unpack(r);
    m = m ? any_unpack((const Pb__Any *)(void *)m, SV("extension"), &r->arena, &r->diag) : NULL;
    return pack(r, m);
}

/* Every field of every message: "type field number label kind oneof sub-type flags json-name". */
static bool fields(struct request *r) {
    for (size_t k = 0; k < proto_types_n; k++) {
        const struct proto_type *t = &proto_types[k];
        buf_printf(&r->out, "message %s %u\n", t->name, t->flags);
        for (unsigned i = 0; i < t->desc->n_fields; i++) {
            const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
            const struct proto_type *inner = proto_field_type(t, i);
            const char *of = inner                             ? inner->name
                             : f->type == PROTOBUF_C_TYPE_ENUM ? reflect_enum_of(f)->name
                                                               : "-";
            buf_printf(&r->out, "field %s %u %d %d %u %s %u %s\n", f->name, f->id,
                       reflect_is_repeated(f), (int)f->type,
                       reflect_in_oneof(f) ? f->quantifier_offset : 0, of, t->fields[i].flags,
                       t->fields[i].json_name ? t->fields[i].json_name : "-");
        }
    }
    return true;
}

static const struct {
    const char *name;
    bool (*run)(struct request *r);
} commands[] = {
    {"json2pb", json2pb},
    {"pb2json", pb2json},
    {"pb2json-redacted", pb2json_redacted},
    {"pb2json-defaults", pb2json_defaults},
    {"yaml2json", yaml2json},
    {"yaml2pb", yaml2pb},
    {"text2pb", text2pb},
    {"rules", rules},
    {"unknown", unknown},
    {"any", any},
    {"fields", fields},
};

static bool run(const char *name, struct request *r) {
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return commands[i].run(r);
        }
    }
    return diag_error(&r->diag, "unknown command %s", name);
}

static void answer(const char *status, sv text) {
    printf("%s %zu\n", status, text.n);
    if (text.n) {
        fwrite(text.p, 1, text.n, stdout);
    }
    fflush(stdout);
}

static void handle(const char *command, const char *type, char *input, size_t n) {
    struct request r = {.type = proto_type_find(sv_cstr(type)), .input = sv_from(input, n)};
    arena_init(&r.arena, 0);
    diag_init(&r.diag);
    buf_init(&r.out);
    if (!r.type && strcmp(type, "-") != 0) {
        diag_error(&r.diag, "unknown type %s", type);
    } else if (run(command, &r)) {
        answer("ok", buf_pullup(&r.out, buf_len(&r.out)));
        goto out;
    }
    answer("error", diag_text(&r.diag));
out:
    buf_fini(&r.out);
    diag_fini(&r.diag);
    arena_fini(&r.arena);
}

int main(void) {
    char command[32], type[256];
    size_t n;
    while (scanf("%31s %255s %zu", command, type, &n) == 3 && getchar() == '\n') {
        char *input = xalloc(n + 1);
        if (fread(input, 1, n, stdin) != n) {
            xfree(input);
            return 1;
        }
        handle(command, type, input, n);
        xfree(input);
    }
    chunk_cache_trim();
    return 0;
}
