/* Substitution formats: operators, lengths, JSON, and the words of a real Envoy for what it
 * refuses. */
#include <stdio.h>
#include <time.h>

#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"
#include "tests/support/fake_compile.h"

static struct fake_compile f;
static struct arena a;
static struct stream_info si;
static struct conn_info cx;
static struct headers request, response, trailers;

static sv host_text(const struct host *h) { return sv_cstr((const char *)h); }
static sv host_name(const struct host *h) {
    return *(const char *)h == '1' ? SV_NULL : SV("svc.local:8080");
}
static const struct addr *host_addr(const struct host *h) {
    static struct addr at;
    addr_parse_ip_port(host_text(h), &at);
    return &at;
}
static const struct kv_metadata *host_meta(const struct host *h) {
    (void)h;
    return si.route_metadata; /* any */
}

static void fill_metadata(void) {
    struct kv_value s = kv_string(SV("str\"ing")), n = kv_number(42), fl = kv_number(1.25),
                    in = kv_empty_struct(), null = kv_null(), yes = kv_bool(true);
    struct kv_value items[] = {kv_number(1), kv_string(SV("a")), kv_null(), kv_bool(true)};
    struct kv_value list = {.kind = KV_LIST, .list = {items, 4}};
    si.metadata = kv_metadata_new(&a);
    kv_set(&in, &a, SV("in"), &s);
    kv_set(&in, &a, SV("a"), &n);
    kv_metadata_set(si.metadata, SV("com.test"), SV("k"), &s);
    kv_metadata_set(si.metadata, SV("com.test"), SV("num"), &n);
    kv_metadata_set(si.metadata, SV("com.test"), SV("fl"), &fl);
    kv_metadata_set(si.metadata, SV("com.test"), SV("list"), &list);
    kv_metadata_set(si.metadata, SV("com.test"), SV("o"), &in);
    kv_metadata_set(si.metadata, SV("other"), SV("null"), &null);
    kv_metadata_set(si.metadata, SV("other"), SV("yes"), &yes);
    struct kv_metadata *route = kv_metadata_new(&a);
    struct kv_value rv = kv_string(SV("rv"));
    kv_metadata_set(route, SV("com.route"), SV("rk"), &rv);
    si.route_metadata = route;
    cx.listener_metadata = route;
}

static void fill_headers(void) {
    headers_init(&request, &a);
    headers_init(&response, &a);
    headers_init(&trailers, &a);
    headers_add_copy(&request, SV(":method"), SV("GET"));
    headers_add_copy(&request, SV(":path"), SV("/re?x=1"));
    headers_add_copy(&request, SV("x-envoy-original-path"), SV("/c1/x?a=1%202&e=&b=3"));
    headers_add_copy(&request, SV(":authority"), SV("host:81"));
    headers_add_copy(&request, SV("user-agent"), SV("curl/7.88.1"));
    headers_add_copy(&request, SV("x-two"), SV("first"));
    headers_add_copy(&request, SV("x-two"), SV("second"));
    headers_add_copy(&request, SV("content-type"), SV("application/grpc+proto"));
    headers_add_copy(
        &request, SV("x-forwarded-client-cert"),
        SV("By=spiffe://a;Subject=\"CN=x\\\"y,O=z;q\";URI=spiffe://b;DNS=d1,By=second;URI=two"));
    headers_add_copy(&response, SV(":status"), SV("200"));
    headers_add_copy(&response, SV("server"), SV("envoy"));
    headers_add_copy(&trailers, SV("grpc-status"), SV("3"));
}

static struct upstream_try failed[] = {
    {(const struct host *)(const void *)"10.1.1.9:80", &failed[1]},
    {(const struct host *)(const void *)"[::1]:81", NULL}};

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    si = (struct stream_info){
        .cx = &cx, .arena = &a, .request = &request, .response = &response, .trailers = &trailers};
    cx = (struct conn_info){.id = 9, .listener_name = SV("lis"), .filter_chain_name = SV("fc")};
    fill_metadata();
    fill_headers();
    addr_parse_ip_port(SV("10.0.0.1:5555"), &cx.remote);
    addr_parse_ip_port(SV("[::1]:443"), &cx.local);
    addr_parse_ip_port(SV("10.0.0.2:6666"), &cx.direct_remote);
    si.start_wall_us = 1795386450524531ull; /* 2026-11-22T22:27:30.524531Z */
    si.start_us = 1000000;
    si.last_rx_us = 1001500;
    si.up.first_tx_us = 1002000;
    si.up.last_tx_us = 1002999;
    si.up.first_rx_us = 1010000;
    si.up.last_rx_us = 1012000;
    si.first_tx_us = 1011000;
    si.last_tx_us = 1015014;
    si.end_us = 1015014;
    si.up.pool_ready_us = 1001900;
    si.rx_bytes = 3;
    si.tx_bytes = 123456789012ull;
    si.response_code = 200;
    si.protocol = HTTP_11;
    si.has_protocol = true;
    si.response_code_details = SV("via upstream\tx");
    si.route_name = SV("r1");
    si.cluster_name = SV("alt");
    si.cluster_raw_name = SV("c1");
    si.request_id = SV("c0c00896-5815-41a1-af8c-b8da7f6ebb85");
    si.access_log_type = 6;
    si.up.host = (const struct host *)(const void *)"10.1.1.1:80";
    si.up.attempts = 2;
    si.up.transport_failure = SV("delayed connect error: Connection refused");
    si.up.failed = failed;
    addr_parse_ip_port(SV("10.9.9.9:1234"), &si.up.local);
    struct filter_state *fs = filter_state_new(&a, NULL);
    const struct kv_value *o =
        kv_metadata_get(si.metadata, SV("com.test"), (const sv[]){SV("o")}, 1);
    filter_state_set(fs, SV("my.key"), SV("fs\"value"), NULL, false, FILTER_STATE_LOCAL);
    filter_state_set(fs, SV("tree"), SV("plain"), o, false, FILTER_STATE_LOCAL);
    si.filter_state = fs;
    setenv("FORMATTER_TEST", "barbaz", 1);
    unsetenv("FORMATTER_NONE");
    observe_hooks_set(&(struct observe_hooks){.host_address = host_text,
                                              .host_hostname = host_name,
                                              .host_addr = host_addr,
                                              .host_metadata = host_meta});
    return 0;
}
static int end(void **state) {
    (void)state;
    observe_hooks_set(&(struct observe_hooks){0});
    arena_fini(&a);
    fake_compile_fini(&f);
    return 0;
}

/* The text in the test's arena. */
static const char *text_of(const struct formatter *fmt) {
    BUF_AUTO struct buf out = {0};
    formatter_text(fmt, &si, &out);
    char *t = buf_dup_str(&out);
    const char *kept = arena_cstr(&a, sv_cstr(t));
    xfree(t);
    return kept;
}

static const struct {
    const char *format, *want;
} texts[] = {
    {"", ""},
    {"plain", "plain"},
    {"100%%", "100%"},
    {"%%PROTOCOL%%", "%PROTOCOL%"},
    {"a%PROTOCOL%b", "aHTTP/1.1b"},
    {"%PROTOCOL%%RESPONSE_CODE%", "HTTP/1.1200"},
    /* headers */
    {"%REQ(user-agent)%", "curl/7.88.1"},
    {"%REQ(User-Agent)%", "curl/7.88.1"},
    {"%REQ(USER-AGENT):4%", "curl"},
    {"%REQ(USER-AGENT):0%", ""},
    {"%REQ(user-agent):1000%", "curl/7.88.1"},
    {"%REQ(nope)%", "-"},
    {"%REQ(nope):1%", "-"},
    {"%REQ(nope?user-agent)%", "curl/7.88.1"},
    {"%REQ(nope?neither)%", "-"},
    {"%REQ(?user-agent)%", "curl/7.88.1"},
    {"%REQ(user-agent?)%", "curl/7.88.1"},
    {"%REQ(x-two)%", "first"},
    {"%REQ(:METHOD)%", "GET"},
    {"%REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/c1/x?a=1%202&e=&b=3"},
    {"%RESP(server)%", "envoy"},
    {"%RESPONSE_HEADER(:status):1%", "2"},
    {"%TRAILER(grpc-status)%", "3"},
    {"%RESPONSE_TRAILER(x)%", "-"},
    /* path and query */
    {"%PATH%", "/c1/x?a=1%202&e=&b=3"},
    {"%PATH:5%", "/c1/x"},
    {"%PATH(NQ)%", "/c1/x"},
    {"%PATH(WQ)%", "/c1/x?a=1%202&e=&b=3"},
    {"%PATH(NQ:PATH)%", "/re"},
    {"%PATH(WQ:PATH):4%", "/re?"},
    {"%PATH(WQ:ORIG)%", "/c1/x?a=1%202&e=&b=3"},
    {"%QUERY_PARAM(a)%", "1 2"},
    {"%QUERY_PARAM(a):1%", "1"},
    {"%QUERY_PARAM(e)%", ""},
    {"%QUERY_PARAM(zz)%", "-"},
    {"%QUERY_PARAMS%", "a=1%202&e=&b=3"},
    {"%QUERY_PARAMS(DECODED)%", "a=1 2&e=&b=3"},
    {"%QUERY_PARAMS(ORIG)%", "a=1%202&e=&b=3"},
    /* client certificate header */
    {"%XFCC_VALUE(uri)%", "spiffe://b"},
    {"%XFCC_VALUE(By)%", "spiffe://a"},
    {"%XFCC_VALUE(subject)%", "CN=x\"y,O=z;q"},
    {"%XFCC_VALUE(dns)%", "d1"},
    {"%XFCC_VALUE(hash)%", "-"},
    /* codes, counts */
    {"%RESPONSE_CODE%", "200"},
    {"%CEL(response.code + 1)%", "201"},
    {"%CEL(request.headers['user-agent']):4%", "curl"},
    {"%CEL(request.nope)%", "-"},
    {"%RESPONSE_CODE_DETAILS%", "via_upstream_x"},
    {"%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "via upstream\tx"},
    {"%RESPONSE_FLAGS%", "-"},
    {"%RESPONSE_FLAGS_LONG%", "-"},
    {"%GRPC_STATUS%", "InvalidArgument"},
    {"%GRPC_STATUS(CAMEL_STRING)%", "InvalidArgument"},
    {"%GRPC_STATUS(SNAKE_STRING)%", "INVALID_ARGUMENT"},
    {"%GRPC_STATUS(NUMBER)%", "3"},
    {"%GRPC_STATUS_NUMBER%", "3"},
    {"%BYTES_RECEIVED% %BYTES_SENT%", "3 123456789012"},
    {"%RESPONSE_TRAILERS_BYTES%", "12"},
    {"%ACCESS_LOG_TYPE%", "DownstreamEnd"},
    {"%ROUTE_NAME% %VIRTUAL_CLUSTER_NAME%", "r1 -"},
    {"%STREAM_ID%", "c0c00896-5815-41a1-af8c-b8da7f6ebb85"},
    {"%TRACE_ID%%SPAN_ID%", "--"},
    {"%LOCAL_REPLY_BODY%|%CUSTOM_FLAGS%", "|"},
    /* connection */
    {"%CONNECTION_ID%", "9"},
    {"%DOWNSTREAM_REMOTE_ADDRESS%", "10.0.0.1:5555"},
    {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"},
    {"%DOWNSTREAM_REMOTE_PORT%", "5555"},
    {"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "10.0.0.2:6666"},
    {"%DOWNSTREAM_LOCAL_ADDRESS%", "[::1]:443"},
    {"%DOWNSTREAM_LOCAL_PORT%", "443"},
    {"%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%", "-"},
    {"%LISTENER_NAME% %FILTER_CHAIN_NAME%", "lis fc"},
    {"%REQUESTED_SERVER_NAME%", "-"},
    {"%REQUESTED_SERVER_NAME(HOST_FIRST)%", "host:81"},
    {"%REQUESTED_SERVER_NAME(SNI_FIRST:HOST)%", "host:81"},
    {"%REQUESTED_SERVER_NAME(SNI_FIRST:ORIG)%", "-"},
    {"%CONNECTION_TERMINATION_DETAILS%", "-"},
    {"%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_CERT_V_START(%Y)%",
     "- - -"},
    {"%DOWNSTREAM_DETECTED_CLOSE_TYPE%", "Normal"},
    {"%TLS_JA3_FINGERPRINT%", "-"},
    /* upstream */
    {"%UPSTREAM_HOST%", "10.1.1.1:80"},
    {"%UPSTREAM_HOST_NAME%", "10.1.1.1:80"},
    {"%UPSTREAM_HOST_NAME_WITHOUT_PORT%", "10.1.1.1"},
    {"%UPSTREAM_REMOTE_ADDRESS%", "-"}, /* no connection was made */
    {"%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
     "10.9.9.9:1234 1234 10.9.9.9"},
    {"%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", "alt c1"},
    {"%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CONNECTION_ID%", "2 0"},
    {"%UPSTREAM_TRANSPORT_FAILURE_REASON%", "delayed_connect_error:_Connection_refused"},
    {"%UPSTREAM_HOSTS_ATTEMPTED%", "10.1.1.9:80,[::1]:81"},
    {"%UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%", "10.1.1.9,[::1]"},
    {"%UPSTREAM_HOST_NAMES_ATTEMPTED%", "10.1.1.9:80,svc.local:8080"},
    {"%UPSTREAM_CONNECTION_IDS_ATTEMPTED% %UPSTREAM_LOCAL_CLOSE_REASON%", "- -"},
    {"%UPSTREAM_PROTOCOL%", "-"},
    {"%UPSTREAM_TLS_CIPHER%", "-"},
    /* metadata */
    {"%DYNAMIC_METADATA(com.test)%", "{\"fl\":1.25,\"k\":\"str\\\"ing\",\"list\":[1,\"a\",null,"
                                     "true],\"num\":42,\"o\":{\"a\":42,\"in\":\"str\\\"ing\"}}"},
    {"%DYNAMIC_METADATA(com.test:k)%", "str\"ing"},
    {"%DYNAMIC_METADATA(com.test:k):2%", "st"},
    {"%DYNAMIC_METADATA(com.test:num)%", "42"},
    {"%DYNAMIC_METADATA(com.test:fl)%", "1.25"},
    {"%DYNAMIC_METADATA(com.test:list)%", "[1,\"a\",null,true]"},
    {"%DYNAMIC_METADATA(com.test:o:in)%", "str\"ing"},
    {"%DYNAMIC_METADATA(com.test:o):4%", "{\"a\""},
    {"%DYNAMIC_METADATA(com.test:zz)%", "-"},
    {"%DYNAMIC_METADATA(com.test:k:deeper)%", "-"},
    {"%DYNAMIC_METADATA(zz)%", "-"},
    {"%DYNAMIC_METADATA(other:null)%", "-"},
    {"%DYNAMIC_METADATA(other:yes)%", "true"},
    {"%METADATA(DYNAMIC:com.test:k)%", "str\"ing"},
    {"%METADATA(ROUTE:com.route:rk)%", "rv"},
    {"%METADATA(LISTENER:com.route:rk):1%", "r"},
    {"%METADATA(UPSTREAM_HOST:com.route:rk)%", "rv"},
    {"%METADATA(CLUSTER:x:y)%", "-"},
    {"%METADATA(VIRTUAL_HOST:x)%", "-"},
    {"%UPSTREAM_METADATA(com.route:rk)%", "rv"},
    {"%CLUSTER_METADATA(com.route:rk)%", "-"},
    /* filter state */
    {"%FILTER_STATE(my.key)%", "\"fs\\\"value\""},
    {"%FILTER_STATE(my.key:TYPED)%", "\"fs\\\"value\""},
    {"%FILTER_STATE(my.key:PLAIN)%", "fs\"value"},
    {"%FILTER_STATE(my.key:PLAIN):3%", "fs\""},
    {"%FILTER_STATE(my.key:FIELD:x)%", "-"},
    {"%FILTER_STATE(tree)%", "{\"a\":42,\"in\":\"str\\\"ing\"}"},
    {"%FILTER_STATE(tree:PLAIN)%", "plain"},
    {"%FILTER_STATE(tree:FIELD:a)%", "42"},
    {"%FILTER_STATE(nope)%", "-"},
    {"%UPSTREAM_FILTER_STATE(my.key)%", "-"},
    /* time */
    {"%START_TIME%", "2026-11-22T22:27:30.524Z"},
    {"%START_TIME()%", "2026-11-22T22:27:30.524Z"},
    {"%START_TIME(%s)%", "1795386450"},
    {"%START_TIME(%s.%3f)%", "1795386450.524"},
    {"%START_TIME(%Y %6f %f %9f %1f %2f %E*S)%", "2026 524531 524531000 524531000 5 52 30.524531"},
    {"%START_TIME(%E3S %E0S %%)%", "30.524 30 %"},
    {"%START_TIME(%e %j %a %A %b %B %p %I %y %Z %z)%",
     "22 326 Sun Sunday Nov November PM 10 26 UTC +0000"},
    {"%START_TIME(%D %F %T %R %U %V %h)%", "11/22/26 2026-11-22 22:27:30 22:27 47 47 Nov"},
    {"%START_TIME(abc)%", "abc"},
    {"%DURATION%", "15"},
    {"%REQUEST_DURATION%", "1"},
    {"%REQUEST_TX_DURATION%", "2"},
    {"%RESPONSE_DURATION%", "10"},
    {"%RESPONSE_TX_DURATION%", "5"},
    {"%UPSTREAM_CONNECTION_POOL_READY_DURATION%", "1"},
    {"%ROUNDTRIP_DURATION%", "-"},
    {"%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%", "15"},
    {"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%", "15"},
    {"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "15014"},
    {"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%", "15014000"},
    {"%COMMON_DURATION(DS_TX_END:DS_RX_BEG:us)%", "-"},
    {"%COMMON_DURATION(FOO:DS_TX_END:us)%", "-"},
    {"%COMMON_DURATION(US_TX_BEG:US_TX_END:us)%", "999"},
    /* process, combinations */
    {"%ENVIRONMENT(FORMATTER_TEST)%", "barbaz"},
    {"%ENVIRONMENT(FORMATTER_TEST):2%", "ba"},
    {"%ENVIRONMENT(FORMATTER_NONE)%", "-"},
    {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"nope\"},\"PROTOCOL\"]})%",
     "HTTP/1.1"},
    {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"nope\"}]})%", "-"},
    {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"user-agent\",\"max_length\":6}]}):"
     "3%",
     "cur"},
};

static void test_text(void **state) {
    (void)state;
    assert_true(sizeof(texts) / sizeof(texts[0]) >= 120);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const struct formatter *fmt = formatter_compile(&f.ctx, sv_cstr(texts[i].format), false);
        sv why = fake_errors(&f);
        if (!fmt) {
            fail_msg("'%s': %.*s", texts[i].format, SV_ARG(why));
        }
        const char *got = text_of(fmt);
        if (strcmp(got, texts[i].want) != 0) {
            fail_msg("'%s': got '%s', want '%s'", texts[i].format, got, texts[i].want);
        }
    }
}

/* Nothing is known: no operator crashes, and only those with a value of their own print anything
 * but '-' or a number. */
static void test_empty_stream(void **state) {
    (void)state;
    struct stream_info none = {0};
    si = none;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const struct formatter *fmt = formatter_compile(&f.ctx, sv_cstr(texts[i].format), false);
        assert_non_null(fmt);
        assert_non_null(text_of(fmt));
    }
    const struct formatter *fmt =
        formatter_compile(&f.ctx,
                          SV("%REQ(x)% %UPSTREAM_HOST% %DOWNSTREAM_REMOTE_ADDRESS% %PROTOCOL% "
                             "%PATH% %DURATION% %GRPC_STATUS%"),
                          false);
    assert_string_equal(text_of(fmt), "- - - - - - -");
    fmt = formatter_compile(&f.ctx, SV("[%REQ(x)%%UPSTREAM_HOST%%RESPONSE_CODE%%RESPONSE_FLAGS%]"),
                            true);
    assert_string_equal(text_of(fmt), "[0-]"); /* flags say "-" themselves */
}

static const struct {
    const char *format, *want;
} refused[] = {
    {"%", "Incorrect configuration: %. Couldn't find valid command at position 0"},
    {"abc%", "Incorrect configuration: abc%. Couldn't find valid command at position 3"},
    {"%REQ", "Incorrect configuration: %REQ. Couldn't find valid command at position 0"},
    {"%REQ%", "REQ requires parameters"},
    {"%REQ()%", "REQ requires parameters"},
    {"%REQ(", "Incorrect configuration: %REQ(. Couldn't find valid command at position 0"},
    {"%REQ(X)", "Incorrect configuration: %REQ(X). Couldn't find valid command at position 0"},
    {"%REQ(X?Y?Z)%", "More than 1 alternative header specified in token: X?Y?Z"},
    {"%REQ(X):%", "Incorrect configuration: %REQ(X):%. Couldn't find valid command at position 0"},
    {"%REQ(X):abc%",
     "Incorrect configuration: %REQ(X):abc%. Couldn't find valid command at position 0"},
    {"%REQ(X):-1%",
     "Incorrect configuration: %REQ(X):-1%. Couldn't find valid command at position 0"},
    {"%REQ(X):99999999999999999999%", "Incorrect configuration: %REQ(X):99999999999999999999%. "
                                      "Couldn't find valid command at position 0"},
    {"%REQ(X Y)%", "Invalid header configuration. Format string contains invalid characters."},
    {"%REQ(a,b)%", "Invalid header configuration. Format string contains invalid characters."},
    {"%REQ(a)b)%", "Invalid header configuration. Format string contains invalid characters."},
    {"%REQ(X)Y%", "Incorrect configuration: %REQ(X)Y%. Couldn't find valid command at position 0"},
    {"%req(x)%", "Incorrect configuration: %req(x)%. Couldn't find valid command at position 0"},
    {"%NOPE%", "Not supported field in StreamInfo: NOPE"},
    {"%NOPE(x)%", "Not supported field in StreamInfo: NOPE"},
    {"%9%", "Not supported field in StreamInfo: 9"},
    {"%_A%", "Not supported field in StreamInfo: _A"},
    {"%A-B%", "Incorrect configuration: %A-B%. Couldn't find valid command at position 0"},
    {"%PROTO COL%",
     "Incorrect configuration: %PROTO COL%. Couldn't find valid command at position 0"},
    {"%PROTOCOL(x)%", "PROTOCOL does not take any parameters or length"},
    {"%PROTOCOL():3%", "PROTOCOL does not take any parameters or length"},
    {"%PROTOCOL:3%", "PROTOCOL does not take any parameters or length"},
    {"%PROTOCOL%%",
     "Incorrect configuration: %PROTOCOL%%. Couldn't find valid command at position 10"},
    {"%DURATION(x):3%", "DURATION does not take any parameters or length"},
    {"%HOSTNAME:3%", "HOSTNAME does not take any parameters or length"},
    {"%TRACE_ID(x)%", "TRACE_ID does not take any parameters or length"},
    {"%UNIQUE_ID(x)%", "UNIQUE_ID does not take any parameters or length"},
    {"%UPSTREAM_CLUSTER:4%", "UPSTREAM_CLUSTER does not take any parameters or length"},
    {"%DOWNSTREAM_PEER_URI_SAN:4%",
     "DOWNSTREAM_PEER_URI_SAN does not take any parameters or length"},
    {"%START_TIME(%Y%m):5%", "START_TIME does not allow length to be specified."},
    {"%GRPC_STATUS:3%", "GRPC_STATUS does not allow length to be specified."},
    {"%START_TIME(%n)%", "Invalid header configuration. Format string contains newline."},
    {"%COMMON_DURATION%", "COMMON_DURATION requires parameters"},
    {"%COMMON_DURATION(A)%", "Invalid common duration configuration: A."},
    {"%COMMON_DURATION(DS_RX_BEG:DS_RX_END:s)%", "Invalid common duration precision: s."},
    {"%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ns:x)%",
     "Invalid common duration configuration: DS_RX_BEG:DS_RX_END:ns:x."},
    {"%DYNAMIC_METADATA%", "DYNAMIC_METADATA requires parameters"},
    {"%CLUSTER_METADATA%", "CLUSTER_METADATA requires parameters"},
    {"%METADATA%", " is not supported type of metadata"},
    {"%METADATA(X:a)%", "X is not supported type of metadata"},
    {"%FILTER_STATE%", "Invalid filter state configuration, key cannot be empty."},
    {"%FILTER_STATE(a:FOO)%",
     "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD."},
    {"%FILTER_STATE(a:FIELD)%",
     "Invalid filter state serialize type, FIELD should be used with the field name."},
    {"%FILTER_STATE(a:FIELD:)%",
     "Invalid filter state serialize type, FIELD should be used with the field name."},
    {"%FILTER_STATE(a:PLAIN:x)%",
     "Invalid filter state serialize type, FIELD should be used with the field name."},
    {"%FILTER_STATE(a:b:c:d)%",
     "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD."},
    {"%QUERY_PARAM%", "QUERY_PARAM requires parameters"},
    {"%QUERY_PARAMS(FOO)%",
     "Invalid QUERY_PARAMS option: 'FOO', only 'ORIG'/'DECODED' are allowed"},
    {"%PATH(XX)%", "Invalid PATH option: 'XX', only 'WQ'/'NQ' are allowed"},
    {"%PATH(WQ:ZZ)%", "Invalid PATH option: 'ZZ', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"},
    {"%ENVIRONMENT%", "ENVIRONMENT requires parameters"},
    {"%XFCC_VALUE%", "XFCC_VALUE command requires a subcommand"},
    {"%XFCC_VALUE(foo)%", "XFCC_VALUE command does not support subcommand: foo"},
    {"%GRPC_STATUS(FOO)%",
     "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: FOO"},
    {"%REQUESTED_SERVER_NAME(FOO)%", "Invalid REQUESTED_SERVER_NAME option: 'FOO', only "
                                     "'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"},
    {"%REQUESTED_SERVER_NAME(SNI_ONLY:X)%",
     "Invalid REQUESTED_SERVER_NAME option: 'X', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed"},
    {"%REQ_WITHOUT_QUERY(x)%", "Not supported field in StreamInfo: REQ_WITHOUT_QUERY"},
    {"%CEL(request.)%", "CEL: syntax error at offset 8: expected a field or method name"},
    {"%COALESCE%", "COALESCE requires parameters"},
    {"%COALESCE({})%", "COALESCE: JSON configuration must contain 'operators' array"},
    {"%COALESCE({\"operators\":[]})%", "COALESCE: 'operators' array must not be empty"},
    {"%COALESCE({\"operators\":{}})%", "COALESCE: 'operators' must be an array"},
    {"%COALESCE({\"operators\":[\"NOPE\"]})%",
     "COALESCE: failed to parse operator at index 0: unknown command: 'NOPE'"},
    {"%COALESCE({\"operators\":[\"REQ\"]})%",
     "COALESCE: failed to parse operator at index 0: REQ requires parameters"},
    {"%COALESCE({\"operators\":[1]})%",
     "COALESCE: failed to parse operator at index 0: operator entry must be either a string "
     "(command name) or an object with 'command' field"},
    {"%COALESCE({\"operators\":[{\"param\":\"x\"}]})%",
     "COALESCE: failed to parse operator at index 0: operator object must have 'command' field: "
     "key 'command' missing or not a "
     "string from lines 1-1"},
    {"%COALESCE({\"operators\":[\"PROTOCOL\",{\"command\":\"REQ\",\"param\":\"x\",\"max_length\":-"
     "3}]})%",
     "COALESCE: failed to parse operator at index 1: 'max_length' must be a positive integer"},
    {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":3}]})%",
     "COALESCE: failed to parse operator at index 0: 'param' field must be a string: key 'param' "
     "missing or not a string from "
     "lines 1-1"},
};

static void test_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const struct formatter *fmt = formatter_compile(&f.ctx, sv_cstr(refused[i].format), false);
        sv why = fake_errors(&f);
        if (fmt || !sv_is(why, refused[i].want)) {
            fail_msg("'%s': got '%.*s', want '%s'", refused[i].format, SV_ARG(why),
                     refused[i].want);
        }
    }
    assert_null(formatter_compile(&f.ctx, SV("%COALESCE(x)%"), false));
    assert_true(
        sv_starts(fake_errors(&f),
                  SV("COALESCE: failed to parse JSON configuration: JSON supplied is not valid.")));
}

static void test_literal(void **state) {
    (void)state;
    sv text;
    assert_true(formatter_is_literal(formatter_compile(&f.ctx, SV("a%%b"), false), &text));
    assert_sv_is(text, "a%b");
    assert_true(formatter_is_literal(formatter_compile(&f.ctx, SV(""), false), &text));
    assert_int_equal(text.n, 0);
    assert_false(formatter_is_literal(formatter_compile(&f.ctx, SV("a%PROTOCOL%"), false), &text));
    assert_false(formatter_is_literal(formatter_compile(&f.ctx, SV("%PROTOCOL%"), false), &text));
}

static void test_flags(void **state) {
    (void)state;
    static const struct {
        uint64_t flags;
        bool is_request;
        const char *text;
    } rows[] = {
        {RESPONSE_FLAG(UF) | RESPONSE_FLAG(URX), true,
         "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure"},
        {RESPONSE_FLAG(UF) | RESPONSE_FLAG(URX), false,
         "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded"},
        {RESPONSE_FLAG(DI) | RESPONSE_FLAG(URX), true,
         "DI,URX DelayInjected,UpstreamRetryLimitExceeded"},
        {0, true, "- -"},
        {0, false, "- -"},
    };
    bool has_protocol = si.has_protocol;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        si.flags = rows[i].flags;
        si.has_protocol = rows[i].is_request;
        assert_string_equal(
            text_of(formatter_compile(&f.ctx, SV("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%"), false)),
            rows[i].text);
    }
    si.has_protocol = has_protocol;
    si.flags = (1ull << FLAG_BITS) - 1; /* longer than the small buffer */
    const char *all = text_of(formatter_compile(&f.ctx, SV("%RESPONSE_FLAGS_LONG%"), false));
    assert_true(strlen(all) > 512);
    assert_non_null(strstr(all, "UnconditionalDropOverload"));
    uint64_t flag;
    assert_true(response_flag_parse(SV("UAEX"), &flag));
    assert_int_equal(flag, RESPONSE_FLAG(UAEX));
    assert_false(response_flag_parse(SV("uaex"), &flag));
    assert_false(response_flag_parse(SV(""), &flag));
}

static void test_grpc_status(void **state) {
    (void)state;
    static const struct {
        const char *trailer;
        unsigned code;
        const char *want;
    } cases[] = {{"0", 200, "OK"},
                 {"16", 200, "Unauthenticated"},
                 {"17", 200, "17"},
                 {"x", 200, "-"},
                 {"-1", 200, "-"},
                 {NULL, 503, "Unavailable"},
                 {NULL, 400, "Internal"},
                 {NULL, 401, "Unauthenticated"},
                 {NULL, 403, "PermissionDenied"},
                 {NULL, 404, "Unimplemented"},
                 {NULL, 429, "Unavailable"},
                 {NULL, 418, "Unknown"},
                 {NULL, 0, "-"}};
    const struct formatter *fmt = formatter_compile(&f.ctx, SV("%GRPC_STATUS%"), false);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        headers_init(&trailers, &a);
        if (cases[i].trailer) {
            headers_add_copy(&trailers, SV("grpc-status"), sv_cstr(cases[i].trailer));
        }
        si.response_code = (uint16_t)cases[i].code;
        if (strcmp(text_of(fmt), cases[i].want) != 0) {
            fail_msg("row %zu: %s", i, text_of(fmt));
        }
    }
    headers_set(&request, HDR_content_type, SV("application/json"));
    si.response_code = 503;
    assert_string_equal(text_of(fmt), "-");
}

static void test_unique_ids_differ(void **state) {
    (void)state;
    const struct formatter *fmt = formatter_compile(&f.ctx, SV("%UNIQUE_ID%"), false);
    const char *one = text_of(fmt), *two = text_of(fmt);
    assert_int_equal(strlen(one), 36);
    assert_string_not_equal(one, two);
    assert_true(strlen(text_of(formatter_compile(&f.ctx, SV("%HOSTNAME%"), false))) > 0);
    const char *year = text_of(formatter_compile(&f.ctx, SV("%EMIT_TIME(%Y)%"), false));
    assert_int_equal(strlen(year), 4);
}

/* Values longer than the small buffer of an evaluation. */
static void test_long_values(void **state) {
    (void)state;
    char *big = arena_alloc(&a, 5000);
    memset(big, 'a', 5000);
    memcpy(big, "/?q=%41", 7);
    headers_set(&request, HDR_x_envoy_original_path, sv_from(big, 5000));
    assert_int_equal(strlen(text_of(formatter_compile(&f.ctx, SV("%QUERY_PARAM(q)%"), false))),
                     4994);
    memset(big, ' ', 5000);
    si.response_code_details = sv_from(big, 5000);
    const char *got = text_of(
        formatter_compile(&f.ctx, SV("%RESPONSE_CODE_DETAILS%%RESPONSE_CODE_DETAILS%"), false));
    assert_int_equal(strlen(got), 10000);
    assert_int_equal(got[9999], '_');
}

/* --- JSON --- */

static const char *json_of(const char *struct_text, bool omit_empty) {
    const struct json_formatter *j = json_formatter_compile(
        &f.ctx, fake_msg(&f, "google.protobuf.Struct", struct_text), omit_empty);
    if (!j) {
        return NULL;
    }
    BUF_AUTO struct buf out = {0};
    json_formatter_write(j, &si, &out);
    char *t = buf_dup_str(&out);
    const char *kept = arena_cstr(&a, sv_cstr(t));
    xfree(t);
    return kept;
}
#define FIELD(key, value) "fields { key: '" key "' value { " value " } } "
#define STR(key, s) FIELD(key, "string_value: '" s "'")

static void test_json(void **state) {
    (void)state;
    static const char format[] = STR("zz", "a%REQ(nope)%b") STR("code", "%RESPONSE_CODE%") STR(
        "s", "x%RESPONSE_CODE%") STR("m", "%REQ(nope)%%REQ(nope)%") STR("none", "%REQ(nope)%")
        STR("md", "%DYNAMIC_METADATA(com.test:o)%") STR("list", "%DYNAMIC_METADATA(com.test:list)%")
            STR("cut", "%DYNAMIC_METADATA(com.test:k):2%")
                STR("tree4", "%DYNAMIC_METADATA(com.test:o):4%") STR("fs", "%FILTER_STATE(my.key)%")
                    STR("fsx", "x%FILTER_STATE(my.key)%") STR("pct", "100%%") STR("empty", "") STR(
                        "k\"q", "1") FIELD("n", "number_value: 3") FIELD("f", "number_value: 1.5")
                        FIELD("b", "bool_value: true") FIELD("nul", "null_value: NULL_VALUE")
                            FIELD("o", "struct_value { " STR("y", "%PROTOCOL%")
                                           STR("x", "%REQ(nope)%") "}")
                                FIELD("e", "struct_value { " STR("x", "%REQ(nope)%") "}")
                                    FIELD("a", "list_value { values { string_value: '%REQ(nope)%' "
                                               "} values { number_value: 1 } }");
    assert_string_equal(
        json_of(format, false),
        "{\"a\":[null,1],\"b\":true,\"code\":200,\"cut\":\"st\",\"e\":{\"x\":null},\"empty\":\"\","
        "\"f\":1.5,"
        "\"fs\":\"fs\\\"value\",\"fsx\":\"x\\\"fs\\\\\\\"value\\\"\",\"k\\\"q\":\"1\","
        "\"list\":[1,\"a\",null,true],\"m\":\"--\",\"md\":{\"a\":42,\"in\":\"str\\\"ing\"},\"n\":3,"
        "\"none\":null,"
        "\"nul\":null,\"o\":{\"x\":null,\"y\":\"HTTP/1.1\"},\"pct\":\"100%\",\"s\":\"x200\","
        "\"tree4\":{\"a\":42,\"in\":\"str\\\"ing\"},\"zz\":\"a-b\"}");
    assert_string_equal(json_of(format, true),
                        "{\"a\":[1],\"b\":true,\"code\":200,\"cut\":\"st\",\"empty\":\"\",\"f\":1."
                        "5,\"fs\":\"fs\\\"value\","
                        "\"fsx\":\"x\\\"fs\\\\\\\"value\\\"\",\"k\\\"q\":\"1\",\"list\":[1,\"a\","
                        "null,true],\"m\":\"\","
                        "\"md\":{\"a\":42,\"in\":\"str\\\"ing\"},\"n\":3,\"o\":{\"y\":\"HTTP/"
                        "1.1\"},\"pct\":\"100%\","
                        "\"s\":\"x200\",\"tree4\":{\"a\":42,\"in\":\"str\\\"ing\"},\"zz\":\"ab\"}");
    assert_string_equal(json_of("", false), "{}");
    assert_string_equal(json_of(STR("a", "%REQ(nope)%"), true), "{}");
    assert_null(json_of(STR("a", "%NOPE%"), false));
    assert_sv_is(fake_errors(&f), "Not supported field in StreamInfo: NOPE");
}

/* --- SubstitutionFormatString --- */

static const char *substitute(const char *text, sv *content_type) {
    struct substitution_format s;
    if (!substitution_format_compile(
            &f.ctx, fake_msg(&f, "envoy.config.core.v3.SubstitutionFormatString", text), &s)) {
        return NULL;
    }
    *content_type = s.content_type;
    BUF_AUTO struct buf out = {0};
    substitution_format_write(&s, &si, &out);
    char *t = buf_dup_str(&out);
    const char *kept = arena_cstr(&a, sv_cstr(t));
    xfree(t);
    return kept;
}

static void test_substitution(void **state) {
    (void)state;
    sv type;
    assert_string_equal(substitute("text_format: '%RESPONSE_CODE%'", &type), "200");
    assert_sv_is(type, "text/plain");
    assert_string_equal(substitute("text_format_source { inline_string: 'x%PROTOCOL%' }", &type),
                        "xHTTP/1.1");
    assert_string_equal(substitute("json_format { " STR("a", "%RESPONSE_CODE%") "}", &type),
                        "{\"a\":200}\n");
    assert_sv_is(type, "application/json");
    assert_string_equal(
        substitute("text_format: '[%REQ(x)%]' omit_empty_values: true content_type: 'text/x'",
                   &type),
        "[]");
    assert_sv_is(type, "text/x");
    headers_set(&request, HDR_path, SV("/p?q"));
    assert_string_equal(substitute("text_format: '%REQ_WITHOUT_QUERY(:path)%' formatters { name: "
                                   "'envoy.formatter.req_without_query' }",
                                   &type),
                        "/p");
    static const struct {
        const char *msg, *want;
    } bad[] = {
        {"", "format: value is required"},
        {"text_format: '%NOPE%'", "Not supported field in StreamInfo: NOPE"},
        {"text_format: 'x' formatters { name: 'zz' }",
         "formatters[0]: Didn't find a registered implementation for 'zz' with type URL: ''"},
        {"text_format_source { filename: '/nope' }", "no such data source in tests"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_row(!substitute(bad[i].msg, &type), i);
        assert_sv_is(fake_errors(&f), bad[i].want);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
int main(void) {
    setenv("TZ", "UTC", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        TEST(test_text),
        TEST(test_empty_stream),
        TEST(test_refused),
        TEST(test_literal),
        TEST(test_flags),
        TEST(test_grpc_status),
        TEST(test_unique_ids_differ),
        TEST(test_long_values),
        TEST(test_json),
        TEST(test_substitution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
