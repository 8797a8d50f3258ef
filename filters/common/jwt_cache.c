/* See the header. */
#include "filters/common/jwt_cache.h"

#include "protos/gen/http_jwt_authn.pb-c.h"
#include "proxy/base/list.h"
#include "proxy/base/map.h"

struct entry {
    struct list node; /* most recently used first */
    struct arena arena;
    sv token;
    struct jwt jwt;
};
struct part {
    struct map by_token;
    struct list entries;
};
struct jwt_cache {
    uint32_t tokens_max, token_bytes_max;
    struct part *parts[STATS_THREADS_MAX]; /* each its thread's own */
};

static void drop(struct part *p, struct entry *e) {
    map_remove(&p->by_token, e->token);
    list_unlink(&e->node);
    arena_fini(&e->arena);
    xfree(e);
}

static void release(void *cache) {
    struct jwt_cache *c = cache;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        struct part *p = c->parts[i];
        if (p) {
            LIST_FOREACH_SAFE (it, &p->entries) {
                drop(p, LIST_ENTRY(it, struct entry, node));
            }
            map_fini(&p->by_token);
            xfree(p);
        }
    }
    xfree(c);
}

struct jwt_cache *jwt_cache_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpJwtAuthn__JwtCacheConfig *m = msg;
    struct jwt_cache *c = xnew(struct jwt_cache);
    c->tokens_max = m->jwt_cache_size ? m->jwt_cache_size : JWT_CACHE_TOKENS;
    c->tokens_max = c->tokens_max < JWT_CACHE_TOKENS_MAX ? c->tokens_max : JWT_CACHE_TOKENS_MAX;
    c->token_bytes_max = m->jwt_max_token_size ? m->jwt_max_token_size : JWT_CACHE_TOKEN_BYTES;
    arena_on_fini(ctx->arena, release, c);
    return c;
}

const struct jwt *jwt_cache_find(struct jwt_cache *c, unsigned thread, sv token, uint64_t now_s,
                                 uint64_t skew_s) {
    struct part *p = c->parts[thread];
    struct entry *e = p ? map_get(&p->by_token, token) : NULL;
    if (!e) {
        return NULL;
    }
    if (jwt_check_time(&e->jwt, now_s, skew_s) == JWT_EXPIRED) {
        drop(p, e);
        return NULL;
    }
    list_unlink(&e->node);
    list_push_front(&p->entries, &e->node);
    return &e->jwt;
}

static struct part *part_of(struct jwt_cache *c, unsigned thread) {
    struct part *p = c->parts[thread];
    if (!p) {
        p = c->parts[thread] = xnew(struct part);
        map_init(&p->by_token);
        list_init(&p->entries);
    }
    return p;
}

void jwt_cache_add(struct jwt_cache *c, unsigned thread, sv token) {
    struct part *p = part_of(c, thread);
    if (token.n > c->token_bytes_max || map_get(&p->by_token, token)) {
        return;
    }
    if (map_count(&p->by_token) >= c->tokens_max) {
        drop(p, LIST_ENTRY(list_last(&p->entries), struct entry, node));
    }
    struct entry *e = xnew(struct entry);
    arena_init(&e->arena, 0);
    e->token = arena_sv(&e->arena, token);
    if (jwt_parse(e->token, &e->arena, &e->jwt) != JWT_OK) {
        arena_fini(&e->arena);
        xfree(e);
        return;
    }
    map_put(&p->by_token, e->token, e);
    list_push_front(&p->entries, &e->node);
}
