/* YAML to a JSON tree, with the scalars resolved as Envoy's loader does. Threads: any. */
#ifndef SLUICE_PROTOS_PB_YAML_H
#define SLUICE_PROTOS_PB_YAML_H

#include <jansson.h>

#include "proxy/base/diag.h"

#define PB_YAML_DEPTH_MAX 100u           /* collections within collections */
#define PB_YAML_ALIAS_NODES_MAX 1000000u /* nodes that aliases may stand for, all in all */

/* The first document of `text` for pb_json_parse: a new reference. NULL with an error that tells
 * line and column.
 * Plain scalars: null, booleans (also yes/no, on/off, y/n), integers of 32 bits (decimal, 0x,
 * 0-octal); larger integers become decimal strings, all else strings as written (reals too: the
 * field's type decides). Quoted ones are strings. Of equal keys the last counts; a key tagged
 * !ignore is left out with its value; there are no merge keys. */
json_t *pb_yaml_parse(sv text, struct diag *d);

#endif
