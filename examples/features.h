/* features.h - what an image looks like at each cell of a grid, without any weights: a fixed bank of filters.
   Include it after common.h.

   Brightness and two colour differences go through a pyramid of four scales, each half as wide as the one
   before. At every scale of the brightness: first derivatives in four directions (their size), second
   derivatives in four directions (bright and dark lines apart), and the deviation from the mean of the
   surroundings (bright and dark apart); of the colours the size of the gradient. Each response is pooled
   over the cell and half of its neighbours (a triangle), and its logarithm is the feature: sizes of gradients
   spread over decades, and the Gaussian of a detector wants them even. */
#ifndef FEATURES_H
#define FEATURES_H

enum { BANK_SCALES = 4, BANK_RESPONSES = 14, BANK_CHANNELS = BANK_SCALES * (BANK_RESPONSES + 3) + 3 };

typedef struct plane { float *at; int size; } plane;                 /* size x size               */

/* Mirrored at the border, as far as one size away. */
static inline float plane_get(const plane *p, int x, int y)
{
    int n = p->size;
    x = x < 0 ? -x - 1 : x >= n ? 2 * n - 1 - x : x;
    y = y < 0 ? -y - 1 : y >= n ? 2 * n - 1 - y : y;
    return p->at[(size_t)y * (size_t)n + (size_t)x];
}

/* to = p averaged over 2 x 2 pixels; an odd last row or column is left out. */
static inline void plane_halve(const plane *p, plane *to)
{
    to->size = p->size / 2;
    for (int y = 0; y < to->size; ++y)
        for (int x = 0; x < to->size; ++x) {
            const float *a = p->at + (size_t)(2 * y) * (size_t)p->size + (size_t)(2 * x), *b = a + p->size;
            to->at[(size_t)y * (size_t)to->size + (size_t)x] = 0.25f * (a[0] + a[1] + b[0] + b[1]);
        }
}

/* The responses of brightness at a pixel, all >= 0. */
static inline void bank_pixel(const plane *p, int x, int y, float out[BANK_RESPONSES])
{
    float v[9], c, around = 0, line[4], slope[4];
    for (int k = 0; k < 9; ++k) v[k] = plane_get(p, x + k % 3 - 1, y + k / 3 - 1);
    c = v[4];
    for (int k = 0; k < 9; ++k) around += k == 4 ? 0 : 0.125f * (c - v[k]);
    slope[0] = 0.5f * (v[5] - v[3]);
    slope[1] = 0.5f * (v[7] - v[1]);
    slope[2] = 0.354f * (v[8] - v[0]);
    slope[3] = 0.354f * (v[6] - v[2]);
    line[0] = v[3] + v[5] - 2 * c;
    line[1] = v[1] + v[7] - 2 * c;
    line[2] = 0.5f * (v[0] + v[8] - 2 * c);
    line[3] = 0.5f * (v[2] + v[6] - 2 * c);
    for (int k = 0; k < 4; ++k) {
        out[k] = fabsf(slope[k]);
        out[4 + 2 * k] = line[k] > 0 ? line[k] : 0;
        out[5 + 2 * k] = line[k] < 0 ? -line[k] : 0;
    }
    out[12] = around > 0 ? around : 0;
    out[13] = around < 0 ? -around : 0;
}

/* Weights of the cells that pixel i of `size` counts for: cell *first with weight 1 - *second, the next one
   with *second. A cell's triangle reaches to the centres of its neighbours. */
static inline void bank_cells(int i, int size, int grid, int *first, float *second)
{
    float at = ((float)i + 0.5f) * (float)grid / (float)size - 0.5f;
    *first = (int)floorf(at);
    *second = at - (float)*first;
    if (*first < 0) *first = 0, *second = 0;
    if (*first >= grid - 1) *first = grid - 1, *second = 0;
}

/* Adds the n values of a pixel to the cells around it. sums: [grid, grid, stride], from its first channel. */
static inline void bank_pool(const float *v, int n, int x, int y, int size, int grid, int stride, float *sums)
{
    int cx, cy;
    float fx, fy;
    bank_cells(x, size, grid, &cx, &fx);
    bank_cells(y, size, grid, &cy, &fy);
    for (int k = 0; k < 4; ++k) {
        float w = (k & 1 ? fx : 1 - fx) * (k & 2 ? fy : 1 - fy);
        float *to = sums + (size_t)((cy + (k >> 1)) * grid + cx + (k & 1)) * (size_t)stride;
        if (w > 0) for (int i = 0; i < n; ++i) to[i] += w * v[i];
    }
}

/* The weight that each cell of a row receives from `size` pixels, for the mean. */
static inline void bank_weights(int size, int grid, float *w)
{
    for (int i = 0; i < grid; ++i) w[i] = 0;
    for (int i = 0; i < size; ++i) {
        int c;
        float f;
        bank_cells(i, size, grid, &c, &f);
        w[c] += 1 - f;
        if (f > 0) w[c + 1] += f;
    }
}

static inline void bank_scale(const plane p[3], int scale, int grid, float *out)
{
    int size = p->size, channels = BANK_RESPONSES + 3;
    float *weight = (float *)malloc((size_t)grid * sizeof *weight);
    out += scale * channels;
    if (!weight) say("out of memory"), exit(EXIT_FAILED);
    for (int y = 0; y < size; ++y)
        for (int x = 0; x < size; ++x) {
            float v[BANK_RESPONSES + 3];
            bank_pixel(p, x, y, v);
            v[BANK_RESPONSES] = p->at[(size_t)y * (size_t)size + (size_t)x];
            v[BANK_RESPONSES] *= v[BANK_RESPONSES];
            for (int k = 1; k < 3; ++k)
                v[BANK_RESPONSES + k] = fabsf(plane_get(p + k, x + 1, y) - plane_get(p + k, x - 1, y)) +
                    fabsf(plane_get(p + k, x, y + 1) - plane_get(p + k, x, y - 1));
            bank_pool(v, channels, x, y, size, grid, BANK_CHANNELS, out);
        }
    bank_weights(size, grid, weight);
    for (int i = 0; i < grid * grid; ++i)
        for (int k = 0; k < channels; ++k)
            out[(size_t)i * BANK_CHANNELS + (size_t)k] /= weight[i / grid] * weight[i % grid];
    free(weight);
}

/* The means of brightness and the two colours, the last three channels. */
static inline void bank_means(const plane p[3], int grid, float *out)
{
    int size = p->size;
    float *weight = (float *)malloc((size_t)grid * sizeof *weight);
    if (!weight) say("out of memory"), exit(EXIT_FAILED);
    out += BANK_CHANNELS - 3;
    for (int y = 0; y < size; ++y)
        for (int x = 0; x < size; ++x) {
            size_t at = (size_t)y * (size_t)size + (size_t)x;
            float v[3] = { p[0].at[at], p[1].at[at], p[2].at[at] };
            bank_pool(v, 3, x, y, size, grid, BANK_CHANNELS, out);
        }
    bank_weights(size, grid, weight);
    for (int i = 0; i < grid * grid; ++i)
        for (int k = 0; k < 3; ++k)
            out[(size_t)i * BANK_CHANNELS + (size_t)k] /= weight[i / grid] * weight[i % grid];
    free(weight);
}

/* Mean squares become deviations, and all but the means logarithms. */
static inline void bank_finish(int grid, float *out)
{
    int mean = BANK_CHANNELS - 3;
    for (float *f = out; f < out + (size_t)(grid * grid) * BANK_CHANNELS; f += BANK_CHANNELS) {
        for (int s = 0; s < BANK_SCALES; ++s) {
            float *square = f + s * (BANK_RESPONSES + 3) + BANK_RESPONSES, v = *square - f[mean] * f[mean];
            *square = v > 0 ? sqrtf(v) : 0;
        }
        for (int k = 0; k < mean; ++k) f[k] = logf(0.004f + f[k]);
    }
}

/* Features [grid, grid, BANK_CHANNELS] of an RGB image [size, size, 3]. A scale with fewer pixels than cells
   is left out. False: out of memory. */
static inline bool bank_features(const unsigned char *rgb, int size, int grid, float *out)
{
    size_t n = (size_t)size * (size_t)size;
    float *memory = (float *)malloc(6 * n * sizeof *memory);
    plane p[3], half[3];
    if (!memory) return false;
    for (int k = 0; k < 3; ++k) {
        p[k] = (plane){ memory + (size_t)k * n, size };
        half[k] = (plane){ memory + (size_t)(3 + k) * n, size / 2 };
    }
    for (size_t i = 0; i < n; ++i) {
        float r = (float)rgb[3 * i] / 255, g = (float)rgb[3 * i + 1] / 255, b = (float)rgb[3 * i + 2] / 255;
        p[0].at[i] = (r + g + b) / 3;
        p[1].at[i] = r - g;
        p[2].at[i] = 0.5f * (r + g) - b;
    }
    memset(out, 0, (size_t)(grid * grid) * BANK_CHANNELS * sizeof *out);
    bank_means(p, grid, out);
    for (int s = 0; s < BANK_SCALES && p->size >= grid; ++s) {
        bank_scale(p, s, grid, out);
        for (int k = 0; k < 3; ++k) plane_halve(p + k, half + k);
        for (int k = 0; k < 3; ++k) {
            plane swap = p[k];
            p[k] = half[k];
            half[k] = swap;
        }
    }
    bank_finish(grid, out);
    free(memory);
    return true;
}

#endif /* FEATURES_H */
