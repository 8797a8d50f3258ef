/* Configuration errors and warnings with the proto path at which they arose.
 * Threads: one owner.
 * Spec: the texts end in xDS NACKs (DiscoveryRequest.error_detail) and in admin's error_state. */
#include "proxy/base/diag.h"

#include <stdio.h>

static void forget(struct diag *d) {
    d->path_len_ = d->text_bytes_ = 0;
    d->errors_ = d->errors_dropped_ = d->warnings_ = 0;
    d->warning_list_ = NULL;
    d->warning_tail_ = &d->warning_list_;
}

void diag_init(struct diag *d) {
    arena_init(&d->arena_, 0);
    forget(d);
}

void diag_fini(struct diag *d) { arena_fini(&d->arena_); }

void diag_reset(struct diag *d) {
    arena_reset(&d->arena_);
    forget(d);
}

sv diag_path(const struct diag *d) { return sv_from(d->path_, d->path_len_); }

/* "<path>: <message>" in the arena; false when all texts together would be too long. */
static bool add_text(struct diag *d, const char *fmt, va_list ap, sv *out) {
    sv message = arena_vprintf(&d->arena_, fmt, ap);
    sv path = diag_path(d);
    *out = path.n ? arena_printf(&d->arena_, "%.*s: %.*s", SV_ARG(path), SV_ARG(message)) : message;
    if (out->n > DIAG_TEXT_MAX - d->text_bytes_) {
        return false;
    }
    d->text_bytes_ += out->n;
    return true;
}

bool diag_error(struct diag *d, const char *fmt, ...) {
    unsigned kept = d->errors_ - d->errors_dropped_;
    d->errors_++;
    if (kept == DIAG_ERRORS_MAX) {
        d->errors_dropped_++;
        return false;
    }
    va_list ap;
    va_start(ap, fmt);
    if (!add_text(d, fmt, ap, &d->error_v_[kept])) {
        d->errors_dropped_++;
    }
    va_end(ap);
    return false;
}

void diag_warn(struct diag *d, const char *fmt, ...) {
    if (d->warnings_++ >= DIAG_WARNINGS_MAX) {
        return;
    }
    struct diag_warning *w = arena_new(&d->arena_, struct diag_warning);
    va_list ap;
    va_start(ap, fmt);
    if (add_text(d, fmt, ap, &w->text)) {
        *d->warning_tail_ = w;
        d->warning_tail_ = &w->next;
    }
    va_end(ap);
}

sv diag_text(struct diag *d) {
    struct buf text BUF_AUTO;
    buf_init(&text);
    unsigned kept = d->errors_ - d->errors_dropped_;
    for (unsigned i = 0; i < kept; i++) {
        buf_append_sv(&text, i ? SV("; ") : SV_NULL);
        buf_append_sv(&text, d->error_v_[i]);
    }
    if (d->errors_dropped_) {
        buf_printf(&text, "%s(and %u more)", kept ? " " : "", d->errors_dropped_);
    }
    size_t n = buf_len(&text);
    char *out = arena_alloc(&d->arena_, n + 1);
    out[buf_peek(&text, 0, out, n)] = '\0';
    return sv_from(out, n);
}

size_t diag_push(struct diag *d, const char *fmt, ...) {
    size_t old_len = d->path_len_;
    size_t room = sizeof(d->path_) - old_len;
    bool is_index = fmt[0] == '[';
    if (old_len && !is_index && room > 1) {
        d->path_[d->path_len_++] = '.';
        room--;
    }
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->path_ + d->path_len_, room, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    d->path_len_ += (size_t)n < room ? (size_t)n : room - 1;
    return old_len;
}

void diag_pop(struct diag *d, size_t old_len) {
    ASSERT(old_len <= d->path_len_);
    d->path_len_ = old_len;
}
