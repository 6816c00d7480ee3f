/* What the kernels share: vectors of 16 channels, the layout of maps, and the one product that everything comes down to.

A map lies in memory as blocks of 16 channels, and in a block pixel by pixel: [channel / 16][row][column][16]. A vector
of 16 floats is what AVX-512 has; with other processors the compiler splits it. */

#ifndef JCS_KERNELS_H
#define JCS_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#ifdef __AVX512F__
#define ROWS 14 /* 2 x 14 sums, 2 weights and a factor fill the 32 registers */
#else
#define ROWS 4
#endif

typedef float vec __attribute__((vector_size(64), aligned(64)));
typedef int32_t mask __attribute__((vector_size(64), aligned(64))); /* -1 or 0 for each of the 16 */

/* A map, or some of its channel blocks. Strides are in floats; pixels of a row follow one another. */
typedef struct {
    float *data;
    int64_t block, line; /* from a channel block, from a row, to the next */
    int32_t rows, columns, blocks;
} View;

enum { WINOGRAD = 1, DIRECT, POOL, RESIZE, MEAN, ATTENTION, SCALE, PACK };

typedef struct {
    int32_t kind, tasks;          /* tasks: how many pieces the threads share */
    View in, addend, out;         /* addend: is added to the input (WINOGRAD) or to the result (DIRECT) */
    View max_pooled, mean_pooled; /* WINOGRAD: maximum and mean of each 2x2 of the result. Of the three, those that are
                                     not wanted have no data. */
    const float *weights, *bias;
    const float *factors;         /* WINOGRAD, SCALE: of each input channel; null: none */
    const int32_t *table;         /* WINOGRAD: row and column of tiles; DIRECT: channels in each block; RESIZE: sources;
                                     PACK: the output of the layer that is an output here, or -1 */
    const float *fractions;       /* RESIZE: of the second source */
    int32_t channels, outputs;    /* real input channels; blocks of 16 output channels */
    int32_t kernel, stride, dilation, relu;
    int32_t items, piece;         /* in a whole, in a task: tiles (WINOGRAD), pixels (DIRECT, 1x1), rows (others) */
    int32_t groups;               /* into which the blocks of outputs are divided */
    int32_t mode;                 /* WINOGRAD, PACK: outputs of a tile along a side; POOL: see there;
                                     ATTENTION: hidden units; DIRECT: 1 where a map is one long row */
    int32_t large;                /* the result is larger than caches: it is written past them */
} Op;

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE void write(float *p, vec v, int past_caches) {
#ifdef __AVX512F__
    if (past_caches) {
        __asm__ volatile("vmovntps %1, %0" : "=m"(*(vec *)p) : "v"(v));
        return;
    }
#endif
    (void)past_caches;
    store(p, v);
}
/* Make what was written past the caches visible to other threads. */
INLINE void fence(void) {
#ifdef __AVX512F__
    __asm__ volatile("sfence" ::: "memory");
#endif
}
INLINE vec relu(vec v) { return (vec)((mask)v & ~(v < (vec){0})); } /* NaN stays NaN */
INLINE vec blend(mask m, vec a, vec b) { return (vec)(((mask)a & m) | ((mask)b & ~m)); }
/* The larger one; NaN wins, as in PyTorch. */
INLINE vec larger(vec a, vec b) { return blend((a > b) | (a != a), a, b); }
INLINE int smaller(int a, int b) { return a < b ? a : b; }

/* sums[b][r] += weights[k][b] * x[r][k] for n values of k; `step` floats lie between two rows of x. The n lines from
`next` on are needed soon: processors fetch ahead by themselves, but not beyond a page of 4 KB. */
INLINE void product(int wide, int rows, const float *x, size_t step, const float *weights, int n, const float *next,
                    vec sums[2][ROWS]) {
    for (int k = 0; k < n; k++) {
        __builtin_prefetch(next + (size_t)k * LANES, 0, 2);
        const float *w = weights + (size_t)k * wide * LANES;
        vec w0 = load(w), w1 = wide > 1 ? load(w + LANES) : w0;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            float value = x[r * step + k];
            sums[0][r] += w0 * value;
            if (wide > 1)
                sums[1][r] += w1 * value;
        }
    }
}

#if ROWS == 14
#define FOR_ROWS(n, CALL)                                                                                              \
    switch (n) {                                                                                                       \
        case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; case 4: CALL(4); break;                \
        case 5: CALL(5); break; case 6: CALL(6); break; case 7: CALL(7); break; case 8: CALL(8); break;                \
        case 9: CALL(9); break; case 10: CALL(10); break; case 11: CALL(11); break; case 12: CALL(12); break;          \
        case 13: CALL(13); break; default: CALL(14);                                                                   \
    }
#else
#define FOR_ROWS(n, CALL)                                                                                              \
    switch (n) {                                                                                                       \
        case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; default: CALL(4);                      \
    }
#endif

/* The first block of outputs of a group: groups hold whole pairs. */
INLINE int group_start(const Op *op, int group) {
    return smaller(op->outputs, 2 * ((op->outputs + 1) / 2 * group / op->groups));
}

/* Divide n rows into runs of nearly the same length, ROWS at most: the start of run i of `runs`. */
INLINE int run_start(int n, int runs, int i) { return (int)((int64_t)n * i / runs); }
INLINE int run_count(int n) { return (n + ROWS - 1) / ROWS; }

void winograd(const Op *op, int task, float *scratch);
void direct(const Op *op, int task);
void pool(const Op *op, int task);
void resize(const Op *op, int task);
void mean(const Op *op, int task);
void attention(const Op *op);
void scale(const Op *op, int task);
void pack(const Op *op, int task);

#endif
