/* Moves into directories, told once per batch to all who watch. */
#include "proxy/event/dir_watch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/base/buf.h"
#include "tests/support/unit.h"

static struct loop loop;
static struct dir_watcher *watcher;
static char root[] = "/tmp/sluice-watch-XXXXXX", dir[64];
static unsigned told[3];
static struct dir_watch watches[3];

static void on_move(struct dir_watch *w) { told[w - watches]++; }
static void turn(void) {
    loop_run_nowait(&loop);
    loop_run_nowait(&loop);
}

static void path_in(char *out, size_t n, const char *where, const char *name) {
    snprintf(out, n, "%s/%s", where, name);
}

static void write_file(const char *where, const char *name) {
    char path[128];
    path_in(path, sizeof(path), where, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void move(const char *name, const char *to) {
    char a[128], b[128];
    write_file(root, name);
    path_in(a, sizeof(a), root, name);
    path_in(b, sizeof(b), dir, to);
    assert_int_equal(rename(a, b), 0);
}

static int setup(void **state) {
    (void)state;
    memcpy(root + sizeof(root) - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(root));
    path_in(dir, sizeof(dir), root, "d");
    assert_int_equal(mkdir(dir, 0700), 0);
    memset(told, 0, sizeof(told));
    memset(watches, 0, sizeof(watches));
    assert_int_equal(loop_init(&loop, 0), 0);
    watcher = dir_watcher_new(&loop);
    assert_non_null(watcher);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    for (unsigned i = 0; i < ARRAY_LEN(watches); i++) {
        dir_watch_cancel(&watches[i]);
    }
    dir_watcher_free(watcher);
    turn();
    loop_fini(&loop);
    snprintf(command, sizeof(command), "rm -rf %s", root);
    assert_int_equal(system(command), 0);
    chunk_cache_trim();
    return 0;
}

static void start(unsigned i) {
    assert_int_equal(dir_watch_start(watcher, &watches[i], sv_cstr(dir), on_move), 0);
}

static void moves_are_told_once_a_batch(void **state) {
    (void)state;
    start(0);
    start(1);
    move("a", "x");
    move("b", "y");
    turn();
    assert_int_equal(told[0], 1);
    assert_int_equal(told[1], 1);
    dir_watch_cancel(&watches[0]);
    move("a", "x");
    turn();
    assert_int_equal(told[0], 1);
    assert_int_equal(told[1], 2);
}

static void writing_in_place_is_not_told(void **state) {
    (void)state;
    start(0);
    write_file(dir, "x");
    write_file(dir, "x");
    turn();
    assert_int_equal(told[0], 0);
}

static void swapped_link(void **state) {
    (void)state;
    char to[128], new_link[128];
    path_in(to, sizeof(to), dir, "..data");
    path_in(new_link, sizeof(new_link), dir, "..new");
    start(0);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(symlink("..v", new_link), 0);
        assert_int_equal(rename(new_link, to), 0);
        turn();
        assert_int_equal(told[0], i);
    }
}

static void what_can_not_be_watched(void **state) {
    (void)state;
    write_file(dir, "file");
    char path[128];
    path_in(path, sizeof(path), dir, "file");
    assert_int_equal(dir_watch_start(watcher, &watches[0], sv_cstr(path), on_move), UV_ENOTDIR);
    path_in(path, sizeof(path), dir, "nothing");
    assert_int_equal(dir_watch_start(watcher, &watches[0], sv_cstr(path), on_move), UV_ENOENT);
    dir_watch_cancel(&watches[0]);
}

static void directory_that_goes_and_comes(void **state) {
    (void)state;
    start(0);
    assert_int_equal(rmdir(dir), 0);
    turn();
    assert_int_equal(mkdir(dir, 0700), 0);
    start(1); /* the new one */
    move("a", "x");
    turn();
    assert_int_equal(told[0], 0);
    assert_int_equal(told[1], 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(moves_are_told_once_a_batch), TEST(writing_in_place_is_not_told),  TEST(swapped_link),
        TEST(what_can_not_be_watched),     TEST(directory_that_goes_and_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
