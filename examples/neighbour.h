/* neighbour.h - how far a feature lies from the nearest of a bounded number of good ones. Include it after
   gaussian.h. */
#ifndef NEIGHBOUR_H
#define NEIGHBOUR_H

enum { NEIGHBOUR_ROWS = 20000 };                 /* good features of which the bank is chosen            */

typedef struct neighbour {
    int rows, channels;
    float *bank;             /* [rows, channels]                                                         */
    float *square;           /* |row|^2                                                                  */
} neighbour;

static inline void neighbour_free(neighbour *b)
{
    free(b->bank);
    free(b->square);
    b->bank = b->square = NULL;
}

static inline neighbour neighbour_create(int rows, int channels)
{
    neighbour b = { rows, channels, NULL, NULL };
    b.bank = (float *)room_for((size_t)rows * (size_t)channels, sizeof *b.bank);
    b.square = (float *)room_for((size_t)rows, sizeof *b.square);
    return b;
}

static inline void neighbour_squares(neighbour *b)
{
    for (int i = 0; i < b->rows; ++i) {
        const float *row = b->bank + (size_t)i * (size_t)b->channels;
        b->square[i] = dot(row, row, b->channels);
    }
}

/* At most `most` cells of the images in use into rows, each equally likely; returns how many. */
static inline int neighbour_candidates(store *s, const bool *use, int cells, int channels, vgs_rng *r,
                                       int most, float *rows)
{
    double left = 0, wanted = most;
    float *x = (float *)room_for(s->numbers, sizeof *x);
    int n = 0;
    for (int i = 0; i < s->n; ++i) left += use[i] ? cells : 0;
    if (wanted > left) wanted = left;
    for (int i = 0; i < s->n; ++i) {
        if (!use[i]) continue;
        store_get(s, i, x);
        for (int k = 0; k < cells; ++k, left -= 1) {
            if (vgs_rng_uniform(r) * left >= wanted - n) continue;
            memcpy(rows + (size_t)n++ * (size_t)channels, x + (size_t)k * (size_t)channels,
                   (size_t)channels * sizeof *x);
        }
    }
    free(x);
    return n;
}

/* A greedy coreset (k-centre): a random row, then always the one that is farthest from all that are chosen.
   */
static inline void neighbour_fit(neighbour *b, store *s, const bool *use, int cells, uint64_t seed)
{
    vgs_rng r = { seed, 65, 0 };
    int c = b->channels, n, next;
    float *rows = (float *)room_for((size_t)NEIGHBOUR_ROWS * (size_t)c, sizeof *rows);
    float *nearest = (float *)room_for(NEIGHBOUR_ROWS, sizeof *nearest);
    n = neighbour_candidates(s, use, cells, c, &r, NEIGHBOUR_ROWS, rows);
    if (b->rows > n) b->rows = n;
    next = (int)vgs_rng_below(&r, (uint32_t)n);
    for (int i = 0; i < n; ++i) nearest[i] = FLT_MAX;
    for (int k = 0; k < b->rows; ++k) {
        const float *chosen = memcpy(b->bank + (size_t)k * (size_t)c, rows + (size_t)next * (size_t)c,
                                     (size_t)c * sizeof *rows);
        float far = -1, square = dot(chosen, chosen, c);
        for (int i = 0; i < n; ++i) {
            const float *row = rows + (size_t)i * (size_t)c;
            float d = dot(row, row, c) - 2 * dot(row, chosen, c) + square;
            if (d < nearest[i]) nearest[i] = d;
            if (nearest[i] > far) far = nearest[i], next = i;
        }
    }
    neighbour_squares(b);
    free(rows);
    free(nearest);
}

/* Distances of the features x [cells, channels] to the nearest of the bank, into map [cells]. */
static inline void neighbour_score(const neighbour *b, const float *x, int cells, float *map)
{
    for (int k = 0; k < cells; ++k) {
        const float *v = x + (size_t)k * (size_t)b->channels;
        float least = FLT_MAX, square = dot(v, v, b->channels);
        for (int i = 0; i < b->rows; ++i) {
            float d = b->square[i] - 2 * dot(b->bank + (size_t)i * (size_t)b->channels, v, b->channels);
            if (d < least) least = d;
        }
        map[k] = sqrtf(square + least > 0 ? square + least : 0);
    }
}

#endif /* NEIGHBOUR_H */
