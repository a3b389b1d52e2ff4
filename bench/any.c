/* any.c - what a new user does first: the energy and its dimension, nothing else. Trains each problem by
   seconds, beside the Gaussian fit of the pilot; --mcmc: parallel tempering for as many seconds in its place.
   cc -O2 -fopenmp bench/any.c -o build/bench_any -lm
   ./build/bench_any [--mcmc] [--seeds N] [--seconds S] [--rows N] [--FIELD VALUE of the configuration ...]
   [NAME...] */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "clock.h"

#define LOG_2PI 1.8378770664093453
#define PI 3.14159265358979324
#define FN(name) static int name(void *user, const double *x, int n, int dim, double *e, double *g)
#define EACH_ROW for (int i = 0; i < n; ++i, x += dim, g = g ? g + dim : NULL)

/* ==== problems ====================================================================================== */

FN(gaussian_100)                                 /* std 1 to 0.001, turned by a reflection           */
{
    double y[100];
    (void)user;
    EACH_ROW {
        double sum = 0.0, back = 0.0;
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) sum += x[j];
        for (int j = 0; j < dim; ++j) {
            double s = pow(10.0, -3.0 * j / (dim - 1)), z = (x[j] - 2.0 / dim * sum) / s;
            e[i] += 0.5 * z * z;
            back += y[j] = z / s;
        }
        for (int j = 0; g && j < dim; ++j) g[j] = y[j] - 2.0 / dim * back;
    }
    return 0;
}

/* Gaussians whose std falls by so many powers of ten, along the axes. */
static int falling(double powers, const double *x, int n, int dim, double *e, double *g)
{
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) {
            double s = pow(10.0, -powers * j / (dim - 1)), z = x[j] / s;
            e[i] += 0.5 * z * z;
            if (g) g[j] = z / s;
        }
    }
    return 0;
}

FN(apart) { (void)user; return falling(6.0, x, n, dim, e, g); }
FN(axes) { (void)user; return falling(3.0, x, n, dim, e, g); }

FN(on_sphere)                                    /* von Mises-Fisher, kappa 5 on S^2, 20 on S^9      */
{
    const double kappa = dim == 3 ? 5.0 : 20.0;
    (void)user;
    EACH_ROW {
        e[i] = -kappa * x[0];
        for (int j = 0; g && j < dim; ++j) g[j] = j ? 0.0 : -kappa;
    }
    return 0;
}

FN(far_away)                                     /* mean 1e5 std, std 1e-6, constant 1e9             */
{
    (void)user;
    EACH_ROW {
        e[i] = 1e9;
        for (int j = 0; j < dim; ++j) {
            double z = (x[j] - 0.1) / 1e-6;
            e[i] += 0.5 * z * z;
            if (g) g[j] = z / 1e-6;
        }
    }
    return 0;
}

static double two_sizes(double x, double *slope) /* half N(0,1), half N(5, 0.1^2)                    */
{
    double z = x, y = (x - 5.0) / 0.1, a = log(0.5) - 0.5 * z * z, b = log(5.0) - 0.5 * y * y;
    double top = a > b ? a : b, p = exp(a - top), q = exp(b - top);
    *slope = (p * z + q * y / 0.1) / (p + q);
    return -(top + log(p + q)) + 0.5 * LOG_2PI;
}

FN(four_sizes)
{
    (void)user;
    EACH_ROW {
        double s[2];
        e[i] = two_sizes(x[0], &s[0]) + two_sizes(x[1], &s[1]);
        for (int j = 0; g && j < dim; ++j) g[j] = s[j];
    }
    return 0;
}

FN(rosenbrock)                                   /* b = 100                                          */
{
    (void)user;
    EACH_ROW {
        double a = x[0], w = x[1] - a * a;
        e[i] = 0.5 * ((1.0 - a) * (1.0 - a) + 100.0 * w * w);
        if (g) { g[0] = a - 1.0 - 200.0 * w * a; g[1] = 100.0 * w; }
    }
    return 0;
}

FN(mueller_brown)
{
    static const double A[4] = { -200, -100, -170, 15 }, a[4] = { -1, -1, -6.5, 0.7 },
                        b[4] = { 0, 0, 11, 0.6 }, c[4] = { -10, -10, -6.5, 0.7 },
                        u[4] = { 1, 0, -0.5, -1 }, v[4] = { 0, 0.5, 1.5, 1 };
    (void)user;
    EACH_ROW {
        double gx = 0.0, gy = 0.0;
        e[i] = 0.0;
        for (int k = 0; k < 4; ++k) {
            double p = x[0] - u[k], q = x[1] - v[k];
            double t = A[k] * exp(a[k] * p * p + b[k] * p * q + c[k] * q * q);
            e[i] += t;
            gx += t * (2.0 * a[k] * p + b[k] * q);
            gy += t * (b[k] * p + 2.0 * c[k] * q);
        }
        if (g) { g[0] = gx; g[1] = gy; }
    }
    return 0;
}

FN(bananas)                                      /* three pairs: y - x^2 of std 0.3                  */
{
    (void)user;
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; j += 2) {
            double a = x[j], w = (x[j + 1] - a * a) / 0.3;
            e[i] += 0.5 * (a - 1.0) * (a - 1.0) + 0.5 * w * w;
            if (g) { g[j] = a - 1.0 - 2.0 * a * w / 0.3; g[j + 1] = w / 0.3; }
        }
    }
    return 0;
}

/* Student's t of nu degrees; of two dimensions log Z is that of N(0, 1). */
static void student_any(double nu, const double *x, int dim, double *e, double *g)
{
    double r = 0.0;
    for (int j = 0; j < dim; ++j) r += x[j] * x[j];
    *e = 0.5 * (nu + dim) * log1p(r / nu);
    for (int j = 0; g && j < dim; ++j) g[j] = (nu + dim) * x[j] / (nu + r);
}

FN(student) { (void)user; EACH_ROW student_any(2.5, x, dim, e + i, g); return 0; }
FN(cauchy)  { (void)user; EACH_ROW student_any(1.0, x, dim, e + i, g); return 0; }

/* Eight schools [Rubin 1981], mu ~ N(0,5), tau ~ half Cauchy(5): x = mu, log tau, then theta or its z. */
static const double school_y[8] = { 28, 8, -3, 7, -1, 1, 18, 12 },
                    school_s[8] = { 15, 10, 16, 11, 9, 11, 10, 18 };

static void schools(const double *x, bool centred, double *e, double *g)
{
    double mu = x[0], tau = exp(x[1]), r = tau / 5.0, g0 = mu / 25.0, g1 = 2.0 * r * r / (1.0 + r * r) - 1.0;
    double sum = 0.5 * mu * mu / 25.0 + 0.5 * LOG_2PI + log(5.0) + log(PI * 2.5) + log1p(r * r) - x[1];
    for (int j = 0; j < 8; ++j) {
        double z = centred ? (x[2 + j] - mu) / tau : x[2 + j], theta = mu + tau * z;
        double b = (school_y[j] - theta) / school_s[j], back = -b / school_s[j];
        sum += 0.5 * z * z + 0.5 * b * b + log(school_s[j]) + LOG_2PI + (centred ? x[1] : 0.0);
        g0 += centred ? -z / tau : back;
        g1 += centred ? 1.0 - z * z : back * tau * z;
        if (g) g[2 + j] = centred ? z / tau + back : z + back * tau;
    }
    *e = sum;
    if (g) { g[0] = g0; g[1] = g1; }
}

FN(schools_centred) { (void)user; EACH_ROW schools(x, true, e + i, g); return 0; }
FN(schools_other)   { (void)user; EACH_ROW schools(x, false, e + i, g); return 0; }

/* Bayesian logistic regression: 200 rows of 31 correlated columns made here, prior N(0, 2.5^2). */
enum { LOGIT_ROWS = 200, LOGIT_DIM = 31 };
static double logit_x[LOGIT_ROWS][LOGIT_DIM];
static int logit_y[LOGIT_ROWS];

static void logit_data(void)
{
    vgs_rng r = { 7, 1, 0 };
    for (int k = 0; k < LOGIT_ROWS; ++k) {
        float z[LOGIT_DIM + 1];
        double t = 0.0;
        vgs_rng_normals(&r, z, LOGIT_DIM + 1);
        for (int j = 0; j < LOGIT_DIM; ++j) {
            logit_x[k][j] = j ? 0.6 * (double)z[j] + 0.8 * (double)z[0] : 1.0;
            t += logit_x[k][j] * (j % 3 - 1) * 0.5;
        }
        logit_y[k] = vgs_rng_uniform(&r) < 1.0 / (1.0 + exp(-t));
    }
}

FN(logistic)
{
    (void)user;
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) {
            e[i] += 0.5 * x[j] * x[j] / 6.25 + 0.5 * LOG_2PI + log(2.5);
            if (g) g[j] = x[j] / 6.25;
        }
        for (int k = 0; k < LOGIT_ROWS; ++k) {
            double t = 0.0, p;
            for (int j = 0; j < dim; ++j) t += logit_x[k][j] * x[j];
            e[i] += log1p(exp(-fabs(t))) + (t > 0.0 ? t : 0.0) - logit_y[k] * t;
            p = 1.0 / (1.0 + exp(-t)) - logit_y[k];
            for (int j = 0; g && j < dim; ++j) g[j] += p * logit_x[k][j];
        }
    }
    return 0;
}

FN(lennard_jones_7)                              /* lj13's formula, n = 7, d = 2                     */
{
    (void)user;
    EACH_ROW {
        double mean[2] = { 0.0, 0.0 }, d[14];
        for (int j = 0; j < 14; ++j) mean[j % 2] += x[j] / 7.0;
        e[i] = 0.0;
        for (int j = 0; j < 14; ++j) {
            d[j] = x[j] - mean[j % 2];
            e[i] += 0.5 * d[j] * d[j];
        }
        for (int a = 0; a < 7; ++a)
            for (int b = 0; b < a; ++b) {
                double p = x[2 * a] - x[2 * b], q = x[2 * a + 1] - x[2 * b + 1], r2 = p * p + q * q + 1e-6;
                double i6 = 1.0 / (r2 * r2 * r2), f = 24.0 * (i6 - i6 * i6) / r2;
                e[i] += 2.0 * (i6 * i6 - 2.0 * i6);
                d[2 * a] += f * p;
                d[2 * a + 1] += f * q;
                d[2 * b] -= f * p;
                d[2 * b + 1] -= f * q;
            }
        for (int j = 0; g && j < 14; ++j) g[j] = d[j];
    }
    return 0;
}

FN(gamma_3)
{
    (void)user; (void)dim;
    EACH_ROW {
        bool in = x[0] > 0.0;
        e[i] = in ? -2.0 * log(x[0]) + x[0] + log(2.0) : (double)INFINITY;
        if (g) g[0] = in ? 1.0 - 2.0 / x[0] : 0.0;
    }
    return 0;
}

FN(quadrant)                                     /* N(0, 1) cut to x > 0.3 in every coordinate        */
{
    (void)user;
    EACH_ROW {
        bool in = true;
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) {
            in = in && x[j] > 0.3;
            e[i] += 0.5 * x[j] * x[j];
            if (g) g[j] = x[j];
        }
        if (!in) e[i] = (double)INFINITY;
    }
    return 0;
}

FN(von_mises)                                    /* kappa 2 on [-pi, pi]                             */
{
    (void)user; (void)dim;
    EACH_ROW {
        e[i] = fabs(x[0]) <= PI ? -2.0 * cos(x[0]) : (double)INFINITY;
        if (g) g[0] = 2.0 * sin(x[0]);
    }
    return 0;
}

FN(phi_4)                                        /* a ring: (x_i - x_i+1)^2 / 2 + (x_i^2 - 1)^2      */
{
    (void)user;
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) {
            double a = x[j], next = a - x[(j + 1) % dim], last = a - x[(j + dim - 1) % dim], w = a * a - 1.0;
            e[i] += 0.5 * next * next + w * w;
            if (g) g[j] = next + last + 4.0 * a * w;
        }
    }
    return 0;
}

/* log Z of the ring of 32, the trace of the 32nd power of its transfer matrix on a grid. */
static double phi_4_log_z(void)
{
    enum { CELLS = 240 };
    static double t[CELLS * CELLS], square[CELLS * CELLS];
    double log_scale = 0.0, trace = 0.0, step = 8.0 / CELLS;
    for (int i = 0; i < CELLS * CELLS; ++i) {
        double a = -4.0 + step * (i / CELLS + 0.5), b = -4.0 + step * (i % CELLS + 0.5);
        double v = a * a - 1.0, w = b * b - 1.0;
        t[i] = step * exp(-0.5 * (a - b) * (a - b) - 0.5 * (v * v + w * w));
    }
    for (int power = 1; power < 32; power *= 2) {
        double most = 0.0;
        memset(square, 0, sizeof square);
        for (int i = 0; i < CELLS; ++i)
            for (int k = 0; k < CELLS; ++k)
                for (int j = 0; j < CELLS; ++j) square[i * CELLS + j] += t[i * CELLS + k] * t[k * CELLS + j];
        for (int i = 0; i < CELLS * CELLS; ++i) most = fmax(most, square[i]);
        for (int i = 0; i < CELLS * CELLS; ++i) t[i] = square[i] / most;
        log_scale = 2.0 * log_scale + log(most);
    }
    for (int i = 0; i < CELLS; ++i) trace += t[i * (CELLS + 1)];
    return log_scale + log(trace);
}

FN(funnel)                                       /* x_0 of std 3, nine more of std exp(x_0 / 2)      */
{
    (void)user;
    EACH_ROW {
        double a = x[0], p = exp(-a), sum = 0.0;
        for (int j = 1; j < dim; ++j) {
            sum += x[j] * x[j];
            if (g) g[j] = x[j] * p;
        }
        e[i] = 0.5 * (a * a / 9.0 + p * sum + (dim - 1) * a);
        if (g) g[0] = a / 9.0 + 0.5 * (dim - 1 - p * sum);
    }
    return 0;
}

static void reflect(double *y, int dim)          /* at the plane of (1, 2, .. dim)                   */
{
    double sum = 0.0, square = 0.0;
    for (int j = 0; j < dim; ++j) sum += (j + 1) * y[j];
    for (int j = 0; j < dim; ++j) square += (j + 1) * (j + 1);
    for (int j = 0; j < dim; ++j) y[j] -= 2.0 / square * (j + 1) * sum;
}

FN(bananas_turned)
{
    double y[6];
    (void)user;
    EACH_ROW {
        memcpy(y, x, sizeof y);
        reflect(y, dim);
        bananas(NULL, y, 1, dim, e + i, g);
        if (g) reflect(g, dim);
    }
    return 0;
}

FN(bends_turned)                                 /* each of std 0.2 about 0.3 (the square of the last - 1) */
{
    double y[8], slope[8];
    (void)user;
    EACH_ROW {
        memcpy(y, x, sizeof y);
        reflect(y, dim);
        memset(slope, 0, sizeof slope);
        e[i] = 0.5 * y[0] * y[0];
        slope[0] = y[0];
        for (int j = 1; j < dim; ++j) {
            double z = (y[j] - 0.3 * (y[j - 1] * y[j - 1] - 1.0)) / 0.2;
            e[i] += 0.5 * z * z;
            slope[j] += z / 0.2;
            slope[j - 1] -= z / 0.2 * 0.6 * y[j - 1];
        }
        if (g) memcpy(g, slope, sizeof y);
        if (g) reflect(g, dim);
    }
    return 0;
}

FN(student_turned)                               /* nu 4, widths 1 to 10, turned                     */
{
    double y[10], slope[10];
    (void)user;
    EACH_ROW {
        memcpy(y, x, sizeof y);
        reflect(y, dim);
        for (int j = 0; j < dim; ++j) y[j] /= j + 1;
        student_any(4.0, y, dim, e + i, slope);
        for (int j = 0; g && j < dim; ++j) g[j] = slope[j] / (j + 1);
        if (g) reflect(g, dim);
    }
    return 0;
}

FN(students)                                     /* nu 2.5 in each coordinate, widths 1 to 5         */
{
    (void)user;
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) {
            double y = x[j] / (j + 1), one, slope;
            student_any(2.5, &y, 1, &one, &slope);
            e[i] += one;
            if (g) g[j] = slope / (j + 1);
        }
    }
    return 0;
}

/* log Z of von Mises-Fisher: the area of the sphere of a dimension less, times an integral over the angle. */
static double sphere_log_z(double kappa, int dim)
{
    enum { CELLS = 100000 };
    double sum = 0.0;
    for (int i = 0; i < CELLS; ++i) {
        double angle = PI * (i + 0.5) / CELLS;
        sum += exp(kappa * (cos(angle) - 1.0)) * pow(sin(angle), dim - 2) * PI / CELLS;
    }
    return kappa + log(sum) + log(2.0) + 0.5 * (dim - 1) * log(PI) - log(tgamma(0.5 * (dim - 1)));
}

/* log Z of Student's t. */
static double student_log_z(double nu, int dim)
{
    return 0.5 * dim * log(nu * PI) + log(tgamma(0.5 * nu)) - log(tgamma(0.5 * (nu + dim)));
}

/* ---- Gaussians of many dimensions: what coordinates of low rank are for, and what they are not ---- */

enum { MOST = 1000, FACTORS = 3, LINEAR_ROWS = 1000, LINEAR_DIM = 200 };
static double factor_way[FACTORS][MOST];         /* orthonormal, none along an axis                  */
static const double factor_width[FACTORS] = { 100, 0.01, 0.01 };

static double factor_std(int j) { return pow(10.0, sin(j)); }       /* 0.1 to 10                        */

/* y with its directions as wide as all others: a symmetric map. */
static void factor_even(double *y, int dim)
{
    for (int k = 0; k < FACTORS; ++k) {
        double t = 0.0;
        for (int j = 0; j < dim; ++j) t += factor_way[k][j] * y[j];
        for (int j = 0; j < dim; ++j) y[j] += factor_way[k][j] * t * (1.0 / factor_width[k] - 1.0);
    }
}

FN(factors)                                      /* stds of axes 0.1 to 10, one factor of std 100 times */
{                                                /* these, two turned directions of 0.01 times them  */
    double y[MOST];
    (void)user;
    EACH_ROW {
        e[i] = 0.0;
        for (int j = 0; j < dim; ++j) y[j] = x[j] / factor_std(j);
        factor_even(y, dim);
        for (int j = 0; j < dim; ++j) e[i] += 0.5 * y[j] * y[j];
        if (g) factor_even(y, dim);
        for (int j = 0; g && j < dim; ++j) g[j] = y[j] / factor_std(j);
    }
    return 0;
}

FN(autoregression)                               /* x_j = .99 x_j-1 + noise, variances 1             */
{
    const double rho = 0.99, noise = 1.0 - rho * rho;
    (void)user;
    EACH_ROW {
        e[i] = 0.5 * x[0] * x[0];
        if (g) g[0] = x[0];
        for (int j = 1; j < dim; ++j) {
            double w = x[j] - rho * x[j - 1];
            e[i] += 0.5 * w * w / noise;
            if (!g) continue;
            g[j] = w / noise;
            g[j - 1] -= rho * w / noise;
        }
    }
    return 0;
}

/* Bayesian linear regression, noise 1, prior N(0, 2.5^2), columns correlated as those of logit_data: E is
   x^T A x / 2 - b^T x and a constant, so that log Z = 0. */
static double linear_a[LINEAR_DIM][LINEAR_DIM], linear_b[LINEAR_DIM], linear_constant;

static void linear_data(void)
{
    static double l[LINEAR_DIM][LINEAR_DIM], half[LINEAR_DIM];
    vgs_rng r = { 8, 1, 0 };
    for (int j = 0; j < LINEAR_DIM; ++j) linear_a[j][j] = 1.0 / 6.25;
    for (int k = 0; k < LINEAR_ROWS; ++k) {
        float z[LINEAR_DIM + 2];
        double row[LINEAR_DIM], y;
        vgs_rng_normals(&r, z, LINEAR_DIM + 2);
        y = (double)z[LINEAR_DIM];
        for (int j = 0; j < LINEAR_DIM; ++j) {
            row[j] = 0.6 * (double)z[j] + 0.8 * (double)z[LINEAR_DIM + 1];
            y += row[j] * (j % 3 - 1) * 0.5;
        }
        for (int j = 0; j < LINEAR_DIM; ++j) {
            linear_b[j] += row[j] * y;
            for (int i = 0; i < LINEAR_DIM; ++i) linear_a[j][i] += row[j] * row[i];
        }
    }
    linear_constant = 0.5 * LINEAR_DIM * LOG_2PI;
    for (int i = 0; i < LINEAR_DIM; ++i) {       /* A = l l^T, half = l^-1 b                         */
        half[i] = linear_b[i];
        for (int j = 0; j <= i; ++j) {
            l[i][j] = linear_a[i][j];
            for (int k = 0; k < j; ++k) l[i][j] -= l[i][k] * l[j][k];
            l[i][j] = i == j ? sqrt(l[i][i]) : l[i][j] / l[j][j];
            if (j < i) half[i] -= l[i][j] * half[j];
        }
        half[i] /= l[i][i];
        linear_constant += 0.5 * half[i] * half[i] - log(l[i][i]);
    }
}

FN(linear)
{
    (void)user;
    EACH_ROW {
        e[i] = linear_constant;
        for (int j = 0; j < dim; ++j) {
            double t = -linear_b[j];
            for (int k = 0; k < dim; ++k) t += linear_a[j][k] * x[k];
            e[i] += 0.5 * x[j] * (t - linear_b[j]);
            if (g) g[j] = t;
        }
    }
    return 0;
}

/* log Z of these. */
static double many_log_z(vgs_energy_fn64 *f, int dim)
{
    double sum = 0.5 * dim * LOG_2PI;
    if (f == linear) return 0.0;
    for (int j = 0; j < dim; ++j)
        sum += f == factors ? log(factor_std(j)) : f == axes ? -6.907755278982137 * j / (dim - 1) : 0.0;
    for (int k = 0; k < FACTORS && f == factors; ++k) sum += log(factor_width[k]);
    return f == autoregression ? sum + 0.5 * (dim - 1) * log(1.0 - 0.99 * 0.99) : sum;
}

static void factor_data(int dim)
{
    for (int k = 0; k < FACTORS; ++k)
        for (int j = 0; j < dim; ++j)
            factor_way[k][j] = sqrt(2.0 / dim) * cos(PI * (j + 0.5) * (2 * k + 1) / dim);
}

/* log_z: NAN where it is not known in closed form; wanted ESS/N. */
typedef struct problem {
    const char *name, *target;                   /* target: a built-in one                           */
    vgs_energy_fn64 *f;
    int dim, particles;
    double tau, log_z, wanted, seconds;
} problem;

#define NOT_KNOWN ((double)NAN)
static const problem problems[] = {
    { "gaussian100", NULL, gaussian_100, 100, 0, 1, 50 * LOG_2PI - 150 * 2.302585092994046, 0.95, 20 },
    { "turned5", NULL, gaussian_100, 5, 0, 1, 2.5 * LOG_2PI - 7.5 * 2.302585092994046, 0.95, 20 },
    { "turned30", NULL, gaussian_100, 30, 0, 1, 15 * LOG_2PI - 45 * 2.302585092994046, 0.95, 20 },
    { "apart12", NULL, apart, 12, 0, 1, 6 * LOG_2PI - 36 * 2.302585092994046, 0.95, 20 },
    { "apart30", NULL, apart, 30, 0, 1, 15 * LOG_2PI - 90 * 2.302585092994046, 0.95, 20 },
    { "apart100", NULL, apart, 100, 0, 1, 50 * LOG_2PI - 300 * 2.302585092994046, 0.95, 20 },
    { "far", NULL, far_away, 5, 0, 1, 2.5 * LOG_2PI - 5 * 13.815510557964274 - 1e9, 0.95, 20 },
    { "four-gauss", "four-gauss", NULL, 2, 0, 1, 0, 0.7, 40 },
    { "gmm9", "gmm9", NULL, 2, 0, 1, 0, 0.7, 60 },
    { "gmm25", "gmm25", NULL, 2, 0, 1, 0, 0.7, 120 },
    { "dw4", "dw4", NULL, 8, 4, 1, NOT_KNOWN, 0.7, 240 },
    { "mueller-brown", NULL, mueller_brown, 2, 0, 15, NOT_KNOWN, 0.5, 60 },
    { "rosenbrock", NULL, rosenbrock, 2, 0, 1, LOG_2PI - 2.302585092994046, 0.5, 60 },
    { "bananas", NULL, bananas, 6, 0, 1, 3 * (LOG_2PI - 1.2039728043259361), 0.5, 60 },
    { "four-sizes", NULL, four_sizes, 2, 0, 1, 0, 0.5, 60 },
    { "student", NULL, student, 2, 0, 1, LOG_2PI, 0.5, 60 },
    { "cauchy", NULL, cauchy, 2, 0, 1, LOG_2PI, 0.5, 60 },
    { "students", NULL, students, 5, 0, 1, NOT_KNOWN, 0.5, 60 },
    { "student-turned", NULL, student_turned, 10, 0, 1, NOT_KNOWN, 0.5, 60 },
    { "schools-centred", NULL, schools_centred, 10, 0, 1, -31.311, 0.3, 60 },
    { "schools", NULL, schools_other, 10, 0, 1, -31.311, 0.7, 60 },
    { "logistic", NULL, logistic, LOGIT_DIM, 0, 1, NOT_KNOWN, 0.8, 60 },
    { "lj7", NULL, lennard_jones_7, 14, 7, 1, NOT_KNOWN, 0.3, 120 },
    { "lj7-cold", NULL, lennard_jones_7, 14, 7, 0.5, NOT_KNOWN, 0.3, 120 },
    { "phi4", NULL, phi_4, 32, 0, 1, NOT_KNOWN, 0.2, 120 },
    { "funnel", NULL, funnel, 10, 0, 1, 5 * LOG_2PI + 1.0986122886681098, 0.2, 60 },
    { "bananas-turned", NULL, bananas_turned, 6, 0, 1, 3 * (LOG_2PI - 1.2039728043259361), 0.5, 60 },
    { "bends-turned", NULL, bends_turned, 8, 0, 1, 4 * LOG_2PI - 7 * 1.6094379124341003, 0.5, 60 },
    { "manywell32", "manywell32", NULL, 32, 0, 1, 164.6957, 0.2, 120 },
    { "gamma", NULL, gamma_3, 1, 0, 1, 0, 0.8, 20 },
    { "quadrant1", NULL, quadrant, 1, 0, 1, 0.5 * LOG_2PI - 0.9621012, 0.8, 20 },
    { "quadrant", NULL, quadrant, 3, 0, 1, 3 * (0.5 * LOG_2PI - 0.9621012), 0.8, 20 },
    { "quadrant5", NULL, quadrant, 5, 0, 1, 5 * (0.5 * LOG_2PI - 0.9621012), 0.8, 20 },
    { "von-mises", NULL, von_mises, 1, 0, 1, 1.8378770664093453 + 0.8239937, 0.8, 20 },
    { "sphere3", NULL, on_sphere, 3, 0, 1, 5.2284, 0.8, 20 },
    { "sphere10", NULL, on_sphere, 10, 0, 1, NOT_KNOWN, 0.8, 20 },
    { "axes200", NULL, axes, 200, 0, 1, NOT_KNOWN, 0.95, 20 },
    { "axes500", NULL, axes, 500, 0, 1, NOT_KNOWN, 0.95, 20 },
    { "factors200", NULL, factors, 200, 0, 1, NOT_KNOWN, 0.95, 20 },
    { "factors500", NULL, factors, 500, 0, 1, NOT_KNOWN, 0.95, 20 },
    { "factors1000", NULL, factors, 1000, 0, 1, NOT_KNOWN, 0.95, 20 },
    { "autoregression200", NULL, autoregression, 200, 0, 1, NOT_KNOWN, 0, 20 },
    { "autoregression500", NULL, autoregression, 500, 0, 1, NOT_KNOWN, 0, 20 },
    { "linear200", NULL, linear, LINEAR_DIM, 0, 1, NOT_KNOWN, 0, 20 }
};

/* ==== a run ========================================================================================= */

/* What is taken off log Z: the truth, or 0 where it is not known. */
static double truth(const problem *p)
{
    if (p->f == phi_4) return phi_4_log_z();
    if (p->f == on_sphere && p->dim == 10) return sphere_log_z(20.0, 10);
    if (p->f == axes || p->f == factors || p->f == autoregression || p->f == linear)
        return many_log_z(p->f, p->dim);
    if (p->f == students) return 5.0 * student_log_z(2.5, 1) + log(120.0);
    if (p->f == student_turned) return student_log_z(4.0, 10) + log(3628800.0);
    return p->log_z == p->log_z ? p->log_z : 0.0;
}

/* The mean of x_1 behind walls and on spheres, there d log Z/d kappa; of others it is not asked. */
static double truth_mean(const problem *p)
{
    if (p->f == gamma_3) return 3.0;
    if (p->f == quadrant) return exp(-0.5 * 0.3 * 0.3 - 0.5 * LOG_2PI) / (0.5 * erfc(0.3 / sqrt(2.0)));
    if (p->f == von_mises) return 0.0;
    if (p->f == on_sphere && p->dim == 3) return (sphere_log_z(5.001, 3) - sphere_log_z(4.999, 3)) / 0.002;
    if (p->f == on_sphere) return (sphere_log_z(20.001, 10) - sphere_log_z(19.999, 10)) / 0.002;
    return NOT_KNOWN;
}

/* The mean of x_1 by weight and its error. */
typedef struct mean_of { double mean, se; } mean_of;
static mean_of weighted_mean(const float *x, int dim, const double *log_weight, int n, double log_z)
{
    mean_of m = { 0.0, 0.0 };
    double sum = 0.0;
    for (int i = 0; i < n; ++i) {
        double w = exp(log_weight[i] - log_z);
        sum += w;
        m.mean += w * (double)x[(size_t)i * (size_t)dim];
    }
    m.mean /= sum;
    for (int i = 0; i < n; ++i)
        m.se += pow(exp(log_weight[i] - log_z) / sum * ((double)x[(size_t)i * (size_t)dim] - m.mean), 2.0);
    m.se = sqrt(m.se);
    return m;
}

enum { FIELDS = 16 };
typedef struct settings {
    double seconds;
    int seeds, rows, fields;
    bool mcmc;
    struct { char name[32]; const char *value; } field[FIELDS];      /* given by hand                    */
} settings;

static vgs_config config_of(const problem *p, uint64_t seed)
{
    vgs_config c = { .seed = seed, .tau = (float)p->tau };
    if (p->target) c.energy = target_energy(target_find(p->target));
    else c.energy = (vgs_energy){ .eval64 = p->f, .dim = p->dim, .particles = p->particles,
                                  .thread_safe = true };
    c.on_sphere = p->f == on_sphere;
    return c;
}

static int weigh(vgs_sampler *s, int n, vgs_weights *w, mean_of *m, vgs_error *err)
{
    int dim = vgs_sampler_config(s)->energy.dim, bad;
    float *x = malloc(sizeof *x * (size_t)n * (size_t)dim);
    double *lw = malloc(sizeof *lw * (size_t)n);
    vgs_draw d = { .log_weight = lw, .first_row = 1000000 };
    bad = !x || !lw || vgs_sampler_draw(s, &d, n, x, err) || vgs_sampler_weigh(s, lw, n, w, err);
    if (!bad) *m = weighted_mean(x, dim, lw, n, w->log_z);
    free(x);
    free(lw);
    return bad;
}

/* Trains until `seconds` of processor time are spent, measuring not counted; the fit is the sampler as the
   pilot leaves it. */
static int run(const problem *p, const settings *o, uint64_t seed)
{
    double from = cpu_seconds(), limit = o->seconds > 0.0 ? o->seconds : p->seconds, pilot, spent;
    vgs_config c = config_of(p, seed);
    vgs_error err = { VGS_OK, "" };
    vgs_weights fit = { 0 }, w = { 0 };
    mean_of m = { 0 };
    vgs_sampler *s;
    bool bad = false;
    for (int i = 0; i < o->fields && !bad; ++i)
        bad = vgs_field_set(&c, o->field[i].name, o->field[i].value, &err) != VGS_OK;
    s = bad ? NULL : vgs_sampler_create(&c, &err);
    bad = !s || vgs_sampler_train(s, 1, NULL, &err);
    pilot = cpu_seconds() - from;
    bad = bad || weigh(s, o->rows / 5, &fit, &m, &err);
    from = cpu_seconds() - pilot;
    while (!bad && cpu_seconds() - from < limit) bad = vgs_sampler_train(s, 5, NULL, &err) != VGS_OK;
    spent = cpu_seconds() - from;
    bad = bad || weigh(s, o->rows, &w, &m, &err);
    if (bad) printf("| %s | %d | %s |\n", p->name, (int)seed, err.msg);
    else {
        const vgs_config *now = vgs_sampler_config(s);
        printf("| %s | %d | %.3f | %.3f | %.2f | %.2f ", p->name, (int)now->seed, fit.ess, w.ess, p->wanted,
               w.khat);
        printf("| %+.4f +- %.4f | %.3f ", w.log_z - truth(p), w.log_z_se,
               w.log_z - w.elbo);
        if (truth_mean(p) == truth_mean(p)) printf("| %+.4f +- %.4f ", m.mean - truth_mean(p), m.se);
        else printf("| ");
        printf("| %d, %d | %d, %d, %d | %.1f, %.0f | %s |\n", now->steps, (int)vgs_sampler_iteration(s),
               now->energy_features > 0, now->net.windows, now->correct > 0 ? now->correct : 0, pilot,
               spent, vgs_verdict_name(w.verdict));
    }
    fflush(stdout);
    vgs_sampler_free(s);
    return bad;
}

/* Parallel tempering with the defaults, for as many seconds: so many calls as a first run of 1e6 tells. */
static int run_classical(const problem *p, const settings *o, uint64_t seed)
{
    enum { N = 1000 };
    vgs_config c = config_of(p, seed);
    vgs_mcmc_config m = { .energy = c.energy, .method = VGS_PT, .calls = 1e6, .tau = p->tau, .seed = seed };
    vgs_mcmc_stats w;
    vgs_error err = { VGS_OK, "" };
    float *x = malloc(sizeof *x * N * (size_t)p->dim);
    double from = cpu_seconds(), limit = o->seconds > 0.0 ? o->seconds : p->seconds;
    bool bad = !x || vgs_mcmc(&m, N, x, &w, &err);
    if (!bad) {
        m.calls = w.energy_calls * limit / (cpu_seconds() - from);
        from = cpu_seconds();
        bad = vgs_mcmc(&m, N, x, &w, &err) != VGS_OK;
    }
    if (bad) printf("| %s | %d | %s |\n", p->name, (int)seed, err.msg);
    else printf("| %s | %d | %.0f | %+.4f +- %.4f | %.3f | %.2g, %.0f | %s |\n", p->name, (int)seed, w.ess,
                w.log_z - truth(p), w.log_z_se, w.rhat, w.energy_calls,
                cpu_seconds() - from, vgs_verdict_name(w.verdict));
    fflush(stdout);
    free(x);
    return bad;
}

static void head(bool mcmc)
{
    if (mcmc) puts("Parallel tempering, 1000 samples. log Z: less the truth, where that is known.\n\n"
                   "| problem | seed | ESS | log Z | R-hat | calls, s | verdict |\n"
                   "|---|---|---|---|---|---|---|");
    else puts("Energy and dimension only. Untrained: the sampler as the pilot leaves it. log Z: less the\n"
              "truth, where that is known. Chosen: features of E, windows, steps of a corrector. Seconds of\n"
              "a core, draws not included. Mean of x_1, by weight: less the truth, behind walls and on\n"
              "spheres.\n\n"
              "| problem | seed | untrained ESS/N | ESS/N | wanted | k-hat | log Z | log Z - ELBO "
              "| mean of x_1 | T, iterations | chosen | pilot, all s | verdict |\n"
              "|---|---|---|---|---|---|---|---|---|---|---|---|---|");
}

/* --steps 20, --denoise-loss 1: a field of the configuration. */
static bool field_given(settings *o, const char *flag, const char *value)
{
    char *name = o->field[o->fields].name;
    if (o->fields == FIELDS || strncmp(flag, "--", 2) || !value || strlen(flag + 2) >= sizeof o->field->name)
        return false;
    strcpy(name, flag + 2);
    for (char *at = name; *at; ++at) *at = *at == '-' ? '_' : *at;
    o->field[o->fields].value = value;
    if (vgs_field_find(name) < 0) return false;
    o->fields++;
    return true;
}

int main(int argc, char **argv)
{
    settings o = { .seeds = 3, .rows = 20000 };
    int i, named = 0, bad = 0;
    logit_data();
    linear_data();
    for (i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--seeds") && i + 1 < argc) o.seeds = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) o.seconds = atof(argv[++i]);
        else if (!strcmp(argv[i], "--rows") && i + 1 < argc) o.rows = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--mcmc")) o.mcmc = true;
        else if (field_given(&o, argv[i], argv[i + 1])) ++i;
        else named += argv[i][0] == '-' ? 1 << 20 : 1;
    }
    if (named >= 1 << 20 || o.rows < 1000) {
        fprintf(stderr, "usage: bench_any [--mcmc] [--seeds N] [--seconds S] [--rows N >= 1000] "
                        "[--FIELD VALUE of the configuration ...] [NAME...]\n");
        return 2;
    }
    head(o.mcmc);
    for (size_t k = 0; k < sizeof problems / sizeof *problems; ++k)
        for (int seed = 0; seed < o.seeds; ++seed) {
            bool wanted = !named;
            factor_data(problems[k].dim);
            for (i = 1; i < argc; ++i) wanted = wanted || !strcmp(argv[i], problems[k].name);
            if (wanted) bad += (o.mcmc ? run_classical : run)(&problems[k], &o, (uint64_t)seed);
        }
    return bad > 0;
}
