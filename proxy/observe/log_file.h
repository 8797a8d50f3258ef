/* The built-in access loggers: file, stdout, stderr. */
#ifndef SLUICE_OBSERVE_LOG_FILE_H
#define SLUICE_OBSERVE_LOG_FILE_H

#include "proxy/api/access_logger.h"

extern const struct access_logger_type file_access_logger, stdout_access_logger,
    stderr_access_logger;

#endif
