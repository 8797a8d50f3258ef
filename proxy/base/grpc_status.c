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

unsigned grpc_status_to_http(uint64_t status) {
    static const uint16_t codes[] = {200, 499, 500, 400, 504, 404, 409, 403, 429,
                                     400, 409, 400, 501, 500, 503, 500, 401};
    return status < sizeof(codes) / sizeof(codes[0]) ? codes[status] : 500;
}

bool grpc_status_is_server_error(uint64_t status) {
    enum { UNKNOWN = 2, DEADLINE_EXCEEDED = 4, UNIMPLEMENTED = 12, DATA_LOSS = 15 };
    return status == UNKNOWN || status == DEADLINE_EXCEEDED ||
           (status >= UNIMPLEMENTED && status <= DATA_LOSS);
}
