/* inspect.c - what a .safetensors or .npy file holds: tensors with their ranges, metadata, and if it is whole
   cc -O2 examples/inspect.c -o inspect -lm && ./inspect RUN/checkpoint.safetensors */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of the numbers that are finite; bad counts the others. */
typedef struct range { double least, most, sum; size_t bad; } range;

static range range_of(const double *x, size_t n)
{
    range r = { INFINITY, -INFINITY, 0.0, 0 };
    for (size_t i = 0; i < n; ++i) {
        if (!isfinite(x[i])) {
            ++r.bad;
            continue;
        }
        if (x[i] < r.least) r.least = x[i];
        if (x[i] > r.most) r.most = x[i];
        r.sum += x[i];
    }
    return r;
}

static void print_range(const double *x, size_t n)
{
    range r = range_of(x, n);
    if (n == 1 && !r.bad) printf("= %.9g", x[0]);
    else if (n > r.bad) printf("%.4g to %.4g, mean %.4g", r.least, r.most, r.sum / (double)(n - r.bad));
    if (r.bad) printf("%s%zu not finite", n > r.bad ? ", " : "", r.bad);
}

static vgs_status out_of_memory(size_t n, vgs_error *err)
{
    snprintf(err->msg, sizeof err->msg, "out of memory: %zu numbers", n);
    return err->code = VGS_E_NOMEM;
}

/* The numbers of a tensor whose kind can be converted; a single integer with all of its digits. */
static vgs_status print_numbers(const vgs_safetensors *s, const vgs_file_tensor *t, vgs_error *err)
{
    bool whole = t->dtype >= VGS_DTYPE_I64 && t->dtype <= VGS_DTYPE_I8;
    bool natural = t->dtype >= VGS_DTYPE_U64 && t->dtype <= VGS_DTYPE_U8;
    double *x = (double *)malloc((t->count + 1) * sizeof *x);
    int64_t *i = (int64_t *)malloc((t->count + 1) * sizeof *i);
    uint64_t *u = (uint64_t *)(void *)i;
    vgs_status st = VGS_OK;
    if (!x || !i) st = out_of_memory(t->count, err);
    else if (whole) st = vgs_safetensors_i64(s, t->name, i, t->count, err);
    else if (natural) st = vgs_safetensors_u64(s, t->name, u, t->count, err);
    else st = vgs_safetensors_doubles(s, t->name, x, t->count, err);
    if (st == VGS_OK && t->count == 1 && whole) printf("= %" PRId64, i[0]);
    else if (st == VGS_OK && t->count == 1 && natural) printf("= %" PRIu64, u[0]);
    else if (st == VGS_OK) {
        for (size_t k = 0; k < t->count && (whole || natural); ++k)
            x[k] = whole ? (double)i[k] : (double)u[k];
        print_range(x, t->count);
    }
    free(x);
    free(i);
    return st;
}

static vgs_status print_tensor(const vgs_safetensors *s, const vgs_file_tensor *t, vgs_error *err)
{
    vgs_status st = VGS_OK;
    char shape[200] = "[";
    size_t at = 1;
    for (int k = 0; k < t->ndim; ++k)
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRIu64, k ? "," : "", t->shape[k]);
    snprintf(shape + at, sizeof shape - at, "]");
    printf("  %-5s %-14s ", t->dtype_name, shape);
    json_text(stdout, t->name);
    putchar(' ');
    if (t->dtype == VGS_DTYPE_F16 || t->dtype == VGS_DTYPE_BF16 || t->dtype == VGS_DTYPE_BOOL ||
        t->dtype == VGS_DTYPE_OTHER) printf("%zu bytes", t->bytes);
    else st = print_numbers(s, t, err);
    putchar('\n');
    return st;
}

static vgs_status print_safetensors(const vgs_safetensors *s, vgs_error *err)
{
    vgs_status st = VGS_OK;
    printf("checksum: %s\n", vgs_safetensors_has_checksum(s) ? "there is one, and it fits" : "none");
    printf("%d pairs of metadata\n", vgs_safetensors_meta_count(s));
    for (int i = 0; i < vgs_safetensors_meta_count(s); ++i) {
        const char *key = vgs_safetensors_meta_key(s, i);
        printf("  ");
        json_text(stdout, key);
        printf(": ");
        json_text(stdout, vgs_safetensors_meta(s, key));
        putchar('\n');
    }
    printf("%d tensors\n", vgs_safetensors_count(s));
    for (int i = 0; i < vgs_safetensors_count(s) && st == VGS_OK; ++i)
        st = print_tensor(s, vgs_safetensors_tensor(s, i), err);
    return st;
}

static vgs_status inspect_npy(const char *path, vgs_error *err)
{
    float *x;
    double *column;
    int rows, cols;
    if (vgs_npy_read(path, &x, &rows, &cols, err)) return err->code;
    column = (double *)malloc(((size_t)rows + 1) * sizeof *column);
    if (!column) {
        vgs_free(x);
        return out_of_memory((size_t)rows, err);
    }
    printf("%d rows\n", rows);
    for (int j = 0; j < cols; ++j) {
        for (int i = 0; i < rows; ++i) column[i] = (double)x[(size_t)i * (size_t)cols + (size_t)j];
        printf("  column %d: ", j);
        print_range(column, (size_t)rows);
        putchar('\n');
    }
    free(column);
    vgs_free(x);
    return VGS_OK;
}

/* name: NULL, or a tensor whose bytes, little-endian, become the file `to`. */
static vgs_status inspect(const char *path, const char *name, const char *to, vgs_error *err)
{
    size_t n = strlen(path);
    vgs_safetensors *s;
    const vgs_file_tensor *t;
    vgs_status st;
    if (!name && n > 4 && !strcmp(path + n - 4, ".npy")) return inspect_npy(path, err);
    if ((s = vgs_safetensors_open(path, err)) == NULL) return err->code;
    if (!name) st = print_safetensors(s, err);
    else if ((t = vgs_safetensors_find(s, name)) != NULL) st = vgs_file_write(to, t->data, t->bytes, err);
    else {
        snprintf(err->msg, sizeof err->msg, "%.100s: there is no tensor %.100s", path, name);
        st = err->code = VGS_E_ARG;
    }
    vgs_safetensors_free(s);
    return st;
}

int main(int argc, char **argv)
{
    bool help = argc > 1 && !strcmp(argv[1], "--help");
    vgs_error err = { VGS_OK, "" };
    if (help || (argc != 2 && argc != 4)) {
        fputs("usage: inspect FILE             what a .safetensors or .npy file holds\n"
              "       inspect FILE NAME OUT    the bytes of one tensor of a .safetensors file into OUT, as\n"
              "                                numpy.fromfile reads them\n", help ? stdout : stderr);
        return help ? 0 : 2;
    }
    if (inspect(argv[1], argc == 4 ? argv[2] : NULL, argc == 4 ? argv[3] : NULL, &err)) {
        fflush(stdout);
        fprintf(stderr, "inspect: %s (%s)\n", err.msg, vgs_status_name(err.code));
        return 1;
    }
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "inspect: writing failed\n");
        return 1;
    }
    return 0;
}
