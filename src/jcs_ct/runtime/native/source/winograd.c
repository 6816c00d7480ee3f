/* 3x3 convolutions, stride 1, any dilation: Winograd's F(4x4, 3x3) as Lavin & Gray 2016 have it.

A tile of 4x4 outputs needs 6x6 inputs, and 36 products in place of 144. A task transforms the inputs of some tiles,
multiplies at each of the 36 places (tiles x channels) by (channels x outputs), and transforms back, all in a scratch
memory that stays in cache. With dilation d a tile's pixels are d apart. The table holds where each tile begins. */

#include "kernels.h"

/* One dimension of the input transform. */
INLINE void forward(const vec d[6], vec t[6]) {
    vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = a + b;
    t[2] = a - b;
    t[3] = c + e;
    t[4] = c - e;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

/* One dimension of the output transform. */
INLINE void backward(const vec m[6], vec t[4]) {
    vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    t[0] = m[0] + a + c;
    t[1] = b + 2 * d;
    t[2] = a + 4 * c;
    t[3] = b + 8 * d + m[5];
}

INLINE vec pixel(const View *view, const float *data, int row, int column) {
    vec zero = {0};
    if (row < 0 || column < 0 || row >= view->rows || column >= view->columns)
        return zero;
    return load(data + row * view->line + (int64_t)column * LANES);
}

/* Transform a tile of one channel block into out[place], `step` floats apart. */
INLINE void transform(const Op *op, int block, int row, int column, float *out, size_t step, int two, int scaled) {
    const View *view = &op->in;
    const float *data = view->data + block * view->block, *more = two ? op->extra.data + block * op->extra.block : 0;
    int d = op->dilation;
    int inside = row >= d && column >= d && row + 4 * d < view->rows && column + 4 * d < view->columns;
    vec half[6][6];
    for (int j = 0; j < 6; j++) {
        vec values[6], t[6];
        int x = column + d * (j - 1);
        for (int i = 0; i < 6; i++) {
            int y = row + d * (i - 1);
            if (inside) {
                values[i] = load(data + y * view->line + (int64_t)x * LANES);
                if (two)
                    values[i] += load(more + y * op->extra.line + (int64_t)x * LANES);
            } else {
                values[i] = pixel(view, data, y, x);
                if (two)
                    values[i] += pixel(&op->extra, more, y, x);
            }
        }
        forward(values, t);
        for (int i = 0; i < 6; i++)
            half[i][j] = t[i];
    }
    vec factor = scaled ? load(op->factors + block * LANES) : (vec){0};
    for (int i = 0; i < 6; i++) {
        vec t[6];
        forward(half[i], t);
        for (int j = 0; j < 6; j++)
            store(out + (i * 6 + j) * step, scaled ? t[j] * factor : t[j]);
    }
}

/* m[row of tiles][wide x 16] = v[row of tiles][channels] * u[channels][wide x 16] */
INLINE void multiply(int wide, int rows, const float *v, size_t v_step, const float *u, int channels, float *m, size_t m_step) {
    vec sums[2][ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        sums[0][r] = sums[1][r] = (vec){0};
    product(wide, rows, v, v_step, u, channels, sums);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        store(m + r * m_step, sums[0][r]);
        if (wide > 1)
            store(m + r * m_step + LANES, sums[1][r]);
    }
}

static void multiply_one(int rows, const float *v, size_t v_step, const float *u, int channels, float *m, size_t m_step) {
#define CALL(n) multiply(1, n, v, v_step, u, channels, m, m_step)
    FOR_ROWS(rows, CALL)
#undef CALL
}

static void multiply_two(int rows, const float *v, size_t v_step, const float *u, int channels, float *m, size_t m_step) {
#define CALL(n) multiply(2, n, v, v_step, u, channels, m, m_step)
    FOR_ROWS(rows, CALL)
#undef CALL
}

/* Transform the products of a tile and of one block of outputs back and write what lies inside the map. */
INLINE void finish(const Op *op, int block, int row, int column, const float *m, size_t step) {
    const View *view = &op->out;
    float *data = view->data + block * view->block;
    int d = op->dilation;
    vec half[4][6], bias = load(op->bias + block * LANES);
    for (int j = 0; j < 6; j++) {
        vec values[6], t[4];
        for (int i = 0; i < 6; i++)
            values[i] = load(m + (i * 6 + j) * step);
        backward(values, t);
        for (int i = 0; i < 4; i++)
            half[i][j] = t[i];
    }
    for (int i = 0; i < 4; i++) {
        vec t[4];
        int y = row + d * i;
        backward(half[i], t);
        if (y >= view->rows)
            break;
        for (int j = 0; j < 4; j++) {
            int x = column + d * j;
            vec value = t[j] + bias;
            if (x < view->columns)
                write(data + y * view->line + (int64_t)x * LANES, op->relu ? positive(value) : value, op->large);
        }
    }
}

/* The distance of two places: the 36 lines that a tile writes at once fall into different sets of the cache. */
INLINE size_t apart(size_t size) { return (size + 1023) / 1024 * 1024 + 5 * LANES; }

void winograd(const Op *op, int task, float *scratch) {
    int first = task / op->groups * op->piece, tiles = least(op->piece, op->items - first);
    int group = task % op->groups;
    int begin = group_start(op, group), end = group_start(op, group + 1);
    const int32_t *table = op->table + 2 * first;
    int blocks = (op->channels + LANES - 1) / LANES;
    /* rows of tiles are a line longer than they need to be: otherwise many of them share a set of the cache */
    size_t v_step = (size_t)(blocks + 1) * LANES, m_step = (size_t)(end - begin + 1) * LANES;
    size_t v_place = apart(v_step * tiles), m_place = apart(m_step * tiles);
    float *v = scratch, *m = scratch + 36 * v_place;

    for (int block = 0; block < blocks; block++) /* tile after tile: memory is read in its order */
        for (int t = 0; t < tiles; t++) {
            float *out = v + t * v_step + block * LANES;
            if (op->extra.data)
                transform(op, block, table[2 * t], table[2 * t + 1], out, v_place, 1, 0);
            else if (op->factors)
                transform(op, block, table[2 * t], table[2 * t + 1], out, v_place, 0, 1);
            else
                transform(op, block, table[2 * t], table[2 * t + 1], out, v_place, 0, 0);
        }
    size_t u_place = (size_t)op->channels * op->outputs * LANES;
    int runs = run_count(tiles);
    for (int place = 0; place < 36; place++)
        for (int block = begin; block < end; block += 2) {
            const float *u = op->weights + place * u_place + (size_t)block * op->channels * LANES;
            float *to = m + place * m_place + (size_t)(block - begin) * LANES;
            for (int run = 0; run < runs; run++) {
                int start = run_start(tiles, runs, run), rows = run_start(tiles, runs, run + 1) - start;
                const float *from = v + place * v_place + start * v_step;
                if (end - block > 1)
                    multiply_two(rows, from, v_step, u, op->channels, to + start * m_step, m_step);
                else
                    multiply_one(rows, from, v_step, u, op->channels, to + start * m_step, m_step);
            }
        }
    for (int block = begin; block < end; block++)
        for (int t = 0; t < tiles; t++)
            finish(op, block, table[2 * t], table[2 * t + 1], m + t * m_step + (block - begin) * LANES, m_place);
}

/* One dimension of the kernel transform. */
INLINE void kernel(const vec g[3], vec t[6]) {
    vec a = (g[0] + g[2]) / 6, b = g[1] / 6, c = g[0] / 24 + g[2] / 6, d = g[1] / 12;
    t[0] = g[0] / 4;
    t[1] = -a - b;
    t[2] = b - a;
    t[3] = c + d;
    t[4] = c - d;
    t[5] = g[2];
}

/* Transform the weights outputs x channels x 3 x 3 of a layer (`weights`) into place x pair of output blocks x channels
x 32 (`out`). A task is a pair. */
void pack(const Op *op, int task) {
    int wide = least(2, op->outputs - 2 * task);
    size_t u_place = (size_t)op->channels * op->outputs * LANES;
    for (int c = 0; c < op->channels; c++)
        for (int w = 0; w < wide; w++) {
            const int32_t *source = op->table + (2 * task + w) * LANES;
            float *to = op->out.data + (size_t)2 * task * op->channels * LANES + ((size_t)c * wide + w) * LANES;
            vec g[9], half[6][3];
            for (int k = 0; k < 9; k++)
                for (int lane = 0; lane < LANES; lane++)
                    g[k][lane] = source[lane] < 0 ? 0 : op->weights[((size_t)source[lane] * op->channels + c) * 9 + k];
            for (int j = 0; j < 3; j++) {
                vec column[3] = {g[j], g[3 + j], g[6 + j]}, t[6];
                kernel(column, t);
                for (int i = 0; i < 6; i++)
                    half[i][j] = t[i];
            }
            for (int i = 0; i < 6; i++) {
                vec t[6];
                kernel(half[i], t);
                for (int j = 0; j < 6; j++)
                    store(to + (i * 6 + j) * u_place, t[j]);
            }
        }
}
