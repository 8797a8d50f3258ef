/* YAML and JSON documents before any message is known: what a reader accepts survives being written
 * and read again, and the JSON writer writes JSON whatever it is given.
 * Input: the document. */
#include <jansson.h>

#include "protos/pb_yaml.h"
#include "proxy/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_tree(json_t *tree) {
    char *text = json_dumps(tree, JSON_ENCODE_ANY | JSON_COMPACT);
    CHECK(text);
    json_t *again = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(again && json_equal(tree, again));
    json_decref(again);
    free(text);
}

static void check_writer(sv text) {
    BUF_AUTO struct buf out = {0};
    struct json_writer w;
    json_begin(&w, &out, text.n % 3);
    json_obj(&w);
    json_key(&w, text);
    json_str(&w, text);
    json_end(&w);
    sv written = buf_pullup(&out, buf_len(&out));
    json_t *tree = json_loadb(written.p, written.n, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    CHECK(tree || sv_find(text, '\0') != SIZE_MAX); /* jansson: no NUL in names */
    json_decref(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct diag d;
    sv text = sv_from(data, n);
    diag_init(&d);
    json_t *tree = pb_yaml_parse(text, &d);
    CHECK((tree != NULL) == diag_ok(&d));
    if (tree) {
        check_tree(tree);
    }
    json_decref(tree);
    check_writer(text);
    diag_fini(&d);
    chunk_cache_trim();
    return 0;
}
