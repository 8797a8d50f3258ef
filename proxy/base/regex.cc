// RE2 behind a C face.
// Threads: a compiled regex is immutable; RE2 locks inside where its lazy automaton grows.
// Spec: type.matcher.v3.RegexMatcher, RegexMatchAndSubstitute; RE2's own words in errors, as Envoy shows them.
#include "proxy/base/regex.h"

#include <re2/re2.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <string>

extern "C" {
#include "proxy/base/mem.h"
}

#define GROUPS_MAX 64 // captures beyond are given as unmatched

struct regex {
    RE2 re;
    explicit regex(const re2::StringPiece &pattern) : re(pattern, RE2::Quiet) {}
};

// RE2 tells an empty match from none by the pointer.
static re2::StringPiece piece(const char *p, size_t n) { return re2::StringPiece(p ? p : "", n); }

static void set_error(char *err, size_t err_n, const std::string &text) {
    if (err_n) {
        std::snprintf(err, err_n, "%s", text.c_str());
    }
}

struct regex *regex_new(const char *pattern, size_t n, char *err, size_t err_n) {
    regex *r = new regex(piece(pattern, n));
    if (r->re.ok()) {
        return r;
    }
    set_error(err, err_n, r->re.error());
    delete r;
    return nullptr;
}

void regex_free(struct regex *r) { delete r; }

bool regex_full_match(const struct regex *r, const char *p, size_t n) {
    return r->re.Match(piece(p, n), 0, n, RE2::ANCHOR_BOTH, nullptr, 0);
}

bool regex_partial_match(const struct regex *r, const char *p, size_t n) {
    return r->re.Match(piece(p, n), 0, n, RE2::UNANCHORED, nullptr, 0);
}

int regex_program_size(const struct regex *r) { return r->re.ProgramSize(); }

int regex_groups(const struct regex *r) { return r->re.NumberOfCapturingGroups(); }

bool regex_capture(const struct regex *r, const char *p, size_t n, struct regex_cap *caps,
                   int caps_n) {
    re2::StringPiece found[GROUPS_MAX];
    int wanted = caps_n < GROUPS_MAX ? caps_n : GROUPS_MAX;
    if (!r->re.Match(piece(p, n), 0, n, RE2::UNANCHORED, found, wanted)) {
        return false;
    }
    for (int i = 0; i < caps_n; i++) {
        caps[i] = i < wanted ? regex_cap{found[i].data(), found[i].size()} : regex_cap{nullptr, 0};
    }
    return true;
}

bool regex_check_rewrite(const struct regex *r, const char *rewrite, size_t rewrite_n, char *err,
                         size_t err_n) {
    std::string error;
    if (r->re.CheckRewriteString(piece(rewrite, rewrite_n), &error)) {
        return true;
    }
    set_error(err, err_n, error);
    return false;
}

char *regex_replace_all(const struct regex *r, const char *p, size_t n, const char *rewrite,
                        size_t rewrite_n, size_t *out_n) {
    if (!regex_check_rewrite(r, rewrite, rewrite_n, nullptr, 0)) {
        return nullptr;
    }
    std::string text(p ? p : "", n);
    RE2::GlobalReplace(&text, r->re, piece(rewrite, rewrite_n));
    *out_n = text.size();
    char *out = static_cast<char *>(xalloc(text.size() + 1));
    std::memcpy(out, text.c_str(), text.size() + 1);
    return out;
}
