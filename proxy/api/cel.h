/* CEL expressions over the attributes of a request or connection: access-log filters, RBAC
 * conditions, metric dimensions. Compiled once to a tree in the resource's arena, evaluated without
 * side effects.
 * Implemented in proxy/observe/cel*.c. Threads: compile on the config thread; evaluate on any
 * thread, with a scratch arena of the caller's.
 * Limits: text of CEL_TEXT_MAX bytes, CEL_NODES_MAX nodes, CEL_DEPTH_MAX levels; an evaluation ends
 * in an error after CEL_STEPS_MAX loop steps.
 * Spec: the CEL language definition (standard functions and macros, heterogeneous equality);
 * Envoy's attributes (request, response, source, destination, connection, upstream, metadata,
 * filter_state, upstream_filter_state, xds), and Istio's (node, downstream_peer, upstream_peer).
 * Not here: message construction, type(), the optional
 * string extensions. */
#ifndef SLUICE_API_CEL_H
#define SLUICE_API_CEL_H

#include "proxy/api/compile.h"
#include "proxy/observe/stream_info.h"

#define CEL_TEXT_MAX (64u * 1024)
#define CEL_NODES_MAX 4096u
#define CEL_DEPTH_MAX 64u
#define CEL_VARS_MAX 32u /* loop variables in sight at once */
#define CEL_STEPS_MAX 10000u

struct cel;
/* From source text. NULL: error added, with the place in the text. */
const struct cel *cel_compile_text(struct compile_ctx *ctx, sv text);
/* From google.api.expr.v1alpha1.Expr (RBAC's condition). NULL: error added. */
const struct cel *cel_compile_expr(struct compile_ctx *ctx, const void *expr_msg);
/* From xds.type.v3.CelExpression: checked, parsed or text form. NULL: error added. */
const struct cel *cel_compile_expression(struct compile_ctx *ctx, const void *cel_expression_msg);

/* Is the result true? Errors, absent attributes and other types are false. */
bool cel_holds(const struct cel *c, const struct stream_info *si, struct arena *scratch);
/* The result as text: strings as they are, numbers and booleans printed, times in RFC 3339. False:
 * an error, null, a list or a map. *out lives as long as the scratch arena and the stream. */
bool cel_text(const struct cel *c, const struct stream_info *si, struct arena *scratch, sv *out);

#endif
