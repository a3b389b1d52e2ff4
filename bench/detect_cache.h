/* detect_cache.h - features of a folder's images, extracted once into a file, for the benches of the
   detector. Include it after extractor.h; the name of the file is not freed, for a store keeps it. */
#ifndef DETECT_CACHE_H
#define DETECT_CACHE_H

static inline void must(vgs_status st, const vgs_error *err)
{
    if (!st) return;
    say("%s", err->msg);
    exit(EXIT_FAILED);
}

/* Features of the photos into FOLDER/NAME.cache, open as s. What it has already is known by the bytes of the
   image's file. */
static inline void extract_all(extractor *e, const photos *p, store *s, const char *folder, const char *name)
{
    char *path = text_format("%s/%s.cache", folder, name);
    char *key = text_format("raw, blocks %s, map %s, size %d, grid %d, channels %d", e->how->blocks,
                            e->how->map, e->how->size, e->how->grid, e->channels);
    float *x = (float *)room_for(extractor_numbers(e), sizeof *x);
    vgs_error err;
    if (mkdir(folder, 0777) && errno != EEXIST) say("%s: %s", folder, strerror(errno)), exit(EXIT_FAILED);
    if (!store_open(s, path, key, extractor_numbers(e), false)) exit(EXIT_FAILED);
    for (int i = 0; i < p->n; ++i) {
        unsigned char *data;
        size_t bytes;
        uint64_t hash;
        image m;
        must(read_file(p->at[i].path, &data, &bytes, &err), &err);
        hash = hash_bytes(data, bytes);
        if (!store_has(s, hash)) {
            must(image_decode(data, bytes, 3, p->at[i].path, &m, &err), &err);
            must(extractor_run(e, &m, p->at[i].path, x, &err), &err);
            if (!store_add(s, hash, x)) say("%s: %s", path, strerror(errno)), exit(EXIT_FAILED);
            image_free(&m);
        }
        free(data);
    }
    free(x);
    free(key);
}

#endif
