/* heat.h - pictures of maps: where an image is unlike the good ones. Include it after detector.h and roc.h.
   The colour is -log10 of the share of good cells that score higher, 0 to 4, the same for all images. */
#ifndef HEAT_H
#define HEAT_H

/* 0..1 from dark blue over cyan and yellow to dark red */
static inline void heat_colour(double v, unsigned char rgb[3])
{
    for (int k = 0; k < 3; ++k) {
        double w = 1.5 - fabs(4 * v - (3 - k));
        rgb[k] = (unsigned char)(255 * (w < 0 ? 0 : w > 1 ? 1 : w) + 0.5);
    }
}

/* out [height, width, 3]: the image with the map over it; the stronger the heat, the less shines through. */
static inline void heat_overlay(const detector *d, const image *m, const float *map, unsigned char *out)
{
    for (int y = 0; y < m->height; ++y)
        for (int x = 0; x < m->width; ++x) {
            size_t at = 3 * ((size_t)y * (size_t)m->width + (size_t)x);
            double v = heat(d, map_at(map, d->how.grid, x, y, m->width, m->height)) / 4,
                share = 0.15 + 0.5 * v;
            unsigned char rgb[3];
            heat_colour(v, rgb);
            for (size_t k = 0; k < 3; ++k)
                out[at + k] = (unsigned char)((1 - share) * m->data[at + k] + share * rgb[k] + 0.5);
        }
}

/* out [height, width]: 255 where the map is above its threshold */
static inline void heat_mask(const detector *d, const image *m, const float *map, unsigned char *out)
{
    for (int y = 0; y < m->height; ++y)
        for (int x = 0; x < m->width; ++x)
            out[(size_t)y * (size_t)m->width + (size_t)x] =
                map_at(map, d->how.grid, x, y, m->width, m->height) > d->map_threshold ? 255 : 0;
}

/* Makes the folders of a path, up to its last slash. */
static inline void make_folders(const char *path)
{
    char *copy = text_format("%s", path);
    for (char *p = copy + 1; *p; ++p) {
        if (*p != '/') continue;
        *p = '\0';
        /* what cannot be made shows when the file is written       */
        mkdir(copy, 0777);
        *p = '/';
    }
    free(copy);
}

/* OUT/STEM_overlay.png, _mask.png and _map.npy; name: of the image, with its folders */
static inline vgs_status write_maps(const detector *d, const image *m, const float *map, const char *folder,
                                    const char *name, vgs_error *err)
{
    const char *dot = strrchr(name, '.');
    char *stem = text_format("%s/%.*s", folder, (int)(dot ? dot - name : (long)strlen(name)), name);
    char *overlay = text_format("%s_overlay.png", stem), *mask = text_format("%s_mask.png", stem);
    char *array = text_format("%s_map.npy", stem);
    unsigned char *out = (unsigned char *)room_for((size_t)m->width * (size_t)m->height, 3);
    vgs_status st;
    make_folders(overlay);
    heat_overlay(d, m, map, out);
    st = image_write(overlay, out, m->width, m->height, 3, err);
    if (!st) {
        heat_mask(d, m, map, out);
        st = image_write(mask, out, m->width, m->height, 1, err);
    }
    if (!st) st = vgs_npy_write(array, map, d->how.grid, d->how.grid, err);
    free(out);
    free(stem);
    free(overlay);
    free(mask);
    free(array);
    return st;
}

#endif /* HEAT_H */
