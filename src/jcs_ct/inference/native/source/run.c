/* A network is a list of operations. Threads go through it together, and share the tasks of each operation. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "kernels.h"

#define SPINS 20000 /* before a thread that waits gives its core away */

typedef struct {
    const Op *ops;
    int count, threads;
    atomic_int *next; /* of each operation: the task to take */
    atomic_int *done; /* of each operation: tasks that are finished */
    float *scratch;
    size_t scratch_size; /* floats of one thread */
    atomic_int number;
} Run;

static void *work(void *argument) {
    Run *run = argument;
    float *scratch = run->scratch + run->scratch_size * (size_t)atomic_fetch_add(&run->number, 1);
    for (int i = 0; i < run->count; i++) {
        const Op *op = run->ops + i;
        for (int task; (task = atomic_fetch_add(run->next + i, 1)) < op->tasks;) {
            switch (op->kind) {
                case WINOGRAD: winograd(op, task, scratch); break;
                case DIRECT: direct(op, task); break;
                case POOL: pool(op, task); break;
                case RESIZE: resize(op, task); break;
                case MEAN: mean(op, task); break;
                case ATTENTION: attention(op); break;
                case SCALE: scale(op, task); break;
                case PACK: pack(op, task); break;
            }
            if (op->large)
                fence();
            atomic_fetch_add(run->done + i, 1);
        }
        for (int spins = 0; atomic_load(run->done + i) < op->tasks;)
            if (spins < SPINS)
                spins++;
            else
                sched_yield();
    }
    return 0;
}

/* Return 0; 1: there was too little memory. `scratch`: threads x scratch_size floats, aligned. */
int jcs_run(const Op *ops, int count, int threads, float *scratch, size_t scratch_size) {
    atomic_int *counters = calloc((size_t)count * 2 + 1, sizeof *counters);
    pthread_t *others = calloc((size_t)threads, sizeof *others);
    if (!counters || !others) {
        free(counters);
        free(others);
        return 1;
    }
    Run run = {ops, count, threads, counters, counters + count, scratch, scratch_size, 0};
    int started = 0;
    while (started < threads - 1 && !pthread_create(others + started, 0, work, &run))
        started++; /* with fewer threads it is slower, not wrong */
    work(&run);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], 0);
    free(counters);
    free(others);
    return 0;
}

/* The size of an operation, by which Python sees that both mean the same structure. */
size_t jcs_size(void) { return sizeof(Op); }
