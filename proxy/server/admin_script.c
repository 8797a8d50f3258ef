/* Elements of admin's pages, written a bit at a time: see admin_script.h. */
#include "proxy/server/admin_script.h"

#include <stdio.h>
#include <time.h>

#include "protos/field_mask.h"

enum op_kind { OP_OBJ, OP_ARR, OP_END, OP_TEXT, OP_TIME, OP_RESOURCE, OP_MESSAGE };
struct admin_op {
    enum op_kind kind;
    enum resource_type type; /* OP_RESOURCE */
    const char *key;
    sv value, mask; /* of OP_RESOURCE: wire bytes */
    uint64_t us;
    const ProtobufCMessage *message;
    struct pb_json_more more; /* n 0: none */
};

void admin_script_init(struct admin_script *s) {
    *s = (struct admin_script){0};
    arena_init(&s->arena, 0);
}

void admin_script_fini(struct admin_script *s) {
    pb_json_slices_free(s->slices);
    vec_fini(&s->ops);
    arena_fini(&s->arena);
}

void admin_script_begin(struct admin_script *s, sv mask) {
    ASSERT(!s->slices);
    arena_reset(&s->arena);
    vec_clear(&s->ops);
    s->at = 0;
    s->depth = s->hidden = 0;
    s->masks[0] = arena_sv(&s->arena, mask);
}

/* ---- adding ---- */

/* NULL: the mask leaves nothing of it. */
static struct admin_op *add(struct admin_script *s, enum op_kind kind, const char *key) {
    sv inner = s->masks[s->depth];
    if (s->hidden || (key && field_mask_select(s->masks[s->depth], sv_cstr(key), &s->arena,
                                               &inner) == FIELD_MASK_NOTHING)) {
        return NULL;
    }
    struct admin_op *op = vec_push(&s->ops);
    op->kind = kind;
    op->key = key;
    op->mask = inner;
    return op;
}

static void open_op(struct admin_script *s, enum op_kind kind, const char *key) {
    const struct admin_op *op = add(s, kind, key);
    if (!op) {
        s->hidden++;
        return;
    }
    CHECK(s->depth + 1 < ADMIN_SCRIPT_DEPTH_MAX);
    s->masks[++s->depth] = kind == OP_ARR ? SV_NULL : op->mask; /* a list is shown as a whole */
}

void admin_script_obj(struct admin_script *s, const char *key) { open_op(s, OP_OBJ, key); }
void admin_script_arr(struct admin_script *s, const char *key) { open_op(s, OP_ARR, key); }

void admin_script_end(struct admin_script *s) {
    if (s->hidden) {
        s->hidden--;
        return;
    }
    CHECK(s->depth > 0);
    s->depth--;
    *vec_push(&s->ops) = (struct admin_op){.kind = OP_END};
}

void admin_script_text(struct admin_script *s, const char *key, sv text) {
    struct admin_op *op = text.n ? add(s, OP_TEXT, key) : NULL;
    if (op) {
        op->value = text;
    }
}

void admin_script_time(struct admin_script *s, const char *key, uint64_t wall_us) {
    struct admin_op *op = add(s, OP_TIME, key);
    if (op) {
        op->us = wall_us;
    }
}

void admin_script_resource_with(struct admin_script *s, const char *key, enum resource_type t,
                                sv wire, const struct pb_json_more *more) {
    struct admin_op *op = add(s, OP_RESOURCE, key);
    if (op) {
        op->type = t;
        op->value = wire;
        op->more = *more;
    }
}

void admin_script_resource(struct admin_script *s, const char *key, enum resource_type t, sv wire) {
    admin_script_resource_with(s, key, t, wire, &(struct pb_json_more){0});
}

void admin_script_message(struct admin_script *s, const char *key, const ProtobufCMessage *m) {
    struct admin_op *op = add(s, OP_MESSAGE, key);
    if (op) {
        op->message = m;
    }
}

bool admin_script_is_empty(const struct admin_script *s) { return s->ops.n == 0; }

/* ---- writing ---- */

static void write_time(struct json_writer *w, uint64_t us) {
    char text[40], full[64];
    time_t t = (time_t)(us / 1000000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(full, sizeof(full), "%s.%03uZ", text, (unsigned)(us / 1000 % 1000));
    json_str(w, sv_from(full, (size_t)n));
}

static void write_op(struct admin_script *s, const struct admin_op *op, struct json_writer *w) {
    if (op->key) {
        json_key(w, sv_cstr(op->key));
    }
    switch (op->kind) {
    case OP_OBJ:
        json_obj(w);
        break;
    case OP_ARR:
        json_arr(w);
        break;
    case OP_END:
        json_end(w);
        break;
    case OP_TEXT:
        json_str(w, op->value);
        break;
    case OP_TIME:
        write_time(w, op->us);
        break;
    case OP_RESOURCE:
        s->slices = pb_json_slices_of_any(sv_cstr(resource_types[op->type].type_url), op->value,
                                          op->mask, PB_JSON_REDACT);
        pb_json_slices_append(s->slices, &op->more);
        break;
    case OP_MESSAGE:
        s->slices = pb_json_slices_of_message(op->message, PB_JSON_REDACT);
        break;
    }
}

bool admin_script_run(struct admin_script *s, struct json_writer *w) {
    if (s->slices) {
        if (!pb_json_slices_next(s->slices, w)) {
            pb_json_slices_free(s->slices);
            s->slices = NULL;
        }
        return true;
    }
    if (s->at == s->ops.n) {
        return false;
    }
    write_op(s, &s->ops.p[s->at++], w);
    return true;
}
