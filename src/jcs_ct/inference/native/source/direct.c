/* Other convolutions, pixel by pixel: 1x1, and 3x3 with a stride or of few channels. A map that a 3x3 kernel reads is
surrounded by zeros. Maps without padding are one long row to a 1x1 convolution (mode 1). The result may be added to a
map (a shortcut). */

#include "kernels.h"

INLINE void pixels(const Op *op, int wide, int rows, const float *in, const float *weights, const float *next, int block,
                   float *out, const float *add) {
    size_t step = (size_t)op->stride * LANES;
    vec sums[2][ROWS];
    vec bias0 = load(op->bias + block * LANES), bias1 = wide > 1 ? load(op->bias + (block + 1) * LANES) : bias0;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        sums[0][r] = bias0;
        sums[1][r] = bias1;
    }
    for (int i = 0; i < op->kernel; i++)
        for (int j = 0; j < op->kernel; j++)
            for (int b = 0; b < op->in.blocks; b++) {
                const float *x = in + i * op->in.line + (int64_t)j * LANES + b * op->in.block;
                product(wide, rows, x, step, weights, op->table[b], next, sums);
                weights += (size_t)op->table[b] * wide * LANES;
                next += (size_t)op->table[b] * LANES;
            }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++) {
            vec value = sums[w][r];
            if (add)
                value += load(add + w * op->addend.block + (size_t)r * LANES);
            write(out + w * op->out.block + (size_t)r * LANES, op->relu ? relu(value) : value, op->large);
        }
}

static void pixels_one(const Op *op, int rows, const float *in, const float *weights, const float *next, int block,
                       float *out, const float *add) {
#define CALL(n) pixels(op, 1, n, in, weights, next, block, out, add)
    FOR_ROWS(rows, CALL)
#undef CALL
}

static void pixels_two(const Op *op, int rows, const float *in, const float *weights, const float *next, int block,
                       float *out, const float *add) {
#define CALL(n) pixels(op, 2, n, in, weights, next, block, out, add)
    FOR_ROWS(rows, CALL)
#undef CALL
}

static void row(const Op *op, const float *in, float *out, const float *add, int count, int begin, int end, size_t taps) {
    int runs = run_count(count);
    for (int block = begin; block < end; block += 2) {
        const float *weights = op->weights + (size_t)block * taps * LANES;
        float *to = out + block * op->out.block;
        const float *plus = add ? add + block * op->addend.block : 0;
        for (int run = 0; run < runs; run++) {
            int start = run_start(count, runs, run), rows = run_start(count, runs, run + 1) - start;
            const float *next = weights + (size_t)(2 + smaller(run, 1)) * taps * LANES; /* as in Winograd's */
            const float *x = in + (int64_t)start * op->stride * LANES, *y = plus ? plus + (int64_t)start * LANES : 0;
            if (end - block > 1)
                pixels_two(op, rows, x, weights, next, block, to + (int64_t)start * LANES, y);
            else
                pixels_one(op, rows, x, weights, next, block, to + (int64_t)start * LANES, y);
        }
    }
}

void direct(const Op *op, int task) {
    int group = task % op->groups, first = task / op->groups * op->piece, count = smaller(op->piece, op->items - first);
    int begin = group_start(op, group), end = group_start(op, group + 1);
    size_t taps = (size_t)op->channels * op->kernel * op->kernel;
    const float *in = op->in.data, *add = op->addend.data;
    if (op->mode == 1) {
        in += (int64_t)first * LANES;
        row(op, in, op->out.data + (int64_t)first * LANES, add ? add + (int64_t)first * LANES : 0, count, begin, end, taps);
        return;
    }
    int border = op->kernel / 2;
    for (int y = first; y < first + count; y++) {
        const float *from = in + ((int64_t)y * op->stride - border) * op->in.line - (int64_t)border * LANES;
        row(op, from, op->out.data + y * op->out.line, add ? add + y * op->addend.line : 0, op->out.columns, begin, end, taps);
    }
}
