/* Field masks as text: "a.b,a.c,d".
 * Threads: any. Spec: google.protobuf.FieldMask, its paths in original names. */
#ifndef SLUICE_PROTOS_FIELD_MASK_H
#define SLUICE_PROTOS_FIELD_MASK_H

#include "proxy/base/arena.h"

/* Is it a comma-separated list of paths, none of them empty? */
bool field_mask_valid(sv mask);

enum field_mask_part { FIELD_MASK_NOTHING, FIELD_MASK_SOME, FIELD_MASK_ALL };
/* What is left of the field `name` under the mask. SOME: of it only what the mask `inner` leaves
 * (in the arena). An empty mask leaves everything. */
enum field_mask_part field_mask_select(sv mask, sv name, struct arena *a, sv *inner);

#endif
