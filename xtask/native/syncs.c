/* Counts a program's fsync and fdatasync calls from inside of it, and can make them slow or skip them.
 *
 * Preloaded (LD_PRELOAD) into a program that is linked dynamically; the file that SYNCS_PAGE names is mapped and shared with the
 * script that measures: see `Syncs` in xtask/measure.py for the same four numbers. Costs a few nanoseconds a call, which no
 * tracer does. Built with `cc -O2 -shared -fPIC` when it is first needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct page {
    _Atomic uint64_t calls;
    _Atomic uint64_t nanoseconds;
    _Atomic uint64_t stalled_until; /* CLOCK_MONOTONIC, nanoseconds: a call that begins before does not end before */
    _Atomic uint64_t skipped;       /* not 0: succeed without doing anything, to see what syncs cost */
};

static struct page own, *shared = &own;
static int (*real_fsync)(int), (*real_fdatasync)(int);

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("SYNCS_PAGE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(0, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        shared = mapped;
    close(file);
}

static int counted(int (*real)(int), int file) {
    if (shared->skipped)
        return 0;
    uint64_t began = now();
    int result = real(file);
    uint64_t until = shared->stalled_until;
    while (began < until && now() < until) {
        struct timespec at = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, 0);
    }
    shared->nanoseconds += now() - began;
    shared->calls += 1;
    return result;
}

int fsync(int file) { return counted(real_fsync, file); }
int fdatasync(int file) { return counted(real_fdatasync, file); }
