/* HTTP statuses as gRPC's. */
#include "proxy/base/grpc_status.h"

#include "tests/support/unit.h"

static void mapping(void **state) {
    (void)state;
    static const struct {
        unsigned code, status;
    } rows[] = {
        {0, 2},    {100, 2},  {200, 2},  {400, 13}, {401, 16}, {402, 2},
        {403, 7},  {404, 12}, {408, 2},  {429, 14}, {500, 2},  {501, 2},
        {502, 14}, {503, 14}, {504, 14}, {505, 2},  {599, 2},  {999, 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t text;
        assert_int_equal(grpc_status_of_http(rows[i].code), rows[i].status);
        assert_true(sv_to_u64(grpc_status_text_of_http(rows[i].code), &text));
        assert_int_equal(text, rows[i].status);
    }
}

static void servers_errors(void **state) {
    (void)state;
    static const uint64_t blamed[] = {2, 4, 12, 13, 14, 15};
    static const uint64_t others[] = {0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 16, 17, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(blamed); i++) {
        assert_true(grpc_status_is_server_error(blamed[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        assert_false(grpc_status_is_server_error(others[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mapping), cmocka_unit_test(servers_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
