/* See api/set_filter_state.h. */
#include "proxy/api/set_filter_state.h"

#include "protos/gen/common_set_filter_state.pb-c.h"
#include "proxy/base/buf.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"

struct value {
    sv name;
    struct substitution_format format;
    bool skips_empty, is_read_only, is_address;
    enum filter_state_sharing sharing;
};
struct set_filter_state {
    size_t n;
    struct value v[];
};

/* The objects that something here looks at under their own names. Any name may hold a string
 * ("envoy.string"), for matchers, logs and header values. */
static const struct object {
    const char *name;
    bool is_address; /* IP and port: a text that is none makes no object */
} objects[] = {
    {"envoy.string", false},
    {"envoy.tcp_proxy.cluster", false},
    {"envoy.upstream.dynamic_host", false},
    {"envoy.upstream.dynamic_port", false},
    {"envoy.filters.listener.original_dst.local_ip", true},
    {"envoy.filters.listener.original_dst.remote_ip", true},
    {"envoy.network.transport_socket.original_dst_address", true},
};

static const struct object *find_object(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
        if (!strcmp(objects[i].name, name)) {
            return &objects[i];
        }
    }
    return NULL;
}

static bool compile_value(struct compile_ctx *ctx, const CommonSetFilterState__FilterStateValue *m,
                          struct value *out) {
    const char *factory = *m->factory_key ? m->factory_key : m->object_key;
    const struct object *object = find_object(factory);
    if (!object) {
        return diag_error(ctx->diag,
                          "'%s' does not have an object factory here: use \"envoy.string\" or an "
                          "object of tcp_proxy, of the dynamic forward proxy or of original "
                          "destinations",
                          factory);
    }
    *out = (struct value){.name = arena_sv(ctx->arena, sv_cstr(m->object_key)),
                          .skips_empty = m->skip_if_empty,
                          .is_address = object->is_address,
                          .is_read_only = m->read_only,
                          .sharing = (enum filter_state_sharing)m->shared_with_upstream};
    DIAG_FIELD(ctx->diag, "format_string");
    return substitution_format_compile(ctx, m->format_string, &out->format);
}

bool set_filter_state_compile(struct compile_ctx *ctx, const char *field, const void *const *msgs,
                              size_t n, const struct set_filter_state **out) {
    *out = NULL;
    if (!n) {
        return true;
    }
    unsigned before = diag_errors(ctx->diag);
    struct set_filter_state *s = arena_zalloc(ctx->arena, sizeof(*s) + n * sizeof(s->v[0]));
    s->n = n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        compile_value(ctx, msgs[i], &s->v[i]);
    }
    *out = s;
    return diag_errors(ctx->diag) == before;
}

void set_filter_state_apply(const struct set_filter_state *s, struct stream_info *si) {
    for (size_t i = 0; s && i < s->n; i++) {
        const struct value *v = &s->v[i];
        struct buf BUF_AUTO b;
        buf_init(&b);
        substitution_format_write(&v->format, si, &b);
        sv text = buf_pullup(&b, buf_len(&b));
        struct addr a;
        if ((v->skips_empty && !text.n) || (v->is_address && !addr_parse_ip_port(text, &a))) {
            continue;
        }
        if (!si->filter_state) {
            si->filter_state = filter_state_new(si->arena, NULL);
        }
        filter_state_set(si->filter_state, v->name, text, NULL, v->is_read_only, v->sharing);
    }
}
