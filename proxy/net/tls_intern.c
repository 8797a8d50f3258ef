/* The process-wide table of parsed TLS objects, by content digest.
 * Threads: any; refs move under one mutex, so an object cannot be found while it is being freed. */
#include "proxy/net/tls_intern.h"

#include <pthread.h>
#include <string.h>

#include "proxy/base/check.h"
#include "proxy/base/map.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct map table = MAP_INIT;

void *tls_intern_find(const uint8_t digest[TLS_DIGEST_BYTES]) {
    pthread_mutex_lock(&mutex);
    struct tls_interned *found = map_get(&table, sv_from(digest, TLS_DIGEST_BYTES));
    if (found) {
        found->refs++;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void *tls_intern_add(struct tls_interned *self, const uint8_t digest[TLS_DIGEST_BYTES],
                     void (*free_fn)(struct tls_interned *self)) {
    memcpy(self->digest, digest, TLS_DIGEST_BYTES);
    self->free = free_fn;
    self->refs = 1;
    pthread_mutex_lock(&mutex);
    sv key = sv_from(self->digest, TLS_DIGEST_BYTES);
    struct tls_interned *other = map_get(&table, key);
    if (other) {
        other->refs++;
    } else {
        map_put(&table, key, self);
    }
    pthread_mutex_unlock(&mutex);
    if (!other) {
        return self;
    }
    self->free(self);
    return other;
}

void tls_intern_unref(void *object) {
    struct tls_interned *self = object;
    if (!self) {
        return;
    }
    pthread_mutex_lock(&mutex);
    bool last = --self->refs == 0;
    if (last) {
        map_remove(&table, sv_from(self->digest, TLS_DIGEST_BYTES));
        if (map_count(&table) == 0) {
            map_fini(&table);
            map_init(&table);
        }
    }
    pthread_mutex_unlock(&mutex);
    if (last) {
        self->free(self);
    }
}

size_t tls_intern_count(void) {
    pthread_mutex_lock(&mutex);
    size_t n = map_count(&table);
    pthread_mutex_unlock(&mutex);
    return n;
}
