/* 3x3 convolutions, stride 1, any dilation: Winograd's F(4x4, 3x3) as Lavin & Gray 2016 have it, and F(6x6, 3x3).

A tile of 4x4 outputs needs 6x6 inputs, and 36 products in place of 144; one of 6x6 needs 8x8, and 64 in place of 324.
A task transforms the inputs of some tiles, multiplies at each of the 36 or 64 places (tiles x channels) by (channels x
outputs), and transforms back, all in a scratch memory that stays in cache. With dilation d a tile's pixels are d apart.
The table holds where each tile begins, `mode` how many outputs a tile has along a side. */

#include "kernels.h"

#define SPAN 8 /* inputs of a tile along a side, at most */
#define TOGETHER 4 /* blocks of outputs that are multiplied before they are transformed back: these products stay in the
                      second cache. Where there are very many channels, reading the inputs again costs more than that. */
#define MANY 32 /* blocks of channels */

/* One dimension of the input transform of a tile of `size` outputs. */
INLINE void forward(int size, const vec *d, vec *t) {
    if (size == 4) {
        vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
        t[0] = 4 * d[0] - 5 * d[2] + d[4];
        t[1] = a + b;
        t[2] = a - b;
        t[3] = c + e;
        t[4] = c - e;
        t[5] = 4 * d[1] - 5 * d[3] + d[5];
    } else {
        vec a = d[2] - 4.25f * d[4] + d[6], b = d[1] - 4.25f * d[3] + d[5];
        vec c = 0.25f * d[2] - 1.25f * d[4] + d[6], e = 0.5f * d[1] - 2.5f * d[3] + 2 * d[5];
        vec f = 4 * d[2] - 5 * d[4] + d[6], g = 2 * d[1] - 2.5f * d[3] + 0.5f * d[5];
        t[0] = d[0] + 5.25f * (d[4] - d[2]) - d[6];
        t[1] = a + b;
        t[2] = a - b;
        t[3] = c + e;
        t[4] = c - e;
        t[5] = f + g;
        t[6] = f - g;
        t[7] = d[7] + 5.25f * (d[3] - d[5]) - d[1];
    }
}

/* One dimension of the output transform. */
INLINE void backward(int size, const vec *m, vec *t) {
    vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    if (size == 4) {
        t[0] = m[0] + a + c;
        t[1] = b + 2 * d;
        t[2] = a + 4 * c;
        t[3] = b + 8 * d + m[5];
    } else {
        vec e = m[5] + m[6], f = m[5] - m[6];
        t[0] = m[0] + a + c + 32 * e;
        t[1] = b + 2 * d + 16 * f;
        t[2] = a + 4 * c + 8 * e;
        t[3] = b + 8 * d + 4 * f;
        t[4] = a + 16 * c + 2 * e;
        t[5] = b + 32 * d + f + m[7];
    }
}

INLINE vec pixel(const View *view, const float *data, int row, int column) {
    vec zero = {0};
    if (row < 0 || column < 0 || row >= view->rows || column >= view->columns)
        return zero;
    return load(data + row * view->line + (int64_t)column * LANES);
}

/* Transform a tile of one channel block into out[place], `step` floats apart. */
INLINE void transform(const Op *op, int size, int block, const int32_t *at, float *out, size_t step, int two, int scaled) {
    const View *view = &op->in;
    const float *data = view->data + block * view->block, *more = two ? op->addend.data + block * op->addend.block : 0;
    int d = op->dilation, span = size + 2, row = at[0], column = at[1];
    int inside = row >= d && column >= d && row + size * d < view->rows && column + size * d < view->columns;
    vec half[SPAN][SPAN];
    for (int j = 0; j < span; j++) {
        vec values[SPAN], t[SPAN];
        int x = column + d * (j - 1);
#pragma GCC unroll 8
        for (int i = 0; i < span; i++) {
            int y = row + d * (i - 1);
            if (inside) {
                values[i] = load(data + y * view->line + (int64_t)x * LANES);
                if (two)
                    values[i] += load(more + y * op->addend.line + (int64_t)x * LANES);
            } else {
                values[i] = pixel(view, data, y, x);
                if (two)
                    values[i] += pixel(&op->addend, more, y, x);
            }
        }
        forward(size, values, t);
#pragma GCC unroll 8
        for (int i = 0; i < span; i++)
            half[i][j] = t[i];
    }
    vec factor = scaled ? load(op->factors + block * LANES) : (vec){0};
    for (int i = 0; i < span; i++) {
        vec t[SPAN];
        forward(size, half[i], t);
#pragma GCC unroll 8
        for (int j = 0; j < span; j++)
            store(out + (i * span + j) * step, scaled ? t[j] * factor : t[j]);
    }
}

/* m[row of tiles][wide x 16] = v[row of tiles][channels] * u[channels][wide x 16] */
INLINE void multiply(int wide, int rows, const float *v, size_t v_step, const float *u, int channels, const float *next,
                     float *m, size_t m_step) {
    vec sums[2][ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        sums[0][r] = sums[1][r] = (vec){0};
    product(wide, rows, v, v_step, u, channels, next, sums);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        store(m + r * m_step, sums[0][r]);
        if (wide > 1)
            store(m + r * m_step + LANES, sums[1][r]);
    }
}

static void multiply_one(int rows, const float *v, size_t v_step, const float *u, int channels, const float *next,
                         float *m, size_t m_step) {
#define CALL(n) multiply(1, n, v, v_step, u, channels, next, m, m_step)
    FOR_ROWS(rows, CALL)
#undef CALL
}

static void multiply_two(int rows, const float *v, size_t v_step, const float *u, int channels, const float *next,
                         float *m, size_t m_step) {
#define CALL(n) multiply(2, n, v, v_step, u, channels, next, m, m_step)
    FOR_ROWS(rows, CALL)
#undef CALL
}

INLINE float *place(const View *view, int block, int row, int column) {
    return view->data + block * view->block + row * view->line + (int64_t)column * LANES;
}

/* Transform the products of a tile and of one block of outputs back and write what lies inside the map. */
INLINE void finish(const Op *op, int size, int block, const int32_t *at, const float *m, size_t step) {
    const View *view = &op->in; /* the result is as large */
    int d = op->dilation, span = size + 2;
    vec half[SPAN][SPAN], bias = load(op->bias + block * LANES);
    for (int j = 0; j < span; j++) {
        vec values[SPAN], t[SPAN];
#pragma GCC unroll 8
        for (int i = 0; i < span; i++)
            values[i] = load(m + (i * span + j) * step);
        backward(size, values, t);
#pragma GCC unroll 8
        for (int i = 0; i < size; i++)
            half[i][j] = t[i];
    }
    for (int i = 0; i < size; i += 2) {
        vec lines[2][SPAN];
        for (int k = 0; k < 2; k++) {
            int y = at[0] + d * (i + k);
            backward(size, half[i + k], lines[k]);
#pragma GCC unroll 8
            for (int j = 0; j < size; j++) {
                int x = at[1] + d * j;
                vec value = lines[k][j] + bias;
                lines[k][j] = op->relu ? relu(value) : value;
                if (op->out.data && y < view->rows && x < view->columns)
                    write(place(&op->out, block, y, x), lines[k][j], op->large);
            }
        }
        if (!op->max_pooled.data && !op->mean_pooled.data)
            continue;
        for (int j = 0; j < size; j += 2) { /* sides are even: all four lie inside, or none does */
            int y = (at[0] + i) / 2, x = (at[1] + j) / 2;
            vec a = lines[0][j], b = lines[0][j + 1], c = lines[1][j], e = lines[1][j + 1];
            if (2 * y >= view->rows || 2 * x >= view->columns)
                continue;
            if (op->max_pooled.data)
                write(place(&op->max_pooled, block, y, x), larger(larger(a, b), larger(c, e)), op->large);
            if (op->mean_pooled.data)
                write(place(&op->mean_pooled, block, y, x), ((a + b) + (c + e)) / 4, op->large);
        }
    }
}

/* The distance of two places: the lines that a tile writes at once fall into different sets of the cache. */
INLINE size_t apart(size_t size) { return (size + 1023) / 1024 * 1024 + 5 * LANES; }

INLINE void convolve(const Op *op, int size, int task, float *scratch) {
    int first = task / op->groups * op->piece, tiles = smaller(op->piece, op->items - first);
    int group = task % op->groups;
    int begin = group_start(op, group), end = group_start(op, group + 1);
    const int32_t *table = op->table + 2 * first;
    int blocks = (op->channels + LANES - 1) / LANES, places = (size + 2) * (size + 2);
    int together = blocks > MANY ? end - begin : smaller(end - begin, TOGETHER);
    /* rows of tiles are a line longer than they need to be: otherwise many of them share a set of the cache */
    size_t v_step = (size_t)(blocks + 1) * LANES, m_step = (size_t)(together + 1) * LANES;
    size_t v_place = apart(v_step * tiles), m_place = apart(m_step * tiles);
    float *v = scratch, *m = scratch + places * v_place;

    for (int block = 0; block < blocks; block++) /* tile after tile: memory is read in its order */
        for (int t = 0; t < tiles; t++) {
            float *out = v + t * v_step + block * LANES;
            if (op->addend.data)
                transform(op, size, block, table + 2 * t, out, v_place, 1, 0);
            else if (op->factors)
                transform(op, size, block, table + 2 * t, out, v_place, 0, 1);
            else
                transform(op, size, block, table + 2 * t, out, v_place, 0, 0);
        }
    size_t u_place = (size_t)op->channels * op->outputs * LANES;
    int runs = run_count(tiles);
    for (int from = begin; from < end; from += together) {
        int to = smaller(end, from + together);
        for (int p = 0; p < places; p++)
            for (int block = from; block < to; block += 2) {
                const float *u = op->weights + p * u_place + (size_t)block * op->channels * LANES;
                /* the weights that come next: the first run fetches one half, the others the other */
                const float *after = block + 2 < to ? u + (size_t)2 * op->channels * LANES
                                                    : op->weights + (p + 1) * u_place + (size_t)from * op->channels * LANES;
                float *result = m + p * m_place + (size_t)(block - from) * LANES;
                for (int run = 0; run < runs; run++) {
                    int start = run_start(tiles, runs, run), rows = run_start(tiles, runs, run + 1) - start;
                    const float *x = v + p * v_place + start * v_step;
                    const float *next = after + (run ? (size_t)op->channels * LANES : 0);
                    if (to - block > 1)
                        multiply_two(rows, x, v_step, u, op->channels, next, result + start * m_step, m_step);
                    else
                        multiply_one(rows, x, v_step, u, op->channels, next, result + start * m_step, m_step);
                }
            }
        for (int block = from; block < to; block++)
            for (int t = 0; t < tiles; t++)
                finish(op, size, block, table + 2 * t, m + t * m_step + (block - from) * LANES, m_place);
    }
}

void winograd(const Op *op, int task, float *scratch) {
    if (op->mode == 4)
        convolve(op, 4, task, scratch);
    else
        convolve(op, 6, task, scratch);
}

/* One dimension of the kernel transform. */
INLINE void kernel(int size, const vec g[3], vec *t) {
    if (size == 4) {
        vec a = (g[0] + g[2]) / 6, b = g[1] / 6, c = g[0] / 24 + g[2] / 6, d = g[1] / 12;
        t[0] = g[0] / 4;
        t[1] = -a - b;
        t[2] = b - a;
        t[3] = c + d;
        t[4] = c - d;
        t[5] = g[2];
    } else {
        vec a = (g[0] + g[2]) / 4.5f, b = g[1] / 4.5f, c = g[0] / 90 + g[2] / 22.5f, d = g[1] / 45;
        vec e = g[0] / 45 + g[2] / 180, f = g[1] / 90;
        t[0] = g[0];
        t[1] = -a - b;
        t[2] = b - a;
        t[3] = c + d;
        t[4] = c - d;
        t[5] = e + f;
        t[6] = e - f;
        t[7] = g[2];
    }
}

/* Transform the weights outputs x channels x 3 x 3 of a layer (`weights`) into place x pair of output blocks x channels
x 32 (`out`). A task is a pair. */
void pack(const Op *op, int task) {
    int wide = smaller(2, op->outputs - 2 * task), size = op->mode, span = size + 2;
    size_t u_place = (size_t)op->channels * op->outputs * LANES;
    for (int c = 0; c < op->channels; c++)
        for (int w = 0; w < wide; w++) {
            const int32_t *source = op->table + (2 * task + w) * LANES;
            float *to = op->out.data + (size_t)2 * task * op->channels * LANES + ((size_t)c * wide + w) * LANES;
            vec g[9], half[SPAN][3];
            for (int k = 0; k < 9; k++)
                for (int lane = 0; lane < LANES; lane++)
                    g[k][lane] = source[lane] < 0 ? 0 : op->weights[((size_t)source[lane] * op->channels + c) * 9 + k];
            for (int j = 0; j < 3; j++) {
                vec column[3] = {g[j], g[3 + j], g[6 + j]}, t[SPAN];
                kernel(size, column, t);
                for (int i = 0; i < span; i++)
                    half[i][j] = t[i];
            }
            for (int i = 0; i < span; i++) {
                vec t[SPAN];
                kernel(size, half[i], t);
                for (int j = 0; j < span; j++)
                    store(to + (i * span + j) * u_place, t[j]);
            }
        }
}
