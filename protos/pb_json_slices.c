/* Long messages to JSON in slices: a stack of open messages instead of recursion.
 * Threads: the owner's. Spec: as pb_json_write.c, whose values these are.
 * 
 * A long message is looked at on the wire: its lists and maps are written item by item, long single
 * messages are opened in turn; all the rest is unpacked at once (the frame's `m`), in which an
 * empty message stands for each long one, so that presence and oneofs come out right. */
#include "protos/pb_json_slices.h"

#include "protos/any.h"
#include "protos/field_mask.h"
#include "protos/pb_json_write.h"
#include "protos/reflect.h"
#include "protos/wire.h"
#include "proxy/base/mem.h"
#include "proxy/base/vec.h"

/* A message that is left out of the frame's m. */
struct late_message {
    unsigned field;
    sv wire;
};
struct frame {
    struct frame *below;
    const struct proto_type *type;
    const ProtobufCMessage *m;
    sv wire; /* p NULL: m is whole */
    sv mask; /* empty: all fields */
    unsigned field;
    bool is_hidden, is_list_open;
    sv list_rest;  /* of wire, while a list is open */
    size_t item;   /* of m's list, while one is open */
    uint8_t *seen; /* by field, how often it is on the wire: 0, 1, 2 for more */
    VEC(struct late_message) late;
    struct arena arena;
};
struct pb_json_slices {
    struct pb_json_out out;
    struct frame *top;
    bool is_begun;
    sv url, wire, mask;
    const ProtobufCMessage *m;
    struct pb_json_more more; /* n 0: none */
    size_t more_at;
    struct arena scratch; /* of one slice */
};

static struct frame *frame_new(const struct proto_type *t, bool is_hidden) {
    struct frame *f = xnew(struct frame);
    f->type = t;
    f->is_hidden = is_hidden;
    arena_init(&f->arena, 0);
    return f;
}

static void frame_free(struct frame *f) {
    vec_fini(&f->late);
    arena_fini(&f->arena);
    xfree(f);
}

/* Takes f, whose object is open already. */
static void push(struct pb_json_slices *s, struct frame *f) {
    f->below = s->top;
    s->top = f;
    s->out.depth++;
}

static void pop(struct pb_json_slices *s) {
    struct frame *f = s->top;
    s->top = f->below;
    s->out.depth--;
    frame_free(f);
}

/* ---- a long message on the wire ---- */

/* Is the field a list that is written from the wire, item by item? */
static bool is_wire_list(const ProtobufCFieldDescriptor *f) {
    return reflect_is_repeated(f) && pb_json_shows_hidden(f->type);
}

static const ProtobufCFieldDescriptor *field_of(const struct frame *f, uint32_t number) {
    return protobuf_c_message_descriptor_get_field(f->type->desc, number);
}

static unsigned index_of(const struct frame *f, const ProtobufCFieldDescriptor *fd) {
    return (unsigned)(fd - f->type->desc->fields);
}

/* False: the bytes are malformed. */
static bool count_fields(struct frame *f) {
    sv rest = f->wire;
    struct wire_field w;
    f->seen = arena_zalloc(&f->arena, f->type->desc->n_fields + 1);
    while (wire_eat_field(&rest, &w)) {
        const ProtobufCFieldDescriptor *fd = field_of(f, w.number);
        if (!fd) {
            continue;
        }
        if (is_wire_list(fd) && w.type != WIRE_BYTES) {
            return false;
        }
        uint8_t *n = &f->seen[index_of(f, fd)];
        *n += *n < 2;
    }
    return !rest.n;
}

/* What is long, may be written from its own bytes and is there once: two would have to be
 * merged. */
static bool is_late(const struct frame *f, const ProtobufCFieldDescriptor *fd,
                    const struct wire_field *w) {
    return fd->type == PROTOBUF_C_TYPE_MESSAGE && w->type == WIRE_BYTES &&
           w->value.n > PB_JSON_SLICE_BYTES && f->seen[index_of(f, fd)] == 1;
}

static void add_empty(struct buf *out, uint32_t number) {
    uint64_t tag = (uint64_t)number << 3 | WIRE_BYTES;
    for (; tag >= 0x80; tag >>= 7) {
        buf_append(out, (char[1]){(char)(tag | 0x80)}, 1);
    }
    buf_append(out, (char[2]){(char)tag, 0}, 2);
}

/* All but lists and long messages. */
static void collect_rest(struct frame *f, struct buf *out) {
    sv rest = f->wire;
    const char *start = rest.p;
    struct wire_field w;
    for (; wire_eat_field(&rest, &w); start = rest.p) {
        const ProtobufCFieldDescriptor *fd = field_of(f, w.number);
        if (!fd || is_wire_list(fd)) {
            continue;
        }
        if (is_late(f, fd, &w)) {
            *vec_push(&f->late) = (struct late_message){index_of(f, fd), w.value};
            add_empty(out, w.number);
        } else {
            buf_append(out, start, (size_t)(rest.p - start));
        }
    }
}

/* NULL: the bytes are no such message. */
static struct frame *open_wire(const struct proto_type *t, sv wire, sv mask, bool is_hidden) {
    struct frame *f = frame_new(t, is_hidden);
    f->wire = wire.p ? wire : SV("");
    f->mask = arena_sv(&f->arena, mask);
    if (count_fields(f)) {
        struct buf BUF_AUTO rest;
        struct diag d;
        buf_init(&rest);
        diag_init(&d);
        collect_rest(f, &rest);
        f->m = proto_unpack(t->desc, buf_pullup(&rest, buf_len(&rest)), &f->arena, &d);
        diag_fini(&d);
    }
    if (!f->m) {
        frame_free(f);
        return NULL;
    }
    return f;
}

/* ---- values ---- */

static bool is_plain(const struct proto_type *t) { return t->kind == PROTO_KIND_PLAIN; }

/* Is there room for one more open message? */
static bool has_room(const struct pb_json_slices *s) {
    return s->out.depth < PB_JSON_WRITE_DEPTH_MAX;
}

/* The list that is appended to is there, then. */
static void expect_more(const struct pb_json_slices *s, struct frame *f) {
    const ProtobufCFieldDescriptor *fd = field_of(f, s->more.field);
    CHECK(fd && is_wire_list(fd));
    f->seen[index_of(f, fd)] = 2;
}

static void put_any(struct pb_json_slices *s, sv url, sv value, sv mask, bool is_hidden) {
    const struct proto_type *t = any_type(url);
    bool has_more = !s->top && s->more.n;
    bool is_sliced =
        t && is_plain(t) && (value.n > PB_JSON_SLICE_BYTES || mask.n || has_more) && has_room(s);
    struct frame *f = is_sliced ? open_wire(t, value, mask, is_hidden) : NULL;
    if (!f) { /* short, of a type without fields of its own, or no message at all */
        Pb__Any any;
        pb__any__init(&any);
        any.type_url = arena_cstr(&s->scratch, url);
        any.value = (ProtobufCBinaryData){value.n, (uint8_t *)(uintptr_t)value.p};
        pb_json_write_message(&s->out, proto_type_of(any.base.descriptor), &any.base, is_hidden);
        return;
    }
    json_obj(s->out.w);
    json_key(s->out.w, SV("@type"));
    json_str(s->out.w, url);
    if (has_more) {
        expect_more(s, f);
    }
    push(s, f);
}

/* A google.protobuf.Any that is not unpacked itself: its payload may be long. */
static void put_wire_any(struct pb_json_slices *s, sv wire, sv mask, bool is_hidden) {
    struct wire_field w;
    sv url = SV(""), value = SV_NULL;
    while (wire_eat_field(&wire, &w)) {
        if (w.number <= 2 && w.type == WIRE_BYTES) {
            *(w.number == 1 ? &url : &value) = w.value;
        }
    }
    put_any(s, url, value, mask, is_hidden);
}

static void put_wire_message(struct pb_json_slices *s, const struct proto_type *t, sv wire, sv mask,
                             bool is_hidden) {
    if (t->kind == PROTO_KIND_ANY) {
        put_wire_any(s, wire, mask, is_hidden);
        return;
    }
    struct frame *f = is_plain(t) && (wire.n > PB_JSON_SLICE_BYTES || mask.n) && has_room(s)
                          ? open_wire(t, wire, mask, is_hidden)
                          : NULL;
    if (f) {
        json_obj(s->out.w);
        push(s, f);
        return;
    }
    struct diag d;
    diag_init(&d);
    const ProtobufCMessage *m = proto_unpack(t->desc, wire, &s->scratch, &d);
    if (m) {
        pb_json_write_message(&s->out, t, m, is_hidden);
    } else {
        pb_json_write_base64(s->out.w, is_hidden ? PB_JSON_REDACTED : wire);
    }
    diag_fini(&d);
}

static void put_message(struct pb_json_slices *s, const struct proto_type *t,
                        const ProtobufCMessage *m, sv mask, bool is_hidden) {
    if (t->kind == PROTO_KIND_ANY && m) {
        const Pb__Any *any = (const Pb__Any *)(const void *)m;
        put_any(s, sv_cstr(any->type_url), sv_from(any->value.data, any->value.len), mask,
                is_hidden);
    } else if (!m || !is_plain(t) || !has_room(s)) {
        pb_json_write_message(&s->out, t, m, is_hidden);
    } else {
        struct frame *f = frame_new(t, is_hidden);
        f->m = m;
        f->mask = arena_sv(&f->arena, mask);
        json_obj(s->out.w);
        push(s, f);
    }
}

static void put_wire_entry(struct pb_json_slices *s, const struct proto_type *entry, sv wire,
                           bool is_hidden) {
    struct diag d;
    diag_init(&d);
    const ProtobufCMessage *e = proto_unpack(entry->desc, wire, &s->scratch, &d);
    if (e) {
        pb_json_write_entry(&s->out, entry, e, is_hidden);
    }
    diag_fini(&d);
}

/* ---- lists ---- */

static void put_wire_item(struct pb_json_slices *s, struct frame *f, unsigned i, sv value,
                          bool is_hidden) {
    const ProtobufCFieldDescriptor *fd = &f->type->desc->fields[i];
    if (f->type->fields[i].flags & PROTO_FIELD_MAP) {
        put_wire_entry(s, proto_field_type(f->type, i), value, is_hidden);
    } else if (fd->type == PROTOBUF_C_TYPE_MESSAGE) {
        put_wire_message(s, proto_field_type(f->type, i), value, SV_NULL, is_hidden);
    } else if (fd->type == PROTOBUF_C_TYPE_STRING) {
        json_str(s->out.w, is_hidden ? PB_JSON_REDACTED : value);
    } else {
        pb_json_write_base64(s->out.w, is_hidden ? PB_JSON_REDACTED : value);
    }
}

static bool is_sensitive(const struct pb_json_slices *s, const struct frame *f, unsigned i) {
    return f->is_hidden ||
           ((s->out.flags & PB_JSON_REDACT) && (f->type->fields[i].flags & PROTO_FIELD_SENSITIVE));
}

/* The next item of the open list on the wire, or of what is appended to it. */
static bool next_wire_item(struct pb_json_slices *s, struct frame *f, uint32_t field, sv *item) {
    struct wire_field w;
    while (wire_eat_field(&f->list_rest, &w)) {
        if (w.number == field) {
            *item = w.value;
            return true;
        }
    }
    if (f->below || field != s->more.field || s->more_at == s->more.n) {
        return false;
    }
    *item = s->more.item(s->more.user, s->more_at++);
    return true;
}

/* The next item of the open list; false: there is none. */
static bool put_item(struct pb_json_slices *s, struct frame *f) {
    const ProtobufCFieldDescriptor *fd = &f->type->desc->fields[f->field];
    bool is_hidden = is_sensitive(s, f, f->field);
    if (f->wire.p) {
        sv item;
        bool has = next_wire_item(s, f, fd->id, &item);
        if (has) {
            put_wire_item(s, f, f->field, item, is_hidden);
        }
        return has;
    }
    if (f->item == reflect_count(f->m, fd)) {
        return false;
    }
    const struct proto_type *t = proto_field_type(f->type, f->field);
    const ProtobufCMessage *item = reflect_message(reflect_item(f->m, fd, f->item++));
    if (f->type->fields[f->field].flags & PROTO_FIELD_MAP) {
        pb_json_write_entry(&s->out, t, item, is_hidden);
    } else {
        put_message(s, t, item, SV_NULL, is_hidden);
    }
    return true;
}

/* Is field i a list that is written item by item, and not empty? */
static bool is_sliced_list(const struct frame *f, unsigned i) {
    const ProtobufCFieldDescriptor *fd = &f->type->desc->fields[i];
    if (f->wire.p) {
        return is_wire_list(fd) && f->seen[i] > 0;
    }
    return reflect_is_repeated(fd) && fd->type == PROTOBUF_C_TYPE_MESSAGE &&
           reflect_count(f->m, fd) > 0;
}

/* ---- fields ---- */

static const struct late_message *late_of(const struct frame *f, unsigned i) {
    for (size_t k = 0; k < f->late.n; k++) {
        if (f->late.p[k].field == i) {
            return &f->late.p[k];
        }
    }
    return NULL;
}

static void open_list(struct pb_json_slices *s, struct frame *f, unsigned i) {
    json_key(s->out.w, sv_cstr(f->type->desc->fields[i].name));
    (f->type->fields[i].flags & PROTO_FIELD_MAP ? json_obj : json_arr)(s->out.w);
    f->is_list_open = true;
    f->list_rest = f->wire;
    f->item = 0;
}

/* Field i of the top frame, which may have another on top of it then. */
static void put_field(struct pb_json_slices *s, struct frame *f, unsigned i, sv mask) {
    const ProtobufCFieldDescriptor *fd = &f->type->desc->fields[i];
    bool is_hidden = is_sensitive(s, f, i), is_one = !reflect_is_repeated(fd);
    if (is_hidden && !pb_json_shows_hidden(fd->type)) {
        return;
    }
    const struct late_message *late = late_of(f, i);
    bool may_be_long = late || mask.n || !f->wire.p;
    if (may_be_long && is_one && fd->type == PROTOBUF_C_TYPE_MESSAGE && reflect_has(f->m, fd)) {
        const struct proto_type *t = proto_field_type(f->type, i);
        json_key(s->out.w, sv_cstr(fd->name));
        if (late) {
            put_wire_message(s, t, late->wire, mask, is_hidden);
        } else {
            put_message(s, t, reflect_message(reflect_member(f->m, fd)), mask, is_hidden);
        }
        return;
    }
    pb_json_write_field(&s->out, f->type, i, f->m, f->is_hidden);
}

static void step(struct pb_json_slices *s) {
    struct frame *f = s->top;
    if (f->is_list_open) {
        if (!put_item(s, f)) {
            json_end(s->out.w);
            f->is_list_open = false;
            f->field++;
        }
        return;
    }
    if (f->field == f->type->desc->n_fields) {
        json_end(s->out.w);
        pop(s);
        return;
    }
    unsigned i = f->field;
    sv inner;
    if (field_mask_select(f->mask, sv_cstr(f->type->desc->fields[i].name), &f->arena, &inner) ==
        FIELD_MASK_NOTHING) {
        f->field++;
    } else if (is_sliced_list(f, i)) {
        open_list(s, f, i);
    } else {
        f->field++;
        put_field(s, f, i, inner);
    }
}

/* ---- life ---- */

static struct pb_json_slices *new_slices(unsigned flags) {
    ASSERT(!(flags & PB_JSON_DEFAULTS));
    struct pb_json_slices *s = xnew(struct pb_json_slices);
    s->out.flags = flags;
    arena_init(&s->scratch, 4 * PB_JSON_SLICE_BYTES);
    return s;
}

struct pb_json_slices *pb_json_slices_of_any(sv url, sv wire, sv mask, unsigned flags) {
    struct pb_json_slices *s = new_slices(flags);
    s->url = url;
    s->wire = wire;
    s->mask = mask;
    return s;
}

struct pb_json_slices *pb_json_slices_of_message(const ProtobufCMessage *m, unsigned flags) {
    struct pb_json_slices *s = new_slices(flags);
    s->m = m;
    return s;
}

void pb_json_slices_append(struct pb_json_slices *s, const struct pb_json_more *more) {
    ASSERT(!s->is_begun);
    s->more = *more;
}

bool pb_json_slices_next(struct pb_json_slices *s, struct json_writer *w) {
    s->out.w = w;
    arena_reset(&s->scratch);
    if (s->is_begun) {
        ASSERT(s->top);
        step(s);
    } else if (s->m) {
        put_message(s, proto_type_of(s->m->descriptor), s->m, SV_NULL, false);
    } else {
        put_any(s, s->url, s->wire, s->mask, false);
    }
    s->is_begun = true;
    return s->top != NULL;
}

void pb_json_slices_free(struct pb_json_slices *s) {
    if (!s) {
        return;
    }
    while (s->top) {
        pop(s);
    }
    arena_fini(&s->scratch);
    xfree(s);
}
