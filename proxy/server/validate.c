/* Dry runs of a push: see validate.h. */
#include "proxy/server/validate.h"

#include <stdio.h>

#include "proxy/api/transport_socket.h"
#include "proxy/base/mem.h"
#include "proxy/server/resource_files.h"

struct validate {
    struct config *config;
    const struct validate_static *known;
    struct resource_files files;
    struct map have[RES_TYPES];  /* names in the files */
    struct map listed;           /* "list type name" of responses */
    VEC(struct resource *) good; /* one ref each: references are looked at in the end */
    /* by cluster slot: who named it first; NULL: the bootstrap, or one that is bad */
    VEC(const struct resource *) first_user;
    slot_t bootstrap_slots;
    unsigned checked, bad, skipped, warnings;
    unsigned undumped[RES_TYPES]; /* references to types the files do not have at all */
};

/* ---- telling ---- */

static void tell_bad(struct validate *v, const struct file_resource *r, sv why) {
    v->bad++;
    fprintf(stderr, "%.*s: %.*s '%.*s': %.*s\n", SV_ARG(r->file), SV_ARG(r->type_name),
            SV_ARG(r->name), SV_ARG(why));
}

static void warn(struct validate *v, sv user, enum resource_type t, sv name) {
    if (++v->warnings <= VALIDATE_WARNINGS_MAX) {
        fprintf(stderr, "warning: %.*s refers to %s '%.*s', which is not there\n", SV_ARG(user),
                resource_types[t].proto_name, SV_ARG(name));
    }
}

static void warn_of(struct validate *v, const struct resource *r, enum resource_type t, sv name) {
    struct buf BUF_AUTO user;
    buf_init(&user);
    buf_printf(&user, "%s '%.*s'", resource_types[r->type].proto_name, SV_ARG(r->name));
    warn(v, buf_pullup(&user, buf_len(&user)), t, name);
}

/* ---- what there is ---- */

static bool has_cluster(void *user, sv name) {
    const struct validate *v = user;
    return map_get(&v->have[RES_CLUSTER], name) ||
           v->known->has(v->known->user, RES_CLUSTER, NULL, name);
}

/* False: the response lists the name twice. */
static bool note_listed(struct validate *v, const struct file_resource *r) {
    if (!r->list) {
        return true;
    }
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_printf(&b, "%u %u %.*s", r->list, (unsigned)r->type, SV_ARG(r->name));
    sv key = arena_sv(&v->files.arena, buf_pullup(&b, buf_len(&b)));
    return map_put(&v->listed, key, v) == NULL;
}

static void note_names(struct validate *v) {
    for (size_t i = 0; i < v->files.v.n; i++) {
        struct file_resource *r = &v->files.v.p[i];
        if (r->type == RES_TYPES) {
            continue;
        }
        map_put(&v->have[r->type], r->name, r);
        if (!r->error.n && !note_listed(v, r)) {
            r->error = SV("duplicate resource name in the response");
        }
    }
}

/* ---- compiling ---- */

/* Certificates and keys that are there already must fit together. */
static void try_transports(const struct resource *r, struct diag *d) {
    static const struct secret_source none = {NULL, 0};
    for (unsigned i = 0; i < r->transports_n; i++) {
        const struct transport_def *t = &r->transports[i];
        struct transport_factory *f = t->secrets_n == 0 ? t->type->make(t->config, &none, d) : NULL;
        if (f) {
            shared_unref(&f->shared);
        }
    }
}

static void note_cluster_user(struct validate *v, const struct resource *r) {
    while (v->first_user.n < names_count(v->config->clusters)) {
        *vec_push(&v->first_user) = r;
    }
}

static bool is_redacted(const struct file_resource *r) {
    static const sv mark = SV_INIT("[redacted]");
    return r->is_dump && memmem(r->wire.p, r->wire.n, mark.p, mark.n) != NULL;
}

static void compile(struct validate *v, const struct file_resource *r, struct diag *d) {
    v->checked++;
    if (r->error.n) {
        tell_bad(v, r, r->error);
        return;
    }
    if (is_redacted(r)) {
        v->skipped++;
        return;
    }
    diag_reset(d);
    struct resource *made =
        resource_compile(v->config, r->type, r->name, SV_NULL, r->wire, false, NULL, d);
    if (made) {
        try_transports(made, d);
    }
    if (!diag_ok(d)) {
        tell_bad(v, r, diag_text(d));
        if (made) {
            shared_unref(&made->shared);
        }
        note_cluster_user(v, NULL);
        return;
    }
    note_cluster_user(v, made);
    *vec_push(&v->good) = made;
}

/* In the order in which updates are applied: a listener may ask for its clusters. */
static void compile_all(struct validate *v) {
    struct diag *d = xnew(struct diag);
    diag_init(d);
    for (int t = 0; t <= RES_TYPES; t++) {
        for (size_t i = 0; i < v->files.v.n; i++) {
            if ((int)v->files.v.p[i].type == t) {
                compile(v, &v->files.v.p[i], d);
            }
        }
    }
    diag_fini(d);
    xfree(d);
}

/* ---- references ---- */

static void check_refs(struct validate *v, const struct resource *r) {
    for (unsigned i = 0; i < r->refs_n; i++) {
        const struct resource_ref *ref = &r->refs[i];
        if (map_get(&v->have[ref->type], ref->name) ||
            v->known->has(v->known->user, ref->type, ref->source, ref->name)) {
            continue;
        }
        if (map_count(&v->have[ref->type]) == 0) {
            v->undumped[ref->type]++;
            continue;
        }
        warn_of(v, r, ref->type, ref->name);
    }
}

static void check_cluster_names(struct validate *v) {
    const struct names *n = v->config->clusters;
    for (slot_t s = 0; s < names_count(n); s++) {
        sv name = names_of(n, s);
        if (!name.n || !names_refs(n, s) || has_cluster(v, name)) {
            continue;
        }
        if (v->first_user.p[s]) {
            warn_of(v, v->first_user.p[s], RES_CLUSTER, name);
        } else {
            warn(v, s < v->bootstrap_slots ? SV("the bootstrap") : SV("a resource"), RES_CLUSTER,
                 name);
        }
    }
}

static void check_references(struct validate *v) {
    for (size_t i = 0; i < v->good.n; i++) {
        check_refs(v, v->good.p[i]);
    }
    check_cluster_names(v);
    if (v->warnings > VALIDATE_WARNINGS_MAX) {
        fprintf(stderr, "warning: and %u more references to what is not there\n",
                v->warnings - VALIDATE_WARNINGS_MAX);
    }
    for (int t = 0; t < RES_TYPES; t++) {
        if (v->undumped[t]) {
            fprintf(stderr, "warning: %u references to %s are not checked: none was given\n",
                    v->undumped[t], resource_types[t].proto_name);
        }
    }
}

/* ---- the run ---- */

static enum pb_json_unknown unknown_policy(const struct config *c) {
    return c->reject_unknown_dynamic   ? PB_JSON_UNKNOWN_ERROR
           : c->ignore_unknown_dynamic ? PB_JSON_UNKNOWN_SKIP
                                       : PB_JSON_UNKNOWN_WARN;
}

static void read_all(struct validate *v, const struct option_list *paths) {
    struct diag *d = xnew(struct diag);
    for (size_t i = 0; i < paths->n; i++) {
        diag_init(d);
        if (!resource_files_read(&v->files, paths->p[i], d)) {
            v->bad++;
            fprintf(stderr, "%.*s\n", SV_ARG(diag_text(d)));
        }
        diag_fini(d);
    }
    xfree(d);
}

static void fini(struct validate *v) {
    for (size_t i = 0; i < v->good.n; i++) {
        shared_unref(&v->good.p[i]->shared);
    }
    for (int t = 0; t < RES_TYPES; t++) {
        map_fini(&v->have[t]);
    }
    map_fini(&v->listed);
    vec_fini(&v->good);
    vec_fini(&v->first_user);
    resource_files_fini(&v->files);
}

bool validate_resources(struct config *c, const struct option_list *paths,
                        const struct validate_static *known) {
    struct validate v = {.config = c, .known = known};
    const struct config saved = *c;
    c->has_cluster = has_cluster;
    c->user = &v;
    v.bootstrap_slots = names_count(c->clusters);
    note_cluster_user(&v, NULL);
    resource_files_init(&v.files, unknown_policy(c));
    read_all(&v, paths);
    note_names(&v);
    compile_all(&v);
    check_references(&v);
    printf("resources: %u checked, %u bad, %u skipped as redacted, %u warnings\n", v.checked, v.bad,
           v.skipped, v.warnings);
    c->has_cluster = saved.has_cluster;
    c->user = saved.user;
    fini(&v);
    return v.bad == 0;
}
