/* Generic matching: any Matcher against the facts of one request. Whatever compiles is found in
 * without a fault, and leads to an action or to nothing.
 * Input: the length of a value, that value (a header, the server name and the path), then the
 * message. Seeds: seeds.py. */
/* link: -lcmocka */
#include "proxy/api/match_tree.h"
#include "tests/support/pb_mutate.h"
#include "tests/support/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed);

static const char action[] = "action";

static const void *compile_action(struct compile_ctx *ctx, sv name, const void *any, void *arg) {
    (void)name, (void)arg;
    if (!any) {
        diag_error(ctx->diag, "no action");
        return NULL;
    }
    return action;
}

static void find(const struct match_tree *tree, sv value) {
    struct arena a;
    struct headers request;
    struct addr source, destination;
    static const sv alpn[] = {SV_INIT("h2"), SV_INIT("http/1.1")};
    arena_init(&a, 0);
    request_make(&request, &a, "a.test", "/a/b?c=d", "x-other: 1");
    headers_add_copy(&request, SV("x-h"), value);
    CHECK(addr_parse_ip_port(SV("10.0.0.1:5000"), &source));
    CHECK(addr_parse_ip_port(SV("[::1]:80"), &destination));
    struct conn_info cx = {.server_name = value, .remote = source, .local = destination};
    struct stream_info si = {.cx = &cx, .arena = &a, .request = &request};
    const struct match_facts facts = {.source = &source,
                                      .direct_source = &source,
                                      .destination = &destination,
                                      .server_name = value,
                                      .transport_protocol = SV("tls"),
                                      .application_protocols = alpn,
                                      .application_protocols_n = ARRAY_LEN(alpn),
                                      .request = &request,
                                      .si = &si,
                                      .scratch = &a};
    const void *found = match_tree_find(tree, &facts);
    CHECK(!found || found == action);
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 || n < 1u + data[0]) {
        return 0;
    }
    sv value = sv_from(data + 1, data[0]);
    struct fake_compile f;
    fake_compile_init(&f, NULL);
    const struct match_tree_user user = {
        .inputs = ~0u, .refusal = "no '%s' here", .compile_action = compile_action};
    const struct proto_type *t = proto_type_find(SV("xds.type.matcher.v3.Matcher"));
    ProtobufCMessage *m =
        proto_unpack(t->desc, sv_from(data + 1 + value.n, n - 1 - value.n), &f.msgs, &f.diag);
    if (m && pb_rules_check(m, &f.diag)) {
        const struct match_tree *tree = match_tree_compile(&f.ctx, &user, m);
        CHECK((tree != NULL) == diag_ok(&f.diag));
        if (tree) {
            find(tree, value);
        }
    }
    fake_compile_fini(&f);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed) {
    const struct proto_type *t = proto_type_find(SV("xds.type.matcher.v3.Matcher"));
    if (n < 1 || n < 1u + data[0] || seed % 8 == 0) {
        return LLVMFuzzerMutate(data, n, n_max);
    }
    size_t head = 1u + data[0];
    return head + mutate_wire(t->desc, data + head, n - head, n_max - head, seed);
}
