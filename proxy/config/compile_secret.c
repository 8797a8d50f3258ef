/* Secret → struct tls_secret. Threads: the config thread. Spec: transport_sockets.tls.v3.Secret. */
#include "proxy/config/config.h"
#include "proxy/net/tls_cert.h"

bool compile_secret(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    r->secret = tls_secret_compile(ctx->arena, msg, ctx->diag);
    return r->secret != NULL;
}
