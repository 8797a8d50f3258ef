/* TLS messages from text format with PEM in them. Include behind pb_text users' own headers. */
#ifndef SLUICE_TESTS_TLS_TEXT_H
#define SLUICE_TESTS_TLS_TEXT_H

#include "protos/pb_text.h"
#include "tests/support/unit.h"

/* `text` as a text-format string literal, quotes included. */
static inline const char *tls_quoted(struct arena *a, const char *text) {
    size_t n = strlen(text), at = 0;
    char *out = (char *)arena_alloc(a, 2 * n + 3);
    out[at++] = '"';
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' || text[i] == '"' || text[i] == '\\') {
            out[at++] = '\\';
        }
        out[at++] = text[i] == '\n' ? 'n' : text[i];
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}

/* A message of envoy.extensions.transport_sockets.tls.v3; every `~name~` in the text becomes the
 * quoted PEM of that name in `vars` (name, text, …, NULL). It must parse. */
static inline const void *tls_message(struct arena *a, const char *type, const char *text,
                                      const char *const *vars) {
    struct buf b;
    struct diag d;
    diag_init(&d);
    buf_init(&b);
    sv rest = sv_cstr(text);
    while (rest.n) {
        buf_append_sv(&b, sv_cut(&rest, '~'));
        sv name = sv_cut(&rest, '~');
        for (unsigned i = 0; name.n && vars[i]; i += 2) {
            if (sv_is(name, vars[i])) {
                const char *q = tls_quoted(a, vars[i + 1]);
                buf_append(&b, q, strlen(q));
            }
        }
    }
    sv full = arena_printf(a, "envoy.extensions.transport_sockets.tls.v3.%s", type);
    const void *m =
        pb_text_parse(proto_type_find(full), arena_sv(a, buf_pullup(&b, buf_len(&b))), a, &d);
    if (!m) {
        sv why = diag_text(&d);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    buf_fini(&b);
    diag_fini(&d);
    return m;
}

#endif
