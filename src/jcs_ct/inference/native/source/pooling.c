/* What lies between convolutions: pooling, resizing, means, channel attention. */

#include <math.h>

#include "kernels.h"

/* Mode 0: maximum, 1: average, the surroundings counted as zeros, 2: average of what is inside. A task is some rows of
a channel block. */
void pool(const Op *op, int task) {
    const View *in = &op->in, *out = &op->out;
    int before = op->dilation; /* rows and columns of surroundings that the first kernel covers */
    int first = task % op->groups * op->piece, last = smaller(first + op->piece, out->rows);
    task /= op->groups;
    for (int y = first; y < last; y++)
        for (int x = 0; x < out->columns; x++) {
            vec sum = {0};
            int seen = 0;
            for (int i = 0; i < op->kernel; i++)
                for (int j = 0; j < op->kernel; j++) {
                    int row = y * op->stride - before + i, column = x * op->stride - before + j;
                    if (row < 0 || column < 0 || row >= in->rows || column >= in->columns)
                        continue;
                    vec value = load(in->data + task * in->block + row * in->line + (int64_t)column * LANES);
                    if (op->mode == 0)
                        sum = seen ? larger(value, sum) : value;
                    else
                        sum += value;
                    seen++;
                }
            if (op->mode)
                sum = sum / (float)(op->mode == 1 ? op->kernel * op->kernel : seen);
            store(out->data + task * out->block + y * out->line + (int64_t)x * LANES, sum);
        }
}

/* Bilinear; the table holds (first, second) source of each row, then of each column. A task is some rows of a block. */
void resize(const Op *op, int task) {
    const View *in = &op->in, *out = &op->out;
    const int32_t *rows = op->table, *columns = op->table + 2 * out->rows;
    const float *down = op->fractions, *right = op->fractions + out->rows;
    int begin = task % op->groups * op->piece, end = smaller(begin + op->piece, out->rows);
    task /= op->groups;
    const float *data = in->data + task * in->block;
    for (int y = begin; y < end; y++) {
        const float *top = data + rows[2 * y] * in->line, *bottom = data + rows[2 * y + 1] * in->line;
        float *to = out->data + task * out->block + y * out->line;
        float b = down[y], a = 1 - b;
        for (int x = 0; x < out->columns; x++) {
            int64_t one = (int64_t)columns[2 * x] * LANES, two = (int64_t)columns[2 * x + 1] * LANES;
            float d = right[x], c = 1 - d;
            vec upper = c * load(top + one) + d * load(top + two), lower = c * load(bottom + one) + d * load(bottom + two);
            store(to + (int64_t)x * LANES, a * upper + b * lower);
        }
    }
}

/* Mean over the pixels of each channel. A task is a channel block. */
void mean(const Op *op, int task) {
    const View *in = &op->in;
    double total[LANES] = {0};
    for (int y = 0; y < in->rows; y++) {
        const float *line = in->data + task * in->block + y * in->line;
        vec sums[4] = {{0}, {0}, {0}, {0}};
        int x = 0;
        for (; x + 4 <= in->columns; x += 4)
            for (int k = 0; k < 4; k++)
                sums[k] += load(line + (int64_t)(x + k) * LANES);
        for (; x < in->columns; x++)
            sums[0] += load(line + (int64_t)x * LANES);
        vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        for (int k = 0; k < LANES; k++)
            total[k] += all[k];
    }
    for (int k = 0; k < LANES; k++)
        op->out.data[task * LANES + k] = (float)(total[k] / ((double)in->rows * in->columns));
}

/* Squeeze and excitation: the factor of each channel, of their means. Weights: hidden x channels, its biases, then
channels x hidden, its biases. */
void attention(const Op *op) {
    int channels = op->channels, hidden = op->mode;
    const float *w1 = op->weights, *b1 = w1 + (size_t)hidden * channels, *w2 = b1 + hidden, *b2 = w2 + (size_t)hidden * channels;
    float *middle = op->out.data + channels; /* behind the factors */
    for (int h = 0; h < hidden; h++) {
        double sum = b1[h];
        for (int c = 0; c < channels; c++)
            sum += (double)w1[(size_t)h * channels + c] * op->in.data[c];
        middle[h] = sum < 0 ? 0 : (float)sum;
    }
    for (int c = 0; c < channels; c++) {
        double sum = b2[c];
        for (int h = 0; h < hidden; h++)
            sum += (double)w2[(size_t)c * hidden + h] * middle[h];
        op->out.data[c] = (float)(1 / (1 + exp(-sum)));
    }
}

/* Weights of a 1x1 convolution times a factor for each input channel. A task is a pair of blocks of outputs. */
void scale(const Op *op, int task) {
    int wide = smaller(2, op->outputs - 2 * task);
    size_t start = (size_t)task * 2 * op->channels * LANES;
    for (int c = 0; c < op->channels; c++)
        for (int w = 0; w < wide; w++) {
            size_t at = start + ((size_t)c * wide + w) * LANES;
            store(op->out.data + at, load(op->weights + at) * op->factors[c]);
        }
}
