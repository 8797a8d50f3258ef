/* A trace's context as callers send it: B3 in several headers or one, traceparent. What is read is
 * written so that it is read as the same.
 * Input: values of the headers below, in order, parted by newlines; an empty one is not sent. */
#include "filters/common/trace_context.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const names[] = {
    "b3",           "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
    "x-b3-sampled", "x-b3-flags",   "traceparent", "traceparent"};

static bool same(const struct trace_context *a, const struct trace_context *b) {
    return a->trace_high == b->trace_high && a->trace_low == b->trace_low && a->span == b->span;
}

static void write_b3(const struct trace_context *c, bool is_single, struct arena *a) {
    struct headers h;
    struct trace_context again = {0};
    struct trace_span s = {.trace_high = c->trace_high,
                           .trace_low = c->trace_low,
                           .id = c->span,
                           .parent_id = c->parent,
                           .has_parent = c->parent != 0,
                           .is_sampled = c->is_sampled,
                           .uses_single_b3 = is_single};
    headers_init(&h, a);
    trace_inject_b3(&s, &h);
    CHECK(trace_context_b3(&h, &again) == TRACE_CONTEXT_FOUND && same(c, &again));
    CHECK(again.has_sampled && again.is_sampled == c->is_sampled);
}

static void write_w3c(const struct trace_context *c, struct arena *a) {
    struct headers h;
    struct trace_context again = {0};
    struct trace_span s = {.trace_high = c->trace_high,
                           .trace_low = c->trace_low,
                           .id = c->span,
                           .is_sampled = c->is_sampled};
    headers_init(&h, a);
    trace_inject_traceparent(&s, &h);
    CHECK(trace_context_w3c(&h, &again) == TRACE_CONTEXT_FOUND && same(c, &again));
    CHECK(again.is_sampled == c->is_sampled);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct headers h;
    struct trace_context c = {0};
    sv rest = sv_from(data, n);
    arena_init(&a, 0);
    headers_init(&h, &a);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        sv value = sv_cut(&rest, '\n');
        if (value.n) {
            headers_add_copy(&h, sv_cstr(names[i]), value);
        }
    }
    if (trace_context_b3(&h, &c) == TRACE_CONTEXT_FOUND) {
        write_b3(&c, headers_get_name(&h, SV("b3")).n != 0, &a);
    }
    c = (struct trace_context){0};
    if (trace_context_w3c(&h, &c) == TRACE_CONTEXT_FOUND) {
        CHECK((c.trace_high || c.trace_low) && c.span);
        write_w3c(&c, &a);
    }
    uint64_t ignored;
    (void)trace_hex_parse(sv_from(data, n), &ignored);
    arena_fini(&a);
    return 0;
}
