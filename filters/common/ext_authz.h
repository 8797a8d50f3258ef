/* External authorization: asking an HTTP or gRPC service whether a request may go on, and what it
 * answers.
 * Threads: services are compiled on the config thread, immutable; checks are worker-local. Checks
 * under way are bounded by the streams that wait and by the circuit breakers of the service's
 * cluster; answers by EXT_AUTHZ_ANSWER_MAX.
 * Spec: extensions.filters.http.ext_authz.v3 HttpService, service.auth.v3.
 * Not here: what happens to the request then (http/ext_authz.c). */
#ifndef SLUICE_FILTERS_COMMON_EXT_AUTHZ_H
#define SLUICE_FILTERS_COMMON_EXT_AUTHZ_H

#include "proxy/api/header_mutation.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/matcher.h"
#include "proxy/api/upstream_call.h"

#define EXT_AUTHZ_ANSWER_MAX (1024u * 1024) /* bytes of an answer, where no limit is configured */

/* --- answers --- */

enum ext_authz_verdict { EXT_AUTHZ_OK, EXT_AUTHZ_DENIED, EXT_AUTHZ_ERROR };
enum ext_authz_change_kind {
    EXT_AUTHZ_SET,
    EXT_AUTHZ_ADD,       /* one more line */
    EXT_AUTHZ_JOIN,      /* behind the first value that is there, with ","; else nothing */
    EXT_AUTHZ_IF_ABSENT, /* added where there is none */
    EXT_AUTHZ_IF_THERE,  /* set where there is one */
    EXT_AUTHZ_REMOVE,
    EXT_AUTHZ_TOLD, /* about the answer itself: shown where answers are, never applied */
};
struct ext_authz_change {
    enum ext_authz_change_kind kind;
    sv name; /* lower case */
    sv value;
};
struct ext_authz_changes {
    struct ext_authz_change *v;
    unsigned n, cap;
};
/* All in the stream's arena. */
struct ext_authz_answer {
    enum ext_authz_verdict verdict;
    unsigned status; /* of a denial; 0: none is told */
    sv body;
    struct ext_authz_changes request;  /* OK: of the request */
    struct ext_authz_changes response; /* OK: of the later response; DENIED: of the denial */
    struct ext_authz_changes query;    /* SET and REMOVE of query parameters */
    bool is_invalid;                   /* it holds what no answer may */
    struct kv_value metadata;          /* a struct; empty: none */
};

void ext_authz_change_add(struct ext_authz_changes *c, struct arena *a,
                          enum ext_authz_change_kind kind, sv name, sv value);

/* --- services --- */

struct ext_authz_service {
    bool is_grpc;
    slot_t cluster;
    uint32_t timeout_ms, answer_max;
    const struct header_mutations *headers; /* of the call; NULL: none */
    /* gRPC */
    sv authority;
    /* HTTP */
    sv path_prefix, path_override;
    bool has_client; /* else a denial passes all headers but host */
    struct string_matchers allowed, upstream, upstream_append, client, client_on_success, metadata;
};
/* msg: extensions.filters.http.ext_authz.v3.HttpService, config.core.v3.GrpcService. NULL: errors
 * added. */
const struct ext_authz_service *ext_authz_http_compile(struct compile_ctx *ctx, const void *msg);
const struct ext_authz_service *ext_authz_grpc_compile(struct compile_ctx *ctx, const void *msg);
/* A type.matcher.v3.ListStringMatcher, NULL: none. */
bool ext_authz_list_compile(struct compile_ctx *ctx, const char *field, const void *msg,
                            struct string_matchers *out);

/* --- checks --- */

struct ext_authz_pair {
    sv key, value;
};
/* What a service is told; borrowed until the check is started. */
struct ext_authz_check {
    struct http_filter *f;
    const struct headers *request;
    const struct ext_authz_service *service;
    bool has_allowed; /* else an HTTP service's own list, or all for gRPC */
    const struct string_matchers *allowed, *disallowed;
    bool has_body, packs_as_bytes, is_partial;
    sv body;
    bool has_certificate, has_tls_session, has_raw_headers;
    const struct ext_authz_pair *extensions; /* context_extensions */
    unsigned extensions_n;
    const sv *namespaces, *route_namespaces; /* of the metadata that is told */
    unsigned namespaces_n, route_namespaces_n;
};
/* Never called before ext_authz_check_start() returns, and never after upstream_call_cancel(). */
typedef void (*ext_authz_done_fn)(void *user, struct ext_authz_answer *answer);

/* The check under way; lives in the stream's arena, owned by the filter. */
struct ext_authz_pending {
    struct upstream_call *call; /* NULL: none is under way */
    const struct ext_authz_service *service;
    struct arena *arena;
    ext_authz_done_fn done;
    void *user;
};
void ext_authz_check_start(const struct ext_authz_check *c, struct ext_authz_pending *p,
                           ext_authz_done_fn done, void *user);
void ext_authz_check_cancel(struct ext_authz_pending *p); /* no callback after */

/* By protocol, for ext_authz_check_start(). */
void ext_authz_http_start(const struct ext_authz_check *c, struct ext_authz_pending *p);
void ext_authz_grpc_start(const struct ext_authz_check *c, struct ext_authz_pending *p);
/* The request headers a service may see, lines of one name joined by ",", in the stream's arena.
 * With `has_raw_headers`, line by line. */
unsigned ext_authz_headers(const struct ext_authz_check *c, const struct ext_authz_pair **out);
/* Filter state: how long the service took, and what it would have done to the request (shadow_mode;
 * headers: of a denial, NULL: none). False: the name is taken. */
bool ext_authz_tell_latency(struct http_filter *f, uint64_t us);
bool ext_authz_tell_shadow(struct http_filter *f, enum ext_authz_verdict verdict, unsigned status,
                           const struct ext_authz_changes *headers);
/* Text as protobuf wants it: each byte that is not UTF-8 becomes '!'. */
sv ext_authz_utf8(struct arena *a, sv s);
/* The bytes of a service.auth.v3.CheckRequest, in the stream's arena. */
sv ext_authz_check_request(const struct ext_authz_check *c);

#endif
