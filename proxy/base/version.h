/* What this build is. The build sets SLUICE_GIT_SHA (40 hex digits) and SLUICE_GIT_STATUS ("Clean",
 * "Modified"). */
#ifndef SLUICE_BASE_VERSION_H
#define SLUICE_BASE_VERSION_H

#define SLUICE_VERSION_MAJOR 0
#define SLUICE_VERSION_MINOR 1
#define SLUICE_VERSION_PATCH 0
#define SLUICE_VERSION "0.1.0"
#define SLUICE_SSL_VERSION "BoringSSL"

/* As Envoy writes it: <sha>/<version>/<Clean|Modified>/<RELEASE|DEBUG>/<TLS library>. All are
 * static strings. */
const char *version_string(void);
const char *version_git_sha(void);
const char *version_git_status(void);
const char *version_build_type(void);

#endif
