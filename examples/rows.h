/* rows.h - rows of numbers from files, and the units in which an energy sees them. Include it after common.h.
   All is static inline because no program uses all of it. */
#ifndef ROWS_H
#define ROWS_H

/* x [n,dim], malloc's */
typedef struct rows { float *x; int n, dim; } rows;

/* The energy sees (row - mean [dim])/scale; on the sphere the mean is 0 and the scale 1. */
typedef struct units { int dim; double scale; float *mean; } units;

static inline vgs_status read_tensor(const char *path, rows *r, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const vgs_file_tensor *t = f ? vgs_safetensors_find(f, "x") : NULL;
    vgs_status st = f ? VGS_OK : err->code;
    if (f && (!t || t->ndim != 2 || !t->count || t->shape[0] > INT_MAX || t->shape[1] > 1000000)) {
        err->code = st = VGS_E_FORMAT;
        snprintf(err->msg, sizeof err->msg, "%.150s: there is no tensor x [N,D] with rows", path);
    }
    if (st == VGS_OK) {
        r->n = (int)t->shape[0];
        r->dim = (int)t->shape[1];
        if (!(r->x = malloc(t->count * sizeof *r->x))) {
            err->code = st = VGS_E_NOMEM;
            snprintf(err->msg, sizeof err->msg, "%.150s: out of memory: %.0f numbers", path,
                     (double)t->count);
        } else st = vgs_safetensors_floats(f, "x", r->x, t->count, err);
    }
    vgs_safetensors_free(f);
    return st;
}

/* vgs_npy_read hands over memory that vgs_free takes; rows are always malloc's. */
static inline vgs_status read_rows(const char *path, rows *r, vgs_error *err)
{
    float *x = NULL;
    vgs_status st;
    memset(r, 0, sizeof *r);
    if (ends_with(path, ".safetensors")) return read_tensor(path, r, err);
    if ((st = vgs_npy_read(path, &x, &r->n, &r->dim, err)) != VGS_OK) return st;
    r->x = malloc((size_t)r->n * (size_t)r->dim * sizeof *r->x + 1);
    if (r->x) memcpy(r->x, x, (size_t)r->n * (size_t)r->dim * sizeof *r->x);
    else {
        err->code = st = VGS_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "%.150s: out of memory: %d rows", path, r->n);
    }
    vgs_free(x);
    return st;
}

/* The first row that cannot be learned from, before anything else is done. */
static inline vgs_status check_rows(const char *path, const rows *r, bool sphere, vgs_error *err)
{
    for (int i = 0; i < r->n; ++i) {
        double norm = 0;
        for (int k = 0; k < r->dim; ++k) {
            double v = (double)r->x[(size_t)i * (size_t)r->dim + (size_t)k];
            norm += v * v;
            if (isfinite(v)) continue;
            snprintf(err->msg, sizeof err->msg, "%.150s: row %d, column %d is %g: must be finite", path, i,
                     k, v);
            return err->code = VGS_E_NONFINITE;
        }
        if (!sphere || norm > 0) continue;
        snprintf(err->msg, sizeof err->msg, "%.150s: row %d has length 0: it has no place on the sphere",
                 path, i);
        return err->code = VGS_E_NONFINITE;
    }
    return VGS_OK;
}

/* Whether all rows, on the sphere their directions, are one but for rounding. */
static inline bool rows_alike(const rows *r, bool sphere)
{
    double *mean = (double *)room_for((size_t)r->dim, sizeof *mean), far = 0, size = 0;
    for (int pass = 0; pass < 2; ++pass)
        for (int i = 0; i < r->n; ++i) {
            const float *x = r->x + (size_t)i * (size_t)r->dim;
            double norm = 0;
            for (int k = 0; k < r->dim; ++k) norm += (double)x[k] * (double)x[k];
            norm = sphere ? sqrt(norm) : 1;
            for (int k = 0; k < r->dim; ++k) {
                double v = (double)x[k] / norm;
                if (!pass) mean[k] += v / r->n;
                else far += (v - mean[k]) * (v - mean[k]), size += v * v;
            }
        }
    free(mean);
    return far <= (double)FLT_EPSILON * (double)FLT_EPSILON * size;
}

static inline bool units_make(units *u, int dim)
{
    u->dim = dim;
    u->scale = 1;
    u->mean = calloc((size_t)dim, sizeof *u->mean);
    if (!u->mean) say("out of memory: %d columns", dim);
    return u->mean != NULL;
}

/* The mean of every column, and one standard deviation of all: shapes stay what they are. */
static inline void units_measure(units *u, const rows *r)
{
    double sum = 0;
    for (int k = 0; k < r->dim; ++k) {
        double mean = 0;
        for (int i = 0; i < r->n; ++i) mean += (double)r->x[(size_t)i * (size_t)r->dim + (size_t)k] / r->n;
        u->mean[k] = (float)mean;
        for (int i = 0; i < r->n; ++i)
            sum += pow((double)r->x[(size_t)i * (size_t)r->dim + (size_t)k] - mean, 2) / r->n / r->dim;
    }
    u->scale = sum > 0 ? (double)(float)sqrt(sum) : 1;
}

static inline void units_apply(const units *u, rows *r)
{
    for (size_t i = 0; i < (size_t)r->n * (size_t)r->dim; ++i)
        r->x[i] = (float)(((double)r->x[i] - (double)u->mean[i % (size_t)u->dim]) / u->scale);
}

static inline void units_undo(const units *u, float *x, int n)
{
    for (size_t i = 0; i < (size_t)n * (size_t)u->dim; ++i)
        x[i] = (float)((double)x[i] * u->scale + (double)u->mean[i % (size_t)u->dim]);
}

/* As text in the checkpoint's metadata: the mean of each column, separated by blanks. */
static inline char *units_text(const units *u)
{
    char *text = malloc(32 * (size_t)u->dim + 1), number_of[32], *at = text;
    for (int k = 0; text && k < u->dim; ++k) {
        vgs_number_text((double)u->mean[k], number_of);
        at += sprintf(at, "%s%s", k ? " " : "", number_of);
    }
    return text;
}

static inline vgs_status units_read(units *u, const vgs_safetensors *f, const char *path, vgs_error *err)
{
    const char *text = vgs_safetensors_meta(f, "data_mean");
    char *end;
    vgs_status st = vgs_safetensors_meta(f, "data_scale") ? vgs_safetensors_number(f, "data_scale",
                                                                                   &u->scale, err)
                                                          : VGS_OK;
    for (int k = 0; text && k < u->dim && st == VGS_OK; ++k, text = end) {
        u->mean[k] = (float)strtod(text, &end);
        if (end != text && isfinite(u->mean[k])) continue;
        err->code = st = VGS_E_FORMAT;
        snprintf(err->msg, sizeof err->msg, "%.150s: data_mean has not %d numbers", path, u->dim);
    }
    return st;
}

#endif /* ROWS_H */
