/* store.h - features of all training images, in a file: memory does not grow with their number. Include it
   after folder.h and view.h. The file is a line of text that tells how the features were made, then a record
   an image: the hash of the image file, and its features [cells, channels]. A run that was stopped goes on
   with it. */
#ifndef STORE_H
#define STORE_H

enum { STORE_HEADER = 1024 };

typedef struct store {
    FILE *file;
    const char *path;        /* borrowed                                                                 */
    size_t numbers;          /* of one image: cells x channels                                           */
    int n;                   /* images in use                                                            */
    int kept;                /* images that the file has, from an earlier run                            */
    const view *seen;        /* borrowed: what store_get gives of them                                   */
    float *raw;              /* [numbers], scratch of it                                                 */
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
    *s = (store){ fopen(path, "r+b"), path, numbers, 0, 0, NULL, (float *)room_for(numbers, sizeof(float)) };
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
    s->file = NULL;
    s->raw = NULL;
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

#endif /* STORE_H */
