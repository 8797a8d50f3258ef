/* What filters may ask about a connection's TLS session: certificates, names, versions (net/tls.h).
 * Threads: the connection's worker. */
#ifndef SLUICE_API_TLS_INFO_H
#define SLUICE_API_TLS_INFO_H

#include "proxy/net/conn.h"
#include "proxy/net/tls.h"

#endif
