/* Bootstrap settings that are refused, and those accepted without effect. Threads: main, at
 * start. */
#ifndef SLUICE_SERVER_BOOTSTRAP_CHECK_H
#define SLUICE_SERVER_BOOTSTRAP_CHECK_H

#include "protos/gen/bootstrap.pb-c.h"
#include "proxy/base/diag.h"

/* False: errors in d. What has no effect is logged once. */
bool bootstrap_check(const Bootstrap__Bootstrap *b, struct diag *d);

#endif
