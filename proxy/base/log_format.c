/* Log line patterns.
 * Threads: a format is immutable once made; printing is reentrant.
 * Spec: spdlog's pattern flags; Envoy's %_ (newlines escaped), %j (message as JSON text), %* (its
 * tags, as JSON members), %+ (as %j, without the tags).
 * Not here: levels, where lines go (log.c). */
#include "proxy/base/log_format.h"

#include <stdio.h>
#include <unistd.h>

#include "proxy/base/mem.h"

#define PIECES_MAX 64u
#define WIDTH_MAX 64u

/* ---- text ---- */

void log_text_init(struct log_text *t) {
    t->p = t->stack;
    t->n = 0;
    t->cap = sizeof(t->stack);
}

void log_text_fini(struct log_text *t) {
    if (t->p != t->stack) {
        xfree(t->p);
    }
}

static void make_room(struct log_text *t, size_t n) {
    if (t->cap - t->n >= n) {
        return;
    }
    size_t cap = (t->n + n) * 2;
    char *p = xalloc(cap);
    memcpy(p, t->p, t->n);
    log_text_fini(t);
    t->p = p;
    t->cap = cap;
}

void log_text_add(struct log_text *t, sv s) {
    make_room(t, s.n);
    if (s.n) {
        memcpy(t->p + t->n, s.p, s.n);
    }
    t->n += s.n;
}

void log_text_vprintf(struct log_text *t, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
    if (n > 0 && (size_t)n >= t->cap - t->n) {
        make_room(t, (size_t)n + 1);
        n = vsnprintf(t->p + t->n, t->cap - t->n, fmt, again);
    }
    va_end(again);
    t->n += n > 0 ? (size_t)n : 0;
}

void log_text_printf(struct log_text *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    log_text_vprintf(t, fmt, ap);
    va_end(ap);
}

/* ---- fields ---- */

static void print_message(struct log_text *t, const struct log_record *r) {
    log_text_add(t, r->message);
}

static void print_one_line(struct log_text *t, const struct log_record *r) {
    for (sv rest = r->message; rest.n;) {
        sv part = sv_sub(rest, 0, sv_find(rest, '\n'));
        log_text_add(t, part);
        log_text_add(t, part.n < rest.n ? SV("\\n") : SV_NULL);
        rest = sv_skip(rest, part.n + 1);
    }
}

static void add_json(struct log_text *t, sv s) {
    static const char shorts[] = "b\bf\fn\nr\rt\t\"\"\\\\"; /* letter, character */
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        const char *hit = NULL;
        for (const char *p = shorts; *p && !hit; p += 2) {
            hit = (unsigned char)p[1] == c ? p : NULL;
        }
        if (hit) {
            log_text_add(t, sv_from((char[2]){'\\', *hit}, 2));
        } else if (c < 0x20 || c == 0x7f) {
            log_text_printf(t, "\\u%04x", c);
        } else {
            log_text_add(t, sv_from(&s.p[i], 1));
        }
    }
}

static void print_json(struct log_text *t, const struct log_record *r) { add_json(t, r->message); }

/* A message may begin with `[Tags: "key":"value",…] `. Cuts it in two; tags are empty without such
 * a beginning. */
static sv cut_tags(sv *message) {
    sv rest = *message;
    if (!sv_eat(&rest, SV("[Tags: "))) {
        return SV_NULL;
    }
    size_t end = sv_find_sv(rest, SV("\"] "));
    if (end == SIZE_MAX) {
        return SV_NULL;
    }
    *message = sv_skip(rest, end + 3);
    return sv_sub(rest, 0, end + 1);
}

static void print_tags(struct log_text *t, const struct log_record *r) {
    sv message = r->message;
    sv tags = cut_tags(&message);
    log_text_add(t, tags.n ? SV(",") : SV_NULL);
    log_text_add(t, tags);
}

static void print_untagged_json(struct log_text *t, const struct log_record *r) {
    sv message = r->message;
    cut_tags(&message);
    add_json(t, message);
}

static void print_component(struct log_text *t, const struct log_record *r) {
    log_text_add(t, sv_cstr(log_component_name(r->component)));
}

static void print_level(struct log_text *t, const struct log_record *r) {
    log_text_add(t, sv_cstr(log_level_name(r->level)));
}

static void print_short_level(struct log_text *t, const struct log_record *r) {
    log_text_add(t, sv_sub(SV("TDIWECO"), r->level, 1));
}

static void print_file(struct log_text *t, const struct log_record *r) {
    log_text_add(t, sv_cstr(r->file));
}

static void print_base_name(struct log_text *t, const struct log_record *r) {
    sv path = sv_cstr(r->file);
    size_t slash = sv_rfind(path, '/');
    log_text_add(t, slash == SIZE_MAX ? path : sv_skip(path, slash + 1));
}

static void print_line_number(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%d", r->line);
}

static void print_place(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%s:%d", r->file, r->line);
}

static void print_thread_id(struct log_text *t, const struct log_record *r) {
    static _Thread_local int id;
    id = id ? id : gettid();
    log_text_printf(t, "%d", id);
    (void)r;
}

static void print_process_id(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%d", getpid());
    (void)r;
}

static void print_ms(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%03ld", r->time.tv_nsec / 1000000);
}

static void print_us(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%06ld", r->time.tv_nsec / 1000);
}

static void print_ns(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%09ld", r->time.tv_nsec);
}

static void print_epoch(struct log_text *t, const struct log_record *r) {
    log_text_printf(t, "%lld", (long long)r->time.tv_sec);
}

/* strftime writes +0100. */
static void print_zone(struct log_text *t, const struct log_record *r) {
    struct tm tm;
    localtime_r(&r->time.tv_sec, &tm);
    long minutes = tm.tm_gmtoff / 60;
    long size = minutes < 0 ? -minutes : minutes;
    log_text_printf(t, "%c%02ld:%02ld", minutes < 0 ? '-' : '+', size / 60, size % 60);
}

static void print_nothing(struct log_text *t, const struct log_record *r) { (void)t, (void)r; }

/* A flag is printed by a function, or by strftime in local time. */
static const struct flag {
    char letter;
    const char *time_format;
    void (*print)(struct log_text *t, const struct log_record *r);
} flags[] = {
    {'v', NULL, print_message},
    {'_', NULL, print_one_line},
    {'j', NULL, print_json},
    {'*', NULL, print_tags},
    {'+', NULL, print_untagged_json},
    {'n', NULL, print_component},
    {'l', NULL, print_level},
    {'L', NULL, print_short_level},
    {'g', NULL, print_file},
    {'s', NULL, print_base_name},
    {'#', NULL, print_line_number},
    {'@', NULL, print_place},
    {'!', NULL, print_nothing},
    {'t', NULL, print_thread_id},
    {'P', NULL, print_process_id},
    {'e', NULL, print_ms},
    {'f', NULL, print_us},
    {'F', NULL, print_ns},
    {'E', NULL, print_epoch},
    {'z', NULL, print_zone},
    {'^', NULL, print_nothing},
    {'$', NULL, print_nothing},
    {'%', "%%", NULL},
    {'a', "%a", NULL},
    {'A', "%A", NULL},
    {'b', "%b", NULL},
    {'h', "%b", NULL},
    {'B', "%B", NULL},
    {'c', "%a %b %e %T %Y", NULL},
    {'C', "%y", NULL},
    {'Y', "%Y", NULL},
    {'D', "%m/%d/%y", NULL},
    {'x', "%m/%d/%y", NULL},
    {'m', "%m", NULL},
    {'d', "%d", NULL},
    {'H', "%H", NULL},
    {'I', "%I", NULL},
    {'M', "%M", NULL},
    {'S', "%S", NULL},
    {'p', "%p", NULL},
    {'r', "%I:%M:%S %p", NULL},
    {'R', "%H:%M", NULL},
    {'T', "%H:%M:%S", NULL},
    {'X', "%H:%M:%S", NULL},
};

static const struct flag *find_flag(char letter) {
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (flags[i].letter == letter) {
            return &flags[i];
        }
    }
    return NULL;
}

/* Broken-down time changes once a second: kept per thread. */
static const struct tm *local_time(time_t seconds) {
    static _Thread_local struct tm tm;
    static _Thread_local time_t of = -1;
    if (of != seconds) {
        localtime_r(&seconds, &tm);
        of = seconds;
    }
    return &tm;
}

/* ---- patterns ---- */

enum align { ALIGN_RIGHT, ALIGN_LEFT, ALIGN_CENTER };

struct piece {
    const struct flag *flag; /* NULL: literal */
    sv literal;
    enum align align;
    size_t width; /* 0: as it comes */
    bool is_cut;  /* not longer than width either */
};

struct log_format {
    char *pattern;
    size_t n;
    struct piece pieces[PIECES_MAX];
};

/* After the '%': [-=] [width [!]] letter. */
static bool parse_flag(sv *s, struct piece *out) {
    *out = (struct piece){0};
    if (sv_eat(s, SV("-"))) {
        out->align = ALIGN_LEFT;
    } else if (sv_eat(s, SV("="))) {
        out->align = ALIGN_CENTER;
    }
    uint64_t width = 0;
    if (sv_eat_u64(s, 3, &width)) {
        out->width = width < WIDTH_MAX ? width : WIDTH_MAX;
        out->is_cut = sv_eat(s, SV("!"));
    }
    out->flag = s->n ? find_flag(s->p[0]) : NULL;
    if (!out->flag) {
        return false;
    }
    *s = sv_skip(*s, 1);
    return true;
}

static bool parse(struct log_format *f, char *err, size_t err_n) {
    sv rest = sv_cstr(f->pattern);
    while (rest.n) {
        if (f->n == PIECES_MAX) {
            snprintf(err, err_n, "log format has more than %u parts", PIECES_MAX);
            return false;
        }
        struct piece *piece = &f->pieces[f->n++];
        if (!sv_eat(&rest, SV("%"))) {
            piece->literal = sv_sub(rest, 0, sv_find(rest, '%'));
            rest = sv_skip(rest, piece->literal.n);
        } else if (!parse_flag(&rest, piece)) {
            snprintf(err, err_n, "unknown flag '%%%.*s' in log format", (int)(rest.n > 0), rest.p);
            return false;
        }
    }
    return true;
}

struct log_format *log_format_new(const char *fmt, char *err, size_t err_n) {
    struct log_format *f = xnew(struct log_format);
    f->pattern = xstrdup(fmt);
    if (!parse(f, err, err_n)) {
        log_format_free(f);
        return NULL;
    }
    return f;
}

void log_format_free(struct log_format *f) {
    if (f) {
        xfree(f->pattern);
        xfree(f);
    }
}

static void print_flag(const struct flag *flag, const struct log_record *r, struct log_text *out) {
    if (flag->print) {
        flag->print(out, r);
        return;
    }
    char text[64];
    size_t n = strftime(text, sizeof(text), flag->time_format, local_time(r->time.tv_sec));
    log_text_add(out, sv_from(text, n));
}

/* Bring what was printed from `start` on to the piece's width. */
static void pad(const struct piece *piece, size_t start, struct log_text *out) {
    size_t n = out->n - start;
    if (n >= piece->width) {
        out->n = piece->is_cut ? start + piece->width : out->n;
        return;
    }
    size_t spaces = piece->width - n;
    size_t before = piece->align == ALIGN_LEFT ? 0 : spaces;
    before = piece->align == ALIGN_CENTER ? spaces / 2 : before;
    make_room(out, spaces);
    char *p = out->p + start;
    memmove(p + before, p, n);
    memset(p, ' ', before);
    memset(p + before + n, ' ', spaces - before);
    out->n += spaces;
}

void log_format_print(const struct log_format *f, const struct log_record *r,
                      struct log_text *out) {
    for (size_t i = 0; i < f->n; i++) {
        const struct piece *piece = &f->pieces[i];
        if (!piece->flag) {
            log_text_add(out, piece->literal);
            continue;
        }
        size_t start = out->n;
        print_flag(piece->flag, r, out);
        if (piece->width) {
            pad(piece, start, out);
        }
    }
}
