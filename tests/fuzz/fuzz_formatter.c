/* Substitution formats: any format, rendered over a request with hostile values. JSON stays JSON.
 * Input: one byte of options, the format up to a NUL, then a value of headers and the like. */
/* link: -lcmocka */
#include <jansson.h>

#include "protos/gen/pb.pb-c.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/metadata.h"
#include "tests/support/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { IS_JSON = 1, OMITS_EMPTY = 2, HAS_NOTHING = 4 };

struct facts {
    struct arena a;
    struct headers request, response, trailers;
    struct conn_info cx;
    struct stream_info si;
};

static void fill(struct facts *x, sv value) {
    request_make(&x->request, &x->a, "a.test", "/a/b?c=d", NULL);
    headers_add_copy(&x->request, SV("x-h"), value);
    headers_add_copy(&x->request, SV("x-forwarded-client-cert"), value);
    headers_add_copy(&x->request, SV("x-envoy-original-path"), value);
    headers_init(&x->response, &x->a);
    headers_add_copy(&x->response, SV(":status"), SV("200"));
    headers_add_copy(&x->response, SV("x-h"), value);
    headers_init(&x->trailers, &x->a);
    headers_add_copy(&x->trailers, SV("grpc-status"), value);
    x->si.request = &x->request;
    x->si.response = &x->response;
    x->si.trailers = &x->trailers;
    x->si.response_code = 200;
    x->si.response_code_details = x->si.route_name = x->si.request_id = value;
    x->si.start_wall_us = 1700000000000000;
    x->si.up.transport_failure = value;
    x->cx.server_name = value;
    CHECK(addr_parse_ip_port(SV("10.0.0.1:5555"), &x->cx.remote));
    struct kv_value text = kv_string(value);
    x->si.metadata = kv_metadata_new(&x->a);
    kv_metadata_set(x->si.metadata, SV("ns"), SV("k"), &text);
    x->si.filter_state = filter_state_new(&x->a, NULL);
    filter_state_set(x->si.filter_state, SV("fs"), value, NULL, false, FILTER_STATE_LOCAL);
}

static void render_json(struct fake_compile *f, char *format, bool omit, struct facts *x) {
    Pb__Value plain = PB__VALUE__INIT;
    Pb__Struct__FieldsEntry entry = PB__STRUCT__FIELDS_ENTRY__INIT, *entries[] = {&entry};
    Pb__Struct object = PB__STRUCT__INIT;
    char key[] = "k";
    plain.kind_case = PB__VALUE__KIND_STRING_VALUE;
    plain.string_value = format;
    entry.key = key;
    entry.value = &plain;
    object.n_fields = 1;
    object.fields = entries;
    struct json_formatter *j = json_formatter_compile(&f->ctx, &object, omit);
    CHECK((j != NULL) == diag_ok(&f->diag));
    if (j) {
        BUF_AUTO struct buf out = {0};
        json_formatter_write(j, &x->si, &out);
        sv text = buf_pullup(&out, buf_len(&out));
        json_t *tree = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
        CHECK(tree);
        json_decref(tree);
    }
}

static void render_text(struct fake_compile *f, const char *format, bool omit, struct facts *x) {
    struct formatter *t = formatter_compile(&f->ctx, sv_cstr(format), omit);
    CHECK((t != NULL) == diag_ok(&f->diag));
    if (t) {
        BUF_AUTO struct buf out = {0};
        formatter_text(t, &x->si, &out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    sv rest = sv_from(data + 1, n - 1), format = sv_cut(&rest, '\0');
    struct fake_compile f;
    struct facts x = {.si = {.cx = &x.cx, .arena = &x.a}};
    fake_compile_init(&f, NULL);
    arena_init(&x.a, 0);
    if (!(data[0] & HAS_NOTHING)) {
        fill(&x, rest);
    }
    char *text = arena_cstr(&f.msgs, format);
    if (data[0] & IS_JSON) {
        render_json(&f, text, data[0] & OMITS_EMPTY, &x);
    } else {
        render_text(&f, text, data[0] & OMITS_EMPTY, &x);
    }
    arena_fini(&x.a);
    fake_compile_fini(&f);
    return 0;
}
