/* Route tables and requests for tests: a table from text format, a request from a few headers. */
#ifndef SLUICE_TESTS_SUPPORT_ROUTE_H
#define SLUICE_TESTS_SUPPORT_ROUTE_H

#include "proxy/observe/stream_info.h"
#include "proxy/route/route_table.h"
#include "tests/support/fake_compile.h"

#define ROUTE_CONFIGURATION "envoy.config.route.v3.RouteConfiguration"

/* NULL: errors are in f->diag. */
static inline struct route_table *route_table_from(struct fake_compile *f, const char *text,
                                                   const struct route_table *prev) {
    ProtobufCMessage *m = (ProtobufCMessage *)fake_msg(f, ROUTE_CONFIGURATION, text);
    return route_table_compile(&f->ctx, proto_pack(m, &f->msgs), prev);
}

/* As above, and it must be right. */
static inline struct route_table *route_table_must(struct fake_compile *f, const char *text) {
    struct route_table *t = route_table_from(f, text, NULL);
    if (!t) {
        sv why = diag_text(&f->diag);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    return t;
}

/* "authority path [name: value|…]": `more` holds lines "name: value" parted by '\n'; NULL: none. */
static inline void request_make(struct headers *h, struct arena *a, const char *host,
                                const char *path, const char *more) {
    headers_init(h, a);
    headers_add_copy(h, SV(":method"), SV("GET"));
    headers_add_copy(h, SV(":scheme"), SV("http"));
    if (host) {
        headers_add_copy(h, SV(":authority"), sv_cstr(host));
    }
    if (path) {
        headers_add_copy(h, SV(":path"), sv_cstr(path));
    }
    sv rest = sv_cstr(more);
    while (rest.n) {
        sv line = sv_cut(&rest, '\n');
        size_t at = sv_find_sv(line, SV(": "));
        headers_add_copy(h, sv_sub(line, 0, at), sv_skip(line, at + 2));
    }
}

#endif
