/* What this build is; a file of its own, so that a new commit recompiles only it.
 * Threads: any, signal handlers too.
 * Spec: Envoy's --version, server_info.version and node.user_agent_build_version. */
#include "proxy/base/version.h"

#ifndef SLUICE_GIT_SHA
#define SLUICE_GIT_SHA "0000000000000000000000000000000000000000"
#endif
#ifndef SLUICE_GIT_STATUS
#define SLUICE_GIT_STATUS "Clean"
#endif
#ifdef SLUICE_DEBUG
#define BUILD_TYPE "DEBUG"
#else
#define BUILD_TYPE "RELEASE"
#endif

const char *version_git_sha(void) { return SLUICE_GIT_SHA; }
const char *version_git_status(void) { return SLUICE_GIT_STATUS; }
const char *version_build_type(void) { return BUILD_TYPE; }

const char *version_string(void) {
    return SLUICE_GIT_SHA "/" SLUICE_VERSION "/" SLUICE_GIT_STATUS "/" BUILD_TYPE
                          "/" SLUICE_SSL_VERSION;
}
