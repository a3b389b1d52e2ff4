/* The built-in targets; vgs.h, >>targets, has them in double. A work-item takes rows; g is absent if nobody
   wants the gradient. */

#define MY_ROWS for (r = GROUP(0) * each + LID; r < min((GROUP(0) + 1) * each, rows); r += WG)

/* E = -log mean_k N(x; c_k, v I): the smallest q_k is taken out before exp. centre: [modes,2] */
KERNEL vgs_mixture(HEAP, int2 x_at, int2 e_at, int2 g_at, int2 centre_at, int rows, int each, int modes,
                   float half_over_v, float base)
{
    __global float *page[8] = HEAP_PAGES;
    view x = view_of(page, x_at.x, x_at.y), e = view_of(page, e_at.x, e_at.y);
    view g = view_of(page, g_at.x, g_at.y);
    __global const float *centre = view_of(page, centre_at.x, centre_at.y).p;
    int r, k;
    MY_ROWS {
        float a = ROW(x, r)[0], b = ROW(x, r)[1], least = INFINITY, sum = 0.0f, ma = 0.0f, mb = 0.0f;
        for (k = 0; k < modes; ++k) {
            float da = a - centre[2 * k], db = b - centre[2 * k + 1];
            least = fmin(least, (da * da + db * db) * half_over_v);
        }
        for (k = 0; k < modes; ++k) {
            float da = a - centre[2 * k], db = b - centre[2 * k + 1];
            float q = (da * da + db * db) * half_over_v;
            float w = least < INFINITY ? vexp(least - q) : 1.0f;      /* |x| > 1e19: all are as far      */
            sum += w;
            ma += w * da;
            mb += w * db;
        }
        ROW(e, r)[0] = a == a && b == b ? least - vlog(sum) + base : a + b;
        if (g.p) {
            ROW(g, r)[0] = 2.0f * half_over_v * (ma / sum);
            ROW(g, r)[1] = 2.0f * half_over_v * (mb / sum);
        }
    }
}

/* x1 ~ N(0, 9), the others given x1 ~ N(0, exp(x1)) */
KERNEL vgs_funnel(HEAP, int2 x_at, int2 e_at, int2 g_at, int rows, int each, int dim, float base)
{
    __global float *page[8] = HEAP_PAGES;
    view x = view_of(page, x_at.x, x_at.y), e = view_of(page, e_at.x, e_at.y);
    view g = view_of(page, g_at.x, g_at.y);
    int r, k;
    MY_ROWS {
        __global const float *p = ROW(x, r);
        float a = p[0], s = 0.0f, w = vexp(a < -88.0f ? 88.0f : -a);
        for (k = 1; k < dim; ++k) s += p[k] * p[k];
        ROW(e, r)[0] = a * a / 18.0f + 0.5f * (s * w + (float)(dim - 1) * a) + base;
        if (!g.p) continue;
        ROW(g, r)[0] = a / 9.0f + 0.5f * ((float)(dim - 1) - s * w);
        for (k = 1; k < dim; ++k) ROW(g, r)[k] = p[k] * w;
    }
}

/* Independent wells in (a, b): a^4 - 6 a^2 - a/2 + b^2/2 */
KERNEL vgs_manywell(HEAP, int2 x_at, int2 e_at, int2 g_at, int rows, int each, int dim)
{
    __global float *page[8] = HEAP_PAGES;
    view x = view_of(page, x_at.x, x_at.y), e = view_of(page, e_at.x, e_at.y);
    view g = view_of(page, g_at.x, g_at.y);
    int r, k;
    MY_ROWS {
        __global const float *p = ROW(x, r);
        float hi = 0.0f, lo = 0.0f;
        for (k = 0; k < dim; k += 2) {
            float a = p[k], b = p[k + 1];
            ADD2(hi, lo, ((a * a - 6.0f) * a - 0.5f) * a)
            ADD2(hi, lo, 0.5f * b * b)
            if (!g.p) continue;
            ROW(g, r)[k] = (4.0f * a * a - 12.0f) * a - 0.5f;
            ROW(g, r)[k + 1] = b;
        }
        ROW(e, r)[0] = hi + lo;
    }
}

/* Energy of a pair at squared distance s, and its slope du/ds: double well, Lennard-Jones with both orders of
   a pair. The slope is held finite, so that it times a difference of 0 is 0. */
inline float pair_energy(int lj, float s, float *slope)
{
    if (lj) {
        float i2 = 1.0f / (s + 1e-6f), i6 = i2 * i2 * i2;
        *slope = fmax(12.0f * i6 * i2 * (1.0f - i6), -1e38f);
        return 2.0f * i6 * (i6 - 2.0f);
    } else {
        float r = sqrt(s), z = r - 4.0f, z2 = z * z;
        *slope = s > 0.0f ? (1.8f * z2 - 4.0f) * z / r : 0.0f;
        return (0.9f * z2 - 4.0f) * z2;
    }
}

/* n particles in d <= 3 dimensions; LJ adds half the squared distance to the mean. Each particle gathers the
   pulls on it; its share of a pair's energy is a half. */
KERNEL vgs_cluster(HEAP, int2 x_at, int2 e_at, int2 g_at, int rows, int each, int n, int d, int lj)
{
    __global float *page[8] = HEAP_PAGES;
    view x = view_of(page, x_at.x, x_at.y), e = view_of(page, e_at.x, e_at.y);
    view g = view_of(page, g_at.x, g_at.y);
    int r, i, j, k;
    MY_ROWS {
        __global const float *p = ROW(x, r);
        float mean[3] = { 0.0f, 0.0f, 0.0f }, hi = 0.0f, lo = 0.0f;
        for (k = 0; k < d; ++k) {
            for (i = 0; i < n; ++i) mean[k] += p[i * d + k];
            mean[k] /= (float)n;
        }
        for (i = 0; i < n; ++i) {
            float f[3] = { 0.0f, 0.0f, 0.0f };
            for (j = 0; j < n; ++j) {
                float u[3], s = 0.0f, slope, pair;
                if (j == i) continue;
                for (k = 0; k < d; ++k) {
                    u[k] = p[i * d + k] - p[j * d + k];
                    s += u[k] * u[k];
                }
                pair = pair_energy(lj, s, &slope);
                if (j > i) ADD2(hi, lo, pair)
                for (k = 0; k < d; ++k) f[k] += slope * (2.0f * u[k]);
            }
            for (k = 0; k < d; ++k) {
                float u = lj ? p[i * d + k] - mean[k] : 0.0f;
                ADD2(hi, lo, 0.5f * u * u)
                if (g.p) ROW(g, r)[i * d + k] = f[k] + u;
            }
        }
        ROW(e, r)[0] = hi + lo;
    }
}
