/* See config_mask.h. */
#include "proxy/server/config_mask.h"

#include <jansson.h>
#include <stdlib.h>

bool config_mask_valid(sv mask) {
    while (mask.n) {
        sv path = sv_cut(&mask, ',');
        if (!path.n) {
            return false;
        }
        for (size_t i = 0; i < path.n; i++) {
            if (!ascii_isalnum(path.p[i]) && path.p[i] != '_' && path.p[i] != '.' &&
                path.p[i] != '@') {
                return false;
            }
        }
    }
    return true;
}

/* Copy the value at `path` of from into to. */
static void keep(json_t *from, json_t *to, sv path) {
    sv name = sv_cut(&path, '.');
    char key[256];
    if (name.n >= sizeof(key)) {
        return;
    }
    memcpy(key, name.p, name.n);
    key[name.n] = 0;
    json_t *v = json_object_get(from, key);
    if (!v) {
        return;
    }
    if (!path.n || !json_is_object(v)) {
        json_object_set(to, key, v);
        return;
    }
    json_t *child = json_object_get(to, key);
    if (!child) {
        child = json_object();
        json_object_set_new(to, key, child);
        json_t *type = json_object_get(v, "@type");
        if (type) {
            json_object_set(child, "@type", type);
        }
    }
    keep(v, child, path);
}

void config_mask_apply(sv json, sv mask, struct buf *out) {
    json_t *from = json_loadb(json.p, json.n, JSON_DECODE_ANY, NULL);
    json_t *one = json_is_array(from) ? json_array_get(from, 0) : from;
    json_t *to = json_object();
    json_t *type = json_object_get(one, "@type");
    if (type) {
        json_object_set(to, "@type", type);
    }
    while (mask.n) {
        keep(one, to, sv_cut(&mask, ','));
    }
    size_t flags = JSON_INDENT(1);
    char *text = json_object_size(to) > (type != NULL) ? json_dumps(to, flags) : NULL;
    if (text) {
        buf_append_sv(out, sv_cstr(text));
    }
    free(text); /* lint: jansson's allocation */
    json_decref(to);
    json_decref(from);
}
