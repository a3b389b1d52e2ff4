/* image.h - photographs in and out: PNG, JPEG and BMP files by stb_image, Pillow's bilinear resize bit for
   bit, PNG files by stb_image_write. Include it after vgs.h and common.h.

   stb_image.h and stb_image_write.h (public domain) are not part of this project. Debian and Ubuntu have them
   in libstb-dev; elsewhere put the two files into a folder stb/ and name the folder above it with -I. */
#ifndef IMAGE_H
#define IMAGE_H

#include <errno.h>

#if defined __GNUC__ || defined __clang__
#  pragma GCC diagnostic push                    /* not ours to tidy; a system header says nothing anyway */
#  pragma GCC diagnostic ignored "-Wconversion"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#  pragma GCC diagnostic ignored "-Wcast-qual"
#  pragma GCC diagnostic ignored "-Wshadow"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#include <stb/stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>
#if defined __GNUC__ || defined __clang__
#  pragma GCC diagnostic pop
#endif

enum { IMAGE_MOST_PIXELS = 100000000, IMAGE_MOST_BYTES = 512 << 20 };

/* 8 bits a channel, rows from the top; channels: 3 = RGB, 1 = grey */
typedef struct image { unsigned char *data; int width, height, channels; } image;

static inline void image_free(image *m)
{
    free(m->data);
    m->data = NULL;
}

static inline vgs_status image_error(vgs_error *err, vgs_status st, const char *path, const char *what)
{
    err->code = st;
    snprintf(err->msg, sizeof err->msg, "%.150s: %.90s", path, what);
    return st;
}

/* ==== reading ======================================================================================= */

/* A whole file; the caller frees *data. */
static inline vgs_status read_file(const char *path, unsigned char **data, size_t *bytes, vgs_error *err)
{
    struct stat s;
    FILE *f;
    *data = NULL;
    if (stat(path, &s)) return image_error(err, VGS_E_IO, path, strerror(errno));
    if (!S_ISREG(s.st_mode) || s.st_size <= 0 || s.st_size > IMAGE_MOST_BYTES)   /* a pipe would wait    */
        return image_error(err, VGS_E_FORMAT, path, !S_ISREG(s.st_mode) ? "not a file"
                           : s.st_size > 0 ? "larger than 512 MB" : "an empty file");
    f = fopen(path, "rb");
    if (!f) return image_error(err, VGS_E_IO, path, strerror(errno));
    *bytes = (size_t)s.st_size;
    *data = (unsigned char *)malloc(*bytes);
    if (!*data) image_error(err, VGS_E_NOMEM, path, "out of memory");
    else if (fread(*data, 1, *bytes, f) != *bytes) image_error(err, VGS_E_IO, path,
        "could not be read whole");
    else return fclose(f), VGS_OK;
    fclose(f);
    free(*data);
    *data = NULL;
    return err->code;
}

static inline unsigned exif_number(const unsigned char *p, int bytes, bool big)
{
    unsigned v = 0;
    for (int i = 0; i < bytes; ++i) v |= (unsigned)p[i] << 8 * (big ? bytes - 1 - i : i);
    return v;
}

/* Tag 0x0112 of the first directory of a TIFF header; 1, upright, if there is none. */
static inline int exif_orientation(const unsigned char *tiff, size_t n)
{
    bool big = n >= 8 && tiff[0] == 'M';
    size_t at, count;
    if (n < 10 || (memcmp(tiff, "II*\0", 4) && memcmp(tiff, "MM\0*", 4))) return 1;
    at = exif_number(tiff + 4, 4, big);
    if (at > n - 2) return 1;
    count = exif_number(tiff + at, 2, big);
    for (at += 2; count && at <= n && n - at >= 12; --count, at += 12) {
        unsigned v = exif_number(tiff + at + 8, 2, big);
        if (exif_number(tiff + at, 2, big) == 0x0112) return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

/* How a JPEG file says that it is to be turned: EXIF's 1..8. */
static inline int jpeg_orientation(const unsigned char *p, size_t n)
{
    if (n < 4 || p[0] != 0xFF || p[1] != 0xD8) return 1;
    for (size_t at = 2; at + 4 <= n && p[at] == 0xFF;) {
        size_t size = (size_t)p[at + 2] << 8 | p[at + 3];
        /* the picture itself begins */
        if (p[at + 1] == 0xDA || size < 2 || at + 2 + size > n) return 1;
        if (p[at + 1] == 0xE1 && size > 8 && !memcmp(p + at + 4, "Exif\0\0", 6))
            return exif_orientation(p + at + 10, size - 8);
        at += 2 + size;
    }
    return 1;
}

/* Turns and mirrors so that the picture is upright. */
static inline vgs_status image_turn(image *m, int orientation, const char *path, vgs_error *err)
{
    bool swap = orientation >= 5, mirror_x = orientation == 2 || orientation == 3 || orientation == 7 ||
        orientation == 8, mirror_y = orientation == 3 || orientation == 4 || orientation == 6 ||
            orientation == 7;
    int w = swap ? m->height : m->width, h = swap ? m->width : m->height, c = m->channels;
    unsigned char *to;
    if (orientation == 1) return VGS_OK;
    to = (unsigned char *)malloc((size_t)w * (size_t)h * (size_t)c);
    if (!to) return image_error(err, VGS_E_NOMEM, path, "out of memory");
    for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
            int u = swap ? y : x, v = swap ? x : y;                  /* in the picture as it is stored */
            if (mirror_x) u = m->width - 1 - u;
            if (mirror_y) v = m->height - 1 - v;
            memcpy(to + ((size_t)y * (size_t)w + (size_t)x) * (size_t)c,
                   m->data + ((size_t)v * (size_t)m->width + (size_t)u) * (size_t)c, (size_t)c);
        }
    free(m->data);
    *m = (image){ to, w, h, c };
    return VGS_OK;
}

/* Of a file in memory. channels: 3 or 1. Transparency is dropped, 16 bits are cut to the upper 8. */
static inline vgs_status image_decode(const unsigned char *data, size_t bytes, int channels, const char *path,
                                      image *m, vgs_error *err)
{
    int n;
    m->data = NULL;
    m->channels = channels;
    if (!stbi_info_from_memory(data, (int)bytes, &m->width, &m->height, &n))
        return image_error(err, VGS_E_FORMAT, path, "not a PNG, JPEG or BMP image");
    if ((double)m->width * m->height > IMAGE_MOST_PIXELS) {
        char text[64];
        snprintf(text, sizeof text, "%d x %d pixels: more than 100 million", m->width, m->height);
        return image_error(err, VGS_E_FORMAT, path, text);
    }
    m->data = stbi_load_from_memory(data, (int)bytes, &m->width, &m->height, &n, channels);
    if (!m->data) return image_error(err, VGS_E_FORMAT, path, stbi_failure_reason());
    return image_turn(m, jpeg_orientation(data, bytes), path, err);
}

static inline vgs_status image_read(const char *path, int channels, image *m, vgs_error *err)
{
    unsigned char *data;
    size_t bytes;
    vgs_status st = read_file(path, &data, &bytes, err);
    m->data = NULL;
    if (!st) st = image_decode(data, bytes, channels, path, m, err);
    free(data);
    if (st) image_free(m);
    return st;
}

/* ==== resizing ====================================================================================== */

/* The weights of one axis in Pillow's BILINEAR, a triangle as wide as the scale: output i is the sum over j
   of weight[i * most + j] times input first[i] + j, j < count[i]. In 22 bits after the point. */
typedef struct resize_axis { int most, *first, *count; int32_t *weight; double *exact; } resize_axis;

static inline void resize_axis_free(resize_axis *a)
{
    free(a->first);
    free(a->count);
    free(a->weight);
    free(a->exact);
}

static inline bool resize_axis_create(resize_axis *a, int in, int out)
{
    double scale = (double)in / out, support = scale > 1.0 ? scale : 1.0;
    a->most = (int)ceil(support) * 2 + 1;
    a->first = (int *)malloc((size_t)out * sizeof *a->first);
    a->count = (int *)malloc((size_t)out * sizeof *a->count);
    a->weight = (int32_t *)malloc((size_t)out * (size_t)a->most * sizeof *a->weight);
    a->exact = (double *)malloc((size_t)a->most * sizeof *a->exact);
    if (!a->first || !a->count || !a->weight || !a->exact) return false;
    for (int i = 0; i < out; ++i) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int j = lo; j < hi; ++j) {
            double d = fabs((j - centre + 0.5) * (1.0 / support));
            sum += a->exact[j - lo] = d < 1.0 ? 1.0 - d : 0.0;
        }
        for (int j = 0; j < hi - lo; ++j) {
            double w = sum != 0.0 ? a->exact[j] / sum : a->exact[j];
            a->weight[i * a->most + j] = (int32_t)(0.5 + w * (1 << 22));
        }
        a->first[i] = lo;
        a->count[i] = hi - lo;
    }
    return true;
}

static inline unsigned char resize_round(int32_t sum)
{
    sum >>= 22;
    return (unsigned char)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* n sums along an axis: of c channels, elements `step` bytes apart */
static inline void resize_row(const resize_axis *a, int n, const unsigned char *in, unsigned char *out, int c)
{
    for (int i = 0; i < n; ++i)
        for (int k = 0; k < c; ++k) {
            const unsigned char *p = in + (size_t)a->first[i] * (size_t)c + k;
            const int32_t *w = a->weight + (size_t)i * (size_t)a->most;
            int32_t sum = 1 << 21;
            for (int j = 0; j < a->count[i]; ++j) sum += w[j] * p[j * c];
            out[i * c + k] = resize_round(sum);
        }
}

/* Output row i from the rows of `in`, `bytes` each. */
static inline void resize_column(const resize_axis *a, int i, const unsigned char *in, size_t bytes,
                                 unsigned char *out)
{
    const int32_t *w = a->weight + (size_t)i * (size_t)a->most;
    in += (size_t)a->first[i] * bytes;
    for (size_t k = 0; k < bytes; ++k) {
        int32_t sum = 1 << 21;
        for (int j = 0; j < a->count[i]; ++j) sum += w[j] * in[(size_t)j * bytes + k];
        out[k] = resize_round(sum);
    }
}

/* out [height, width, channels] of the image, as Pillow's resize((width, height), BILINEAR) bit for bit.
   False: out of memory. */
static inline bool image_resize(const image *m, int width, int height, unsigned char *out)
{
    resize_axis x = { 0 }, y = { 0 };
    int c = m->channels;
    size_t row = (size_t)width * (size_t)c;
    unsigned char *between = (unsigned char *)malloc((size_t)m->height * row);
    bool ok = between && resize_axis_create(&x, m->width, width) && resize_axis_create(&y, m->height, height);
    for (int i = 0; ok && i < m->height; ++i)
        resize_row(&x, width, m->data + (size_t)i * (size_t)m->width * (size_t)c,
                   between + (size_t)i * row, c);
    for (int i = 0; ok && i < height; ++i) resize_column(&y, i, between, row, out + (size_t)i * row);
    free(between);
    resize_axis_free(&x);
    resize_axis_free(&y);
    return ok;
}

/* Pillow's NEAREST: of the pixel under each output pixel's centre. out [height, width, channels] */
static inline void image_nearest(const image *m, int width, int height, unsigned char *out)
{
    size_t c = (size_t)m->channels;
    double sx = (double)m->width / width, sy = (double)m->height / height;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            size_t u = (size_t)((x + 0.5) * sx), v = (size_t)((y + 0.5) * sy);
            memcpy(out + ((size_t)y * (size_t)width + (size_t)x) * c,
                   m->data + (v * (size_t)m->width + u) * c, c);
        }
}

/* ==== writing ======================================================================================= */

/* A PNG file of [height, width, channels], complete or not at all. */
static inline vgs_status image_write(const char *path, const unsigned char *data, int width, int height,
                                     int channels, vgs_error *err)
{
    int bytes;
    unsigned char *png = stbi_write_png_to_mem(data, width * channels, width, height, channels, &bytes);
    vgs_status st = png ? vgs_file_write(path, png, (size_t)bytes, err)
                        : image_error(err, VGS_E_NOMEM, path, "out of memory");
    free(png);
    return st;
}

#endif /* IMAGE_H */
