/* Dumped xDS resources, read from files for --mode validate: one list of typed, packed messages.
 * Files: DiscoveryResponse or DeltaDiscoveryResponse (.json, .yaml, .yml, .pb), an answer of
 * /config_dump, a list of resources or a single one (.json, .yaml, .yml), each with its "@type".
 * Threads: main, before others start. Not here: what the messages mean (validate.c). */
#ifndef SLUICE_SERVER_RESOURCE_FILES_H
#define SLUICE_SERVER_RESOURCE_FILES_H

#include "protos/pb_json.h"
#include "proxy/base/vec.h"
#include "proxy/config/resource.h"

#define RESOURCE_FILE_BYTES_MAX (512u << 20)
#define RESOURCE_FILES_MAX 10000u /* in a directory */

struct file_resource {
    sv file;                 /* path */
    enum resource_type type; /* RES_TYPES: none of ours */
    sv type_name;            /* the message's full name */
    sv name, wire;
    sv error;      /* why it can not be read; else empty */
    unsigned list; /* the response it is listed in: names are unique there. 0: in none */
    bool is_dump;  /* of /config_dump: parts may be redacted */
};
VEC_TYPE(file_resource_vec, struct file_resource)
struct resource_files {
    struct arena arena; /* all views above are of it */
    struct file_resource_vec v;
    unsigned lists;
    enum pb_json_unknown unknown; /* what is said of fields we do not know */
};

void resource_files_init(struct resource_files *f, enum pb_json_unknown unknown);
void resource_files_fini(struct resource_files *f);
/* Read a file, or those of a directory (not of those below it) whose names end as above, in name
 * order. False: a file is not readable as a whole, told in d; resources that are bad by themselves
 * have their `error`. */
bool resource_files_read(struct resource_files *f, const char *path, struct diag *d);

#endif
