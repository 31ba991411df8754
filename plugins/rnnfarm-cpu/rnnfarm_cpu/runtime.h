/* What every generated program shares: packing, and threads that meet at barriers. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

/* Functions of which there is to be one copy, which compiles sooner. */
#define APART __attribute__((noinline, noclone))

/* Columns: lane l of vector k is w[k * ldw + l], and 0 from lane n on. */
APART static void rnn_pack_columns(const real *w, long ldw, long inputs, long n, real *to, long stride) {
    for (long k = 0; k < inputs; ++k)
        rnn_store(to + k * stride, n > 0 ? rnn_load(w + k * ldw, n) : rnn_splat(0), RNN_LANES);
}

/* Rows: lane l of vector k is w[l * ldw + k], and 0 from lane n on. */
APART static void rnn_pack_rows(const real *w, long ldw, long inputs, long n, real *to, long stride) {
    for (long k = 0; k < inputs; ++k)
        for (long l = 0; l < RNN_LANES; ++l)
            to[k * stride + l] = l < n ? w[l * ldw + k] : 0;
}

/* A barrier that spins, since steps are short; it lets others run where it has to wait long. */
typedef struct { long members; long waiting; long round; } Barrier;

static void meet(Barrier *barrier) {
    if (barrier->members < 2) return;
    const long round = __atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&barrier->waiting, 1, __ATOMIC_ACQ_REL) == barrier->members) {
        __atomic_store_n(&barrier->waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    long spins = 0;
    while (__atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE) == round)
        if (++spins > 4000) sched_yield();
}

/* One call: pointers to the buffers, the window's size, and how the threads share the work. */
typedef struct {
    void **p;
    long T, B, threads, by_units;
    long id; /* of the thread that has this copy */
    Barrier *barrier;
} Call;

/* Part i of n of a whole number of things. */
static inline long share(long all, long i, long n) { return all * i / n; }

typedef void Work(const Call *, long);

enum { LONG = 1 << 30 };

/* Writes down the gradient that arrives at a step's output, where it is asked for. */
static inline void record(const Call *c, long t, long flip, long r0, long r1, long to, long carried,
                          long given, long width) {
    if (!c->p[to]) return;
    for (long r = r0; r < r1; ++r)
        for (long u = 0; u < width; ++u)
            ((real *)c->p[to])[(t * c->B + r) * width + u] =
                ((real *)c->p[carried])[(flip * c->B + r) * width + u] +
                ((real *)c->p[given])[(t * c->B + r) * width + u];
}
