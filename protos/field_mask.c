/* Field masks: see field_mask.h. */
#include "protos/field_mask.h"

bool field_mask_valid(sv mask) {
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

enum field_mask_part field_mask_select(sv mask, sv name, struct arena *a, sv *inner) {
    *inner = SV_NULL;
    if (!mask.n) {
        return FIELD_MASK_ALL;
    }
    char *kept = NULL;
    size_t n = 0, most = mask.n;
    while (mask.n) {
        sv path = sv_cut(&mask, ',');
        if (!sv_eq(sv_cut(&path, '.'), name)) {
            continue;
        }
        if (!path.n) {
            return FIELD_MASK_ALL;
        }
        if (!kept) {
            kept = arena_alloc(a, most);
        } else {
            kept[n++] = ',';
        }
        memcpy(kept + n, path.p, path.n);
        n += path.n;
    }
    *inner = sv_from(kept, n);
    return n ? FIELD_MASK_SOME : FIELD_MASK_NOTHING;
}
