/* store.h - features of all training images, in a file: memory does not grow with their number. Include it
   after folder.h, view.h and moments.h. The file is a line of text that tells how the features were made,
   then a record an image: the hash of the image file, and its features [cells, channels]. A run that was
   stopped goes on with it. */
#ifndef STORE_H
#define STORE_H

enum { STORE_HEADER = 1024, VIEWS = 3 };

/* Sums over every fourth cell of all images, as a view sees them. */
typedef struct view_sums { const view *of; int images; moments m; } view_sums;

typedef struct store {
    FILE *file;
    const char *path;        /* borrowed                                                                 */
    size_t numbers;          /* of one image: cells x channels                                           */
    int n;                   /* images in use                                                            */
    int kept;                /* images that the file has, from an earlier run                            */
    const view *seen;        /* borrowed: what store_get gives of them                                   */
    float *raw;              /* [numbers], scratch of it                                                 */
    view_sums sums[VIEWS];   /* by store_sums                                                            */
} store;

static inline size_t store_record(const store *s) { return sizeof(uint64_t) + s->numbers * sizeof(float); }

static inline bool store_seek(store *s, int i)
{
    double at = STORE_HEADER + (double)i * (double)store_record(s);
    return at < 9e18 && !fseeko(s->file, (off_t)at, SEEK_SET);
}

/* FNV-1a, 64 bits */
static inline uint64_t hash_bytes(const unsigned char *p, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; ++i) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* how: the text that decides whether what is there can be used; if not, it is created anew or, with
   `old_only`, left alone. False, said. */
static inline bool store_open(store *s, const char *path, const char *how, size_t numbers, bool old_only)
{
    char is[STORE_HEADER] = { 0 }, wanted[STORE_HEADER] = { 0 };
    struct stat st;
    snprintf(wanted, sizeof wanted, "vgs features 1: %s\n", how);
    *s = (store){ .file = fopen(path, "r+b"), .path = path, .numbers = numbers };
    s->raw = (float *)room_for(numbers, sizeof *s->raw);
    if (s->file && fread(is, 1, sizeof is, s->file) == sizeof is && !memcmp(is, wanted, sizeof is)) {
        if (!fstat(fileno(s->file), &st))
            s->kept = (int)(((double)st.st_size - STORE_HEADER) / (double)store_record(s));
        return true;
    }
    if (s->file) fclose(s->file);
    s->file = NULL;
    if (old_only) return say("%s: not of this detector: \"%.200s\"", path, is), false;
    s->file = fopen(path, "w+b");
    if (s->file && fwrite(wanted, 1, sizeof wanted, s->file) == sizeof wanted) return true;
    say("%s: %s", path, strerror(errno));
    if (s->file) fclose(s->file);
    s->file = NULL;
    return false;
}

static inline void store_close(store *s)
{
    if (s->file) fclose(s->file);
    free(s->raw);
    for (int k = 0; k < VIEWS; ++k) moments_free(&s->sums[k].m);
    *s = (store){ .path = s->path };
}

/* Whether the next image, of this hash, is there already. */
static inline bool store_has(store *s, uint64_t hash)
{
    uint64_t is;
    if (s->n >= s->kept || !store_seek(s, s->n) || fread(&is, sizeof is, 1, s->file) != 1 || is != hash)
        return s->kept = s->n, false;
    ++s->n;
    return true;
}

static inline bool store_add(store *s, uint64_t hash, const float *x)
{
    if (!store_seek(s, s->n) || fwrite(&hash, sizeof hash, 1, s->file) != 1 ||
        fwrite(x, sizeof *x, s->numbers, s->file) != s->numbers || fflush(s->file)) return false;
    ++s->n;
    return true;
}

/* All features of image i into x [numbers]. */
static inline void store_read(store *s, int i, float *x)
{
    uint64_t hash;
    if (!store_seek(s, i) || fread(&hash, sizeof hash, 1, s->file) != 1 ||
        fread(x, sizeof *x, s->numbers, s->file) != s->numbers)
        say("%s: image %d cannot be read", s->path, i), exit(EXIT_FAILED);
}

/* What is seen of them into x [cells, channels]. */
static inline void store_get(store *s, int i, float *x)
{
    vgs_error err;
    store_read(s, i, s->raw);
    if (view_make(s->seen, s->raw, s->path, x, &err)) say("%s", err.msg), exit(EXIT_FAILED);
}

/* Adds the sums over every fourth cell, beginning with another in each image, of the images i with use[i] ==
   which, as they are seen; use NULL: of all. x [numbers]: scratch. The origin is 0: features lie about it. */
static inline void store_sum(store *s, const bool *use, bool which, float *x, moments *m)
{
    int c = s->seen->channels, wide = padded(c), cells = s->seen->grid * s->seen->grid, n = 0;
    float *rows = (float *)room_for(MOST_ROWS * (size_t)wide, sizeof *rows);
    for (int i = 0; i < s->n; ++i) {
        if (use && use[i] != which) continue;
        store_get(s, i, x);
        for (int k = i % 4; k < cells; k += 4) {
            memcpy(rows + (size_t)n++ * (size_t)wide, x + (size_t)k * (size_t)c, (size_t)c * sizeof *x);
            if (n == MOST_ROWS) moments_add(m, rows, n, c), n = 0;
        }
    }
    moments_add(m, rows, n, c);
    free(rows);
}

/* These sums of all images, for the view in use: taken once. */
static inline const moments *store_sums(store *s, float *x)
{
    view_sums *v = s->sums;
    while (v->of && v->of != s->seen && v + 1 < s->sums + VIEWS) ++v;
    if (v->of == s->seen && v->images == s->n) return &v->m;
    moments_free(&v->m);
    *v = (view_sums){ s->seen, s->n, moments_create(s->seen->channels) };
    store_sum(s, NULL, true, x, &v->m);
    return &v->m;
}

#endif /* STORE_H */
