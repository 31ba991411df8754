/* How a call runs on several threads: the caller's own, and the pool's, which wait for work. */
enum { MOST_THREADS = 256, SPINS = 20000 };

typedef struct Pool Pool;
typedef struct { Pool *pool; long id; pthread_t thread; } Member;

struct Pool {
    long size; /* threads, the caller's included */
    long round; /* counts the calls; a change is what members wait for */
    long busy;
    long stop;
    Work *work;
    Call *call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    Member members[MOST_THREADS];
};

/* Waits for the next call: awake for a moment, since the next one often follows at once. */
static void await_round(Pool *pool, long seen) {
    for (long i = 0; i < SPINS; ++i)
        if (__atomic_load_n(&pool->round, __ATOMIC_ACQUIRE) != seen) return;
    pthread_mutex_lock(&pool->lock);
    while (__atomic_load_n(&pool->round, __ATOMIC_ACQUIRE) == seen)
        pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void *serve(void *argument) {
    const Member *member = argument;
    Pool *pool = member->pool;
    for (long seen = 0;; ++seen) {
        await_round(pool, seen);
        if (pool->stop) return 0;
        if (member->id < pool->call->threads) {
            Call own = *pool->call;
            own.id = member->id;
            pool->work(&own, own.id);
        }
        __atomic_sub_fetch(&pool->busy, 1, __ATOMIC_ACQ_REL);
    }
}

static void begin_round(Pool *pool) {
    pthread_mutex_lock(&pool->lock);
    __atomic_add_fetch(&pool->round, 1, __ATOMIC_ACQ_REL);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

/* A pool of up to that many threads; fewer where the system gives no more. */
Pool *rnn_pool_new(long threads) {
    Pool *pool = calloc(1, sizeof *pool);
    if (!pool) return 0;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    pthread_mutex_init(&pool->lock, 0);
    pthread_cond_init(&pool->changed, 0);
    for (pool->size = 1; pool->size < threads; ++pool->size) {
        Member *member = &pool->members[pool->size];
        *member = (Member){pool, pool->size, 0};
        if (pthread_create(&member->thread, 0, serve, member)) break;
    }
    return pool;
}

void rnn_pool_free(Pool *pool) {
    pool->stop = 1;
    begin_round(pool);
    for (long i = 1; i < pool->size; ++i) pthread_join(pool->members[i].thread, 0);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Runs a region on the caller's thread and up to threads - 1 of the pool's, which may be none. */
void rnn_run(long region, void **p, long T, long B, long threads, long by_units, Pool *pool) {
    Work *const work = regions[region];
    if (!pool || threads > pool->size) threads = pool ? pool->size : 1;
    Barrier barrier = {threads, 0, 0};
    Call call = {p, T, B, threads, by_units, 0, &barrier};
    if (threads < 2) {
        work(&call, 0);
        return;
    }
    pool->work = work;
    pool->call = &call;
    __atomic_store_n(&pool->busy, pool->size - 1, __ATOMIC_RELEASE);
    begin_round(pool);
    work(&call, 0);
    for (long spins = 0; __atomic_load_n(&pool->busy, __ATOMIC_ACQUIRE); ++spins)
        if (spins > SPINS) sched_yield();
}
