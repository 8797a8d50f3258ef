/* Resource monitors: see overload_monitors.h. */
#include "proxy/server/overload_monitors.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protos/gen/resource_monitors_cgroup_memory.pb-c.h"
#include "protos/gen/resource_monitors_cpu_utilization.pb-c.h"
#include "protos/gen/resource_monitors_fixed_heap.pb-c.h"
#include "protos/gen/resource_monitors_injected_resource.pb-c.h"

#define FILE_MAX 4096u   /* of a monitored file */
#define CPU_DAMPING 0.05 /* weight of the newest sample of CPU use */

/* A file's text without blanks around it, in `room`; false: it can't be read. */
static bool read_text(const char *path, char room[FILE_MAX], sv *out) {
    FILE *f = fopen(path, "re");
    if (!f) {
        return false;
    }
    size_t n = fread(room, 1, FILE_MAX - 1, f);
    bool ok = !ferror(f);
    fclose(f);
    while (n && (unsigned char)room[n - 1] <= ' ') {
        n--;
    }
    room[n] = 0;
    *out = sv_trim(sv_from(room, n));
    return ok;
}

static bool read_number(const char *path, uint64_t *out) {
    char room[FILE_MAX];
    sv text;
    return read_text(path, room, &text) && sv_to_u64(text, out);
}

/* ---- injected_resource: a number between 0 and 1 in a file, read anew when that is replaced
 * ---- */

struct injected {
    struct overload_monitor base;
    const char *path;
    struct stat seen; /* of the file read last */
    bool is_known;
    double pressure;
};

static bool sample_injected(struct overload_monitor *m, double *pressure) {
    struct injected *i = (struct injected *)m;
    struct stat st;
    if (stat(i->path, &st) == 0 && i->is_known && st.st_ino == i->seen.st_ino &&
        memcmp(&st.st_ctim, &i->seen.st_ctim, sizeof(st.st_ctim)) == 0) {
        *pressure = i->pressure;
        return true;
    }
    char room[FILE_MAX], *end;
    sv text;
    i->is_known = false;
    if (!read_text(i->path, room, &text) || !text.n) {
        return false;
    }
    double v = strtod(text.p, &end);
    if (end != text.p + text.n || !(v >= 0 && v <= 1)) {
        return false;
    }
    i->seen = st;
    i->is_known = true;
    *pressure = i->pressure = v;
    return true;
}

static const struct overload_monitor_type injected_type;
static struct overload_monitor *compile_injected(struct compile_ctx *ctx, const void *msg) {
    const ResourceMonitorsInjectedResource__InjectedResourceConfig *m = msg;
    struct injected *i = arena_new(ctx->arena, struct injected);
    i->base.type = &injected_type;
    i->path = arena_cstr(ctx->arena, sv_cstr(m->filename));
    if (access(i->path, F_OK) < 0) {
        diag_error(ctx->diag, "unable to add filesystem watch for file %s: %s", i->path,
                   strerror(errno));
        return NULL;
    }
    return &i->base;
}
static const struct overload_monitor_type injected_type = {
    "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
    compile_injected, sample_injected};

/* ---- fixed_heap: resident memory of the process ---- */

struct fixed_heap {
    struct overload_monitor base;
    uint64_t max_bytes;
};

static bool sample_fixed_heap(struct overload_monitor *m, double *pressure) {
    char room[FILE_MAX];
    sv text;
    uint64_t pages;
    if (!read_text("/proc/self/statm", room, &text)) {
        return false;
    }
    sv_cut(&text, ' '); /* size; then resident */
    if (!sv_to_u64(sv_cut(&text, ' '), &pages)) {
        return false;
    }
    double used = (double)pages * (double)sysconf(_SC_PAGESIZE);
    *pressure = used / (double)((struct fixed_heap *)m)->max_bytes;
    return true;
}

static const struct overload_monitor_type fixed_heap_type;
static struct overload_monitor *compile_fixed_heap(struct compile_ctx *ctx, const void *msg) {
    const ResourceMonitorsFixedHeap__FixedHeapConfig *m = msg;
    if (!m->max_heap_size_bytes) {
        diag_error(ctx->diag, "fixed_heap: max heap size must be greater than 0");
        return NULL;
    }
    struct fixed_heap *h = arena_new(ctx->arena, struct fixed_heap);
    *h = (struct fixed_heap){{&fixed_heap_type}, m->max_heap_size_bytes};
    return &h->base;
}
static const struct overload_monitor_type fixed_heap_type = {
    "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", compile_fixed_heap,
    sample_fixed_heap};

/* ---- cgroup_memory: of the whole cgroup, v2 or v1 ---- */

struct cgroup_memory {
    struct overload_monitor base;
    uint64_t max_bytes; /* 0: the cgroup's own limit */
};

static bool sample_cgroup_memory(struct overload_monitor *m, double *pressure) {
    static const struct {
        const char *used, *limit;
    } files[] = {
        {"/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"},
        {"/sys/fs/cgroup/memory/memory.usage_in_bytes",
         "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        uint64_t used, limit, max = ((struct cgroup_memory *)m)->max_bytes;
        if (!read_number(files[i].used, &used)) {
            continue;
        }
        if (!read_number(files[i].limit, &limit)) {
            limit = UINT64_MAX; /* "max": there is none */
        }
        max = max && max < limit ? max : limit;
        *pressure = max == UINT64_MAX || !max ? 0 : (double)used / (double)max;
        return true;
    }
    return false;
}

static const struct overload_monitor_type cgroup_memory_type;
static struct overload_monitor *compile_cgroup_memory(struct compile_ctx *ctx, const void *msg) {
    const ResourceMonitorsCgroupMemory__CgroupMemoryConfig *m = msg;
    struct cgroup_memory *c = arena_new(ctx->arena, struct cgroup_memory);
    *c = (struct cgroup_memory){{&cgroup_memory_type}, m->max_memory_bytes};
    return &c->base;
}
static const struct overload_monitor_type cgroup_memory_type = {
    "envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig", compile_cgroup_memory,
    sample_cgroup_memory};

/* ---- cpu_utilization: of the host, or of the cgroup (v2) against its quota ---- */

struct cpu {
    struct overload_monitor base;
    bool is_container, is_begun;
    double busy, total; /* at the sample before, in the same unit */
    double pressure;    /* smoothed */
};

/* /proc/stat: "cpu user nice system idle …", in ticks. */
static bool host_ticks(double *busy, double *total) {
    char room[FILE_MAX];
    sv text;
    if (!read_text("/proc/stat", room, &text)) {
        return false;
    }
    sv line = sv_cut(&text, '\n');
    sv_cut(&line, ' ');
    double v[4];
    for (unsigned i = 0; i < ARRAY_LEN(v);) {
        sv word = sv_cut(&line, ' ');
        uint64_t n;
        if (!word.n && line.n) {
            continue; /* two blanks behind "cpu" */
        }
        if (!sv_to_u64(word, &n)) {
            return false;
        }
        v[i++] = (double)n;
    }
    *busy = v[0] + v[1] + v[2];
    *total = *busy + v[3];
    return true;
}

/* CPUs that the cgroup may use: cpu.max is "quota period" or "max period", in microseconds. */
static double cgroup_cpus(void) {
    char room[FILE_MAX];
    sv text;
    uint64_t quota, period;
    if (read_text("/sys/fs/cgroup/cpu.max", room, &text) && sv_to_u64(sv_cut(&text, ' '), &quota) &&
        sv_to_u64(text, &period) && quota && period) {
        return (double)quota / (double)period;
    }
    return (double)sysconf(_SC_NPROCESSORS_ONLN);
}

/* cpu.stat begins with "usage_usec n". */
static bool cgroup_time(double *busy, double *total) {
    char room[FILE_MAX];
    sv text;
    uint64_t used;
    if (!read_text("/sys/fs/cgroup/cpu.stat", room, &text)) {
        return false;
    }
    sv line = sv_cut(&text, '\n');
    if (!sv_is(sv_cut(&line, ' '), "usage_usec") || !sv_to_u64(line, &used)) {
        return false;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *busy = (double)used;
    *total = ((double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3) * cgroup_cpus();
    return true;
}

static bool sample_cpu(struct overload_monitor *m, double *pressure) {
    struct cpu *c = (struct cpu *)m;
    double busy, total;
    if (!(c->is_container ? cgroup_time(&busy, &total) : host_ticks(&busy, &total))) {
        return false;
    }
    double used = busy - c->busy, of = total - c->total;
    if (c->is_begun && of > 0 && used >= 0) {
        c->pressure = used / of * CPU_DAMPING + c->pressure * (1 - CPU_DAMPING);
    }
    c->is_begun = true;
    c->busy = busy;
    c->total = total;
    *pressure = c->pressure;
    return true;
}

static const struct overload_monitor_type cpu_type;
static struct overload_monitor *compile_cpu(struct compile_ctx *ctx, const void *msg) {
    const ResourceMonitorsCpuUtilization__CpuUtilizationConfig *m = msg;
    struct cpu *c = arena_new(ctx->arena, struct cpu);
    c->base.type = &cpu_type;
    c->is_container =
        m->mode ==
        RESOURCE_MONITORS_CPU_UTILIZATION__CPU_UTILIZATION_CONFIG__UTILIZATION_COMPUTE_STRATEGY__CONTAINER;
    return &c->base;
}
static const struct overload_monitor_type cpu_type = {
    "envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig", compile_cpu,
    sample_cpu};

const struct overload_monitor_type *overload_monitor_type(sv type_url) {
    static const struct overload_monitor_type *const types[] = {&injected_type, &fixed_heap_type,
                                                                &cgroup_memory_type, &cpu_type};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (sv_is(type_url, types[i]->type_url)) {
            return types[i];
        }
    }
    return NULL;
}
