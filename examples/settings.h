/* settings.h - what a user can choose of a detector, as flags, as the metadata of its file, and in messages.
   Include it after common.h. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <inttypes.h>

enum { LOCATION = 1, MAHALANOBIS = 2, NEIGHBOUR = 4, ENERGY = 8, METHODS = 4 };
static const char *const method_names[METHODS] = { "location", "mahalanobis", "neighbour", "energy" };

typedef struct settings {
    int    method;           /* sum of the constants above; the scores of several are added              */
    int    size;             /* images are resized to size x size                                        */
    int    grid;             /* cells on each side                                                       */
    int    unit;             /* features are divided by their length                                     */
    int    pool;             /* features are averaged over pool x pool cells; odd                        */
    int    window;           /* location: cells on each side that share a Gaussian                       */
    int    dims;             /* Gaussians: directions that are kept, 0 = all                             */
    int    rows;             /* neighbour: rows of the bank                                              */
    int    folds;            /* models of the cross-calibration                                          */
    double level;            /* share of its image's median that is taken off a score's logarithm; 0: no  */
                             /* logarithms                                                               */
    double ridge;            /* of the mean variance, added to each variance                             */
    double false_alarms;     /* promised share                                                           */
    double group_gap;        /* 0: each image is a group                                                 */
    double minutes;          /* limit of the training; 0: none                                           */
    int    hidden, code;     /* energy: widths of the autoencoder                                        */
    int    fit_steps, cd_steps;                  /* energy: of reconstruction, of contrastive divergence */
    double energy_lr, start_degrees;             /* energy: of contrastive divergence                    */
    char   objective[16];
    uint64_t seed;
    char   blocks[64];       /* of a network: numbers of the blocks whose outputs are features           */
    char   padding[16], input[16];               /* of a network: what its file does not say             */
    char   map[16], map_blocks[64];              /* what heat maps are of                                */
    int    map_dims, map_window, map_pool;
    double map_level;
} settings;

typedef struct setting {
    const char *name;
    size_t at;
    char   kind;             /* i, d, u (uint64_t), m (methods), t (a text of `most` bytes)              */
    double least, most;
    const char *initial, *help;
} setting;

static const setting setting_list[] = {
#define SETTING(name, kind, least, most, initial, help) \
    { #name, offsetof(settings, name), kind, least, most, initial, help },
    SETTING(method, 'm', 0, 0, "location",
            "location, mahalanobis, neighbour, energy, or several: location,energy")
    SETTING(size, 'i', 0, 2048, "0", "images are resized to size x size; 0: 224 of a network, 128 of filters")
    SETTING(grid, 'i', 2, 256, "14", "cells on each side of a map")
    SETTING(unit, 'i', -1, 1, "-1", "1: features are divided by their length; -1: those of a network are")
    SETTING(pool, 'i', 1, 15, "1", "features are averaged over as many cells on each side; odd")
    SETTING(window, 'i', 0, 256, "1", "location: cells on each side that share a Gaussian")
    SETTING(dims, 'i', 0, 4096, "96", "Gaussians: the directions of largest variance that are kept; 0: all")
    SETTING(rows, 'i', 1, 20000, "1000", "neighbour: good features that are kept")
    SETTING(folds, 'i', 0, 100000, "0",
            "models of the calibration, each without a part of the groups; 0: by what they cost")
    SETTING(level, 'd', 0, 1, "0", "location: share of the image's median taken off a cell's log score")
    SETTING(ridge, 'd', 0, 10, "0.01", "of the mean variance, added to all")
    SETTING(false_alarms, 'd', 0, 0.5, "0.01", "promised share of good images that are called bad")
    SETTING(group_gap, 'd', 0, 1e15, "0", "last numbers of file names that differ by no more are one group")
    SETTING(minutes, 'd', 0, 1e6, "5", "limit of what energy takes to learn; 0: none")
    SETTING(hidden, 'i', 1, 4096, "384", "energy: width of the autoencoder's layers")
    SETTING(code, 'i', 1, 4096, "64", "energy: width of its code")
    SETTING(fit_steps, 'i', 0, 1000000, "600", "energy: steps of reconstruction")
    SETTING(cd_steps, 'i', 0, 1000000, "0", "energy: steps of contrastive divergence after them")
    SETTING(objective, 't', 0, 16, "cd", "energy: cd, gcd, langevin, persistent, none, discrepancy")
    SETTING(start_degrees, 'd', 0, 90, "0", "energy: negatives start so far from good features; 0: about 76")
    SETTING(energy_lr, 'd', 0, 1, "0.0001", "energy: step size of contrastive divergence")
    SETTING(seed, 'u', 0, 0, "1", "of all that is random")
    SETTING(blocks, 't', 0, 64, "",
            "network: blocks to take features of, as 2,4,10; default the last of stages 4, 5")
    SETTING(padding, 't', 0, 16, "auto", "network: same, static, symmetric or auto, by the file")
    SETTING(input, 't', 0, 16, "auto", "network: half, (x - .5)/.5; imagenet; or auto")
    SETTING(map, 't', 0, 16, "scales", "heat maps: scales, of the flags below; score, of the image's score")
    SETTING(map_blocks, 't', 0, 64, "",
            "network: blocks for maps, in raw features; default the last of stages 1, 2, 4, 5")
    SETTING(map_dims, 'i', 0, 4096, "48", "as dims, of maps")
    SETTING(map_window, 'i', 0, 256, "2", "as window, of maps")
    SETTING(map_pool, 'i', 0, 255, "0", "cells on each side of the coarse scale, odd; 0: 2/3 of the grid")
    SETTING(map_level, 'd', 0, 1, "0.5", "as level, of maps")
#undef SETTING
};
enum { SETTINGS = (int)(sizeof setting_list / sizeof *setting_list) };

/* What a text may be, where that is one of a few words: settings_words[k] has the name, then the words. */
static const char *const settings_words[][8] = {
    { "objective", "cd", "gcd", "langevin", "persistent", "none", "discrepancy", NULL },
    { "padding", "auto", "same", "static", "symmetric", NULL }, { "input", "auto", "half", "imagenet", NULL },
    { "map", "scales", "score", NULL }
};

/* Models of the calibration of so many images in so many groups. Each learns from fewer groups than the
   detector does, and so finds images that it has not seen stranger than the detector will: with a model for
   each group this is least, but training takes longest: 60 at most, and 20 at least. */
static inline int folds_in_use(const settings *s, int images, int groups)
{
    int n = s->folds;
    if (!n && s->method & ENERGY) n = 5;
    if (!n && s->method & NEIGHBOUR) n = 20;
    if (!n) n = images < 333 ? 60 : images < 1000 ? 20000 / images : 20;
    return n < groups ? n : groups;
}

/* Whether maps have models of their own, of two scales. */
static inline bool map_of_scales(const settings *s) { return !strcmp(s->map, "scales"); }

/* Cells on each side of the coarse scale. */
static inline int map_coarse(const settings *s) { return s->map_pool ? s->map_pool : s->grid / 3 * 2 | 1; }

/* The words of a setting, NULL behind the last; NULL: any text. */
static inline const char *const *setting_words(const setting *k)
{
    for (size_t i = 0; i < sizeof settings_words / sizeof *settings_words; ++i)
        if (!strcmp(settings_words[i][0], k->name)) return settings_words[i] + 1;
    return NULL;
}

/* Place of the text among the words, -1: it is none of them. */
static inline int word_find(const char *const *words, const char *text)
{
    for (int i = 0; words[i]; ++i) if (!strcmp(words[i], text)) return i;
    return -1;
}

static inline int methods_parse(const char *text)
{
    int sum = 0;
    while (*text) {
        size_t n = strcspn(text, ",+");
        int k = 0;
        while (k < METHODS && (strlen(method_names[k]) != n || strncmp(text, method_names[k], n))) ++k;
        if (k == METHODS) return 0;
        sum |= 1 << k;
        text += n;
        if (*text && !*++text) return 0;
    }
    return sum;
}

/* False: out of range, or none of the words. */
static inline bool setting_set(settings *s, const setting *k, const char *text)
{
    char *at = (char *)s + k->at, *end;
    double v = strtod(text, &end);
    bool number = end > text && !*end && v >= k->least && v <= k->most;
    vgs_config c = { .seed = 0 };
    if (k->kind == 't') {
        const char *const *words = setting_words(k);
        if (strlen(text) >= (size_t)k->most || (words && word_find(words, text) < 0)) return false;
        strcpy(at, text);
        return true;
    }
    if (k->kind == 'm') return (*(int *)(void *)at = methods_parse(text)) != 0;
    if (k->kind == 'u') {
        if (vgs_field_set(&c, "seed", text, NULL)) return false;
        *(uint64_t *)(void *)at = c.seed;
        return true;
    }
    if (!number || (k->kind == 'i' && v != floor(v))) return false;
    if (k->kind == 'i') *(int *)(void *)at = (int)v;
    else *(double *)(void *)at = v;
    return true;
}

static inline const char *setting_text(const settings *s, const setting *k, char text[64])
{
    const char *at = (const char *)s + k->at;
    int method;
    text[0] = '\0';
    if (k->kind == 't') snprintf(text, 64, "%s", at);
    if (k->kind == 'i') snprintf(text, 64, "%d", *(const int *)(const void *)at);
    if (k->kind == 'd') vgs_number_text(*(const double *)(const void *)at, text);
    if (k->kind == 'u') snprintf(text, 64, "%" PRIu64, *(const uint64_t *)(const void *)at);
    if (k->kind != 'm') return text;
    method = *(const int *)(const void *)at;
    for (int i = 0; i < METHODS; ++i)
        if (method >> i & 1) snprintf(text + strlen(text), 64 - strlen(text), "%s%s", *text ? "," : "",
                                      method_names[i]);
    return text;
}

static inline settings settings_initial(void)
{
    settings s = { 0 };
    for (int i = 0; i < SETTINGS; ++i) setting_set(&s, setting_list + i, setting_list[i].initial);
    return s;
}

static inline const setting *setting_find(const char *name)
{
    for (int i = 0; i < SETTINGS; ++i) if (!strcmp(setting_list[i].name, name)) return setting_list + i;
    return NULL;
}

static inline void settings_help(void)
{
    char flag[72];
    for (int i = 0; i < SETTINGS; ++i)
        printf("  %-18s %s (%s)\n", flag_text(setting_list[i].name, flag), setting_list[i].help,
               setting_list[i].initial);
}

#endif /* SETTINGS_H */
