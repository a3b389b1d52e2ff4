/* ranking.h - how well a score tells bad rows from good ones: AUROC and average precision, on raw scores in
   double, ties counted half. Include it after vgs.h. */
#ifndef RANKING_H
#define RANKING_H

#include <stdbool.h>
#include <stdlib.h>

typedef struct ranked { double score; bool bad; } ranked;

static inline int ranking_order(const void *a, const void *b)        /* the highest score first           */
{
    double x = ((const ranked *)a)->score, y = ((const ranked *)b)->score;
    return (x < y) - (x > y);
}

/* The chance that a bad row has a higher score than a good one; and the mean, over the bad rows, of the share
   of bad among the rows that score at least as high. Sorts r [n]. NaN without rows of both kinds. */
static inline void ranking(ranked *r, size_t n, double *auroc, double *average_precision)
{
    double bad = 0, good = 0, above = 0, precision = 0;
    qsort(r, n, sizeof *r, ranking_order);
    for (size_t i = 0, j; i < n; i = j) {
        double b = 0, g = 0;
        for (j = i; j < n && r[j].score == r[i].score; ++j) r[j].bad ? ++b : ++g;
        above += g * (bad + 0.5 * b);
        bad += b;
        good += g;
        precision += b * bad / (bad + good);
    }
    *auroc = above / (bad * good);
    *average_precision = precision / bad;
    if (!(bad * good > 0)) *average_precision = *auroc;
}

#endif /* RANKING_H */
