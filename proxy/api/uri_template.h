/* Path templates: "/api/{version}/users/{id=*}" as a matcher, and rewriting by its variables.
 * Threads: compiled on the config thread, immutable. Spec: extensions.path.match.uri_template.v3,
 * extensions.path.rewrite.uri_template.v3: `*` one segment, `**` any number of them, `{name}`,
 * `{name=pattern}`. */
#ifndef SLUICE_API_URI_TEMPLATE_H
#define SLUICE_API_URI_TEMPLATE_H

#include "proxy/api/compile.h"

struct uri_template;
/* NULL: one error in ctx->diag ("path_match_policy.path_template PATTERN is invalid"). */
struct uri_template *uri_template_compile(struct compile_ctx *ctx, sv pattern);
bool uri_template_match(const struct uri_template *t, sv path); /* path without query */
/* A rewrite that refers to variables of `match` by {name}. */
struct uri_template *uri_template_rewrite_compile(struct compile_ctx *ctx, sv pattern,
                                                  const struct uri_template *match);
/* The new path in `a`; p NULL when `path` does not match. */
sv uri_template_rewrite(const struct uri_template *rewrite, sv path, struct arena *a);

#endif
