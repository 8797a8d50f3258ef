/* See grpc_status.h. */
#include "proxy/base/grpc_status.h"

static const struct {
    unsigned code, status;
    sv text;
} known[] = {
    {400, 13, SV_INIT("13")}, {401, 16, SV_INIT("16")}, {403, 7, SV_INIT("7")},
    {404, 12, SV_INIT("12")}, {429, 14, SV_INIT("14")}, {502, 14, SV_INIT("14")},
    {503, 14, SV_INIT("14")}, {504, 14, SV_INIT("14")}, {0, 2, SV_INIT("2")},
};

static size_t find(unsigned code) {
    size_t i = 0;
    while (known[i].code && known[i].code != code) {
        i++;
    }
    return i;
}

unsigned grpc_status_of_http(unsigned code) { return known[find(code)].status; }
sv grpc_status_text_of_http(unsigned code) { return known[find(code)].text; }
