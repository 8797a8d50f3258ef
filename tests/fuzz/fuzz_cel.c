/* CEL: any text, and any parsed or checked expression, evaluated over one request.
 * Input: one byte for the form, one for the length of a header's value, the value, then the text or
 * the message (xds.type.v3.CelExpression). */
/* link: -lcmocka */
#include "proxy/api/cel.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "tests/support/pb_mutate.h"
#include "tests/support/route.h"

#define HEAD 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed);

static const struct proto_type *message_type(void) {
    return proto_type_find(SV("xds.type.v3.CelExpression"));
}

static void evaluate(const struct cel *c, sv value) {
    struct arena a;
    struct headers request, response;
    arena_init(&a, 0);
    request_make(&request, &a, "a.test", "/a/b?c=d", "x-two: 1\nx-two: 2");
    headers_add_copy(&request, SV("x-h"), value);
    headers_init(&response, &a);
    headers_set_status(&response, 503);
    struct conn_info cx = {.id = 7, .server_name = value};
    CHECK(addr_parse_ip_port(SV("10.0.0.1:5000"), &cx.remote));
    CHECK(addr_parse_ip_port(SV("[::1]:80"), &cx.local));
    struct stream_info si = {.cx = &cx,
                             .arena = &a,
                             .request = &request,
                             .response = &response,
                             .response_code = 503,
                             .start_wall_us = 1700000000000000};
    struct kv_value text = kv_string(value), number = kv_number(-1.5);
    struct kv_value items[] = {text, number}, list = {.kind = KV_LIST, .list = {items, 2}};
    si.metadata = kv_metadata_new(&a);
    kv_metadata_set(si.metadata, SV("ns"), SV("k"), &text);
    kv_metadata_set(si.metadata, SV("ns"), SV("list"), &list);
    si.filter_state = filter_state_new(&a, NULL);
    filter_state_set(si.filter_state, SV("fs"), value, NULL, false, FILTER_STATE_LOCAL);
    sv out;
    struct arena scratch;
    arena_init(&scratch, 0);
    (void)cel_holds(c, &si, &scratch);
    if (cel_text(c, &si, &scratch, &out)) {
        CHECK(out.n == 0 || out.p);
    }
    arena_fini(&scratch);
    arena_fini(&a);
}

static const struct cel *compile(struct fake_compile *f, bool is_message, sv source) {
    if (!is_message) {
        return cel_compile_text(&f->ctx, source);
    }
    ProtobufCMessage *m = proto_unpack(message_type()->desc, source, &f->msgs, &f->diag);
    return m && pb_rules_check(m, &f->diag) ? cel_compile_expression(&f->ctx, m) : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < HEAD || n < HEAD + data[1]) {
        return 0;
    }
    sv value = sv_from(data + HEAD, data[1]);
    sv source = sv_from(data + HEAD + value.n, n - HEAD - value.n);
    struct fake_compile f;
    fake_compile_init(&f, NULL);
    const struct cel *c = compile(&f, data[0] & 1, source);
    CHECK((c != NULL) == diag_ok(&f.diag));
    if (c) {
        evaluate(c, value);
    }
    fake_compile_fini(&f);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed) {
    if (n < HEAD || n < HEAD + data[1] || !(data[0] & 1) || seed % 8 == 0) {
        return LLVMFuzzerMutate(data, n, n_max);
    }
    size_t head = HEAD + data[1];
    return head + mutate_wire(message_type()->desc, data + head, n - head, n_max - head, seed);
}
