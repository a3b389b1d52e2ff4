/* folder.h - which images a folder holds. Include it after common.h. POSIX directories.

   The layout of MVTec-AD, or a folder of classes, each in this layout:
       train/good/...   test/good/...   test/KIND/...   ground_truth/KIND/STEM_mask.png (or STEM.png)
   Any other folder is one of good images only. Names are sorted, so that a folder always reads the same. */
#ifndef FOLDER_H
#define FOLDER_H

#include <dirent.h>
#include <errno.h>

typedef struct photo {
    char *path;              /* as it is opened                                                          */
    char *name;              /* below the folder that was given                                          */
    char *mask;              /* of a test image that is bad; NULL: there is none                         */
    int   class_index;       /* into photos.classes                                                      */
    bool  bad;
} photo;

typedef struct photos { photo *at; int n, room; char **classes; int class_count; } photos;

static inline char *text_format(const char *format, ...)
{
    va_list ap;
    char *text;
    int n;
    va_start(ap, format);
    n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    text = n < 0 ? NULL : (char *)malloc((size_t)n + 1);
    if (!text) say("out of memory"), exit(EXIT_FAILED);
    va_start(ap, format);
    vsnprintf(text, (size_t)n + 1, format, ap);
    va_end(ap);
    return text;
}

static inline void photos_free(photos *p)
{
    for (int i = 0; i < p->n; ++i) free(p->at[i].path), free(p->at[i].name), free(p->at[i].mask);
    for (int i = 0; i < p->class_count; ++i) free(p->classes[i]);
    free(p->at);
    free(p->classes);
    *p = (photos){ 0 };
}

static inline bool is_folder(const char *path)
{
    struct stat s;
    return !stat(path, &s) && S_ISDIR(s.st_mode);
}

static inline bool is_image_name(const char *name)
{
    static const char *const ends[] = { ".png", ".jpg", ".jpeg", ".bmp" };
    size_t n = strlen(name);
    for (size_t k = 0; k < sizeof ends / sizeof *ends; ++k) {
        size_t m = strlen(ends[k]), i = 0;
        if (n <= m) continue;
        while (i < m && (name[n - m + i] | 0x20) == (ends[k][i] | 0x20)) ++i;
        if (i == m) return true;
    }
    return false;
}

static inline int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a folder, sorted, without those that begin with a dot; -1, said: it cannot be read. */
static inline int list_folder(const char *path, char ***names)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int n = 0, room = 0;
    *names = NULL;
    if (!d) return say("%s: %s", path, strerror(errno)), -1;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.') continue;
        if (n == room) {
            char **more = (char **)realloc(*names, (size_t)(room = 2 * room + 64) * sizeof **names);
            if (!more) say("out of memory"), exit(EXIT_FAILED);
            *names = more;
        }
        (*names)[n++] = text_format("%s", e->d_name);
    }
    closedir(d);
    if (n) qsort(*names, (size_t)n, sizeof **names, compare_text);
    return n;
}

static inline void list_free(char **names, int n)
{
    for (int i = 0; i < n; ++i) free(names[i]);
    free(names);
}

static inline void photos_add(photos *p, const char *path, const char *name, char *mask, bool bad)
{
    if (p->n == p->room) {
        photo *more = (photo *)realloc(p->at, (size_t)(p->room = 2 * p->room + 256) * sizeof *more);
        if (!more) say("out of memory"), exit(EXIT_FAILED);
        p->at = more;
    }
    p->at[p->n++] = (photo){ text_format("%s", path), text_format("%s", name), mask, p->class_count - 1,
                            bad };
}

/* The mask of ROOT/test/KIND/STEM.png, if there is one. */
static inline char *find_mask(const char *root, const char *kind, const char *name)
{
    static const char *const forms[] = { "_mask.png", ".png", "_mask.bmp", ".bmp" };
    int stem = (int)(strrchr(name, '.') - name);
    for (size_t k = 0; k < sizeof forms / sizeof *forms; ++k) {
        char *path = text_format("%s/ground_truth/%s/%.*s%s", root, kind, stem, name, forms[k]);
        if (file_exists(path)) return path;
        free(path);
    }
    return NULL;
}

/* All images below `path`; `name` is what precedes theirs. root, kind: of a test folder, else NULL. */
static inline bool walk(photos *p, const char *path, const char *name, const char *root, const char *kind)
{
    char **names;
    int n = list_folder(path, &names);
    for (int i = 0; i < n; ++i) {
        char *inner = text_format("%s/%s", path, names[i]);
        char *inner_name = text_format("%s%s%s", name, *name ? "/" : "", names[i]);
        bool bad = kind && strcmp(kind, "good") != 0;
        if (is_folder(inner)) walk(p, inner, inner_name, root, kind);
        else if (is_image_name(names[i]))
            photos_add(p, inner, inner_name, bad ? find_mask(root, kind, names[i]) : NULL, bad);
        free(inner);
        free(inner_name);
    }
    if (n > 0) list_free(names, n);
    return n >= 0;
}

/* "wood" of data/wood/ and of data/wood */
static inline char *last_part(const char *path)
{
    size_t n = strlen(path), from;
    while (n > 1 && path[n - 1] == '/') --n;
    for (from = n; from > 0 && path[from - 1] != '/'; --from) ;
    return text_format("%.*s", (int)(n - from), path + from);
}

static inline void photos_class(photos *p, char *name)
{
    char **more = (char **)realloc(p->classes, (size_t)(p->class_count + 1) * sizeof *more);
    if (!more) say("out of memory"), exit(EXIT_FAILED);
    p->classes = more;
    p->classes[p->class_count++] = name;
}

static inline bool has_part(const char *root, const char *part)
{
    char *path = text_format("%s/%s", root, part);
    bool is = is_folder(path);
    free(path);
    return is;
}

/* One class in MVTec's layout: its train/good, or all below its test. `before` precedes the names. */
static inline bool scan_class(photos *p, const char *root, const char *before, bool test)
{
    char *path = text_format("%s/%s", root, test ? "test" : "train/good"), **kinds;
    char *name = text_format("%s%s", before, test ? "test" : "train/good");
    int n = 0;
    bool ok = true;
    if (!test) ok = walk(p, path, name, NULL, NULL);
    else ok = (n = list_folder(path, &kinds)) >= 0;
    for (int i = 0; i < n; ++i) {
        char *inner = text_format("%s/%s", path, kinds[i]), *inner_name = text_format("%s/%s", name,
            kinds[i]);
        if (is_folder(inner)) ok = walk(p, inner, inner_name, root, kinds[i]) && ok;
        free(inner);
        free(inner_name);
    }
    if (n > 0) list_free(kinds, n);
    free(path);
    free(name);
    return ok;
}

/* The folder's train images or, with `test`, its test images, each with its class. False, said: nothing to be
   found there. */
static inline bool photos_scan(photos *p, const char *folder, bool test)
{
    const char *part = test ? "test" : "train/good";
    char **names = NULL;
    int n = 0;
    bool ok = true;
    *p = (photos){ 0 };
    if (!is_folder(folder)) return say("%s: not a folder", folder), false;
    if (has_part(folder, part)) {
        photos_class(p, last_part(folder));
        ok = scan_class(p, folder, "", test);
    } else {
        n = list_folder(folder, &names);
        for (int i = 0; i < n; ++i) {
            char *root = text_format("%s/%s", folder, names[i]), *before = text_format("%s/", names[i]);
            if (has_part(root, part)) {
                photos_class(p, text_format("%s", names[i]));
                ok = scan_class(p, root, before, test) && ok;
            }
            free(root);
            free(before);
        }
        if (n > 0) list_free(names, n);
        if (!p->class_count && !test) {
            photos_class(p, last_part(folder));
            ok = walk(p, folder, "", NULL, NULL);
        }
    }
    if (ok && !p->n)
        say(test && !p->class_count ? "%s: has no folder test, nor have its folders"
            : "%s: no image (.png .jpg .jpeg .bmp) in it", folder);
    if (ok && p->n) return true;
    photos_free(p);
    return false;
}

/* ==== groups ========================================================================================
   Images that show the same thing belong to one group, which calibration never splits. */

/* The last number in a file's name, -1 if there is none: 743 of exp0_num_743.jpg */
static inline double last_number(const char *name)
{
    const char *dot = strrchr(name, '.'), *end = dot ? dot : name + strlen(name), *p;
    while (end > name && end[-1] != '/' && (end[-1] < '0' || end[-1] > '9')) --end;
    for (p = end; p > name && p[-1] >= '0' && p[-1] <= '9'; --p) ;
    return p < end && end - p < 16 ? strtod(p, NULL) : -1.0;
}

typedef struct numbered { double number; int class_index, at; } numbered;

static inline int compare_numbered(const void *a, const void *b)
{
    const numbered *x = (const numbered *)a, *y = (const numbered *)b;
    if (x->class_index != y->class_index) return x->class_index < y->class_index ? -1 : 1;
    if (x->number < y->number || x->number > y->number) return x->number < y->number ? -1 : 1;
    return x->at - y->at;
}

/* group [n]: neighbours of one class whose last numbers differ by at most `gap` are of one group; names
   without a number are each alone. Returns the number of groups. */
static inline int group_by_gap(const photos *p, double gap, int *group)
{
    numbered *list = (numbered *)malloc((size_t)p->n * sizeof *list);
    int count = 0;
    if (!list) say("out of memory"), exit(EXIT_FAILED);
    for (int i = 0; i < p->n; ++i)
        list[i] = (numbered){ last_number(p->at[i].name), p->at[i].class_index, i };
    qsort(list, (size_t)p->n, sizeof *list, compare_numbered);
    for (int i = 0; i < p->n; ++i) {
        bool same = i && list[i].class_index == list[i - 1].class_index && list[i].number >= 0 &&
            list[i - 1].number >= 0 && list[i].number - list[i - 1].number <= gap;
        group[list[i].at] = same ? count - 1 : count++;
    }
    free(list);
    return count;
}

/* Whether `name` ends in the path `file`. */
static inline bool is_named(const char *name, const char *file)
{
    size_t n = strlen(name), m = strlen(file);
    return n >= m && !strcmp(name + n - m, file) && (n == m || name[n - m - 1] == '/');
}

/* group [n] from lines FILE,GROUP; FILE is a path's end. Images that are not listed are each alone. Returns
   the number of groups; -1, said: the file cannot be used. */
static inline int group_by_file(const photos *p, const char *path, int *group)
{
    FILE *f = fopen(path, "rb");
    char line[2048], *names[65536];
    int count = 0, number = 0, alone = 0;
    if (!f) return say("--groups %s: %s", path, strerror(errno)), -1;
    for (int i = 0; i < p->n; ++i) group[i] = -1;
    while (fgets(line, sizeof line, f)) {
        char *comma = strrchr(line, ','), *name = comma ? comma + 1 : NULL;
        int found = -1, k = 0;
        ++number;
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line) continue;
        if (!name || !*name) return say("--groups %s: line %d is not FILE,GROUP", path, number), fclose(f),
            -1;
        *comma = '\0';
        while (k < count && strcmp(names[k], name)) ++k;
        if (k == (int)(sizeof names / sizeof *names)) return say("--groups %s: too many groups", path), -1;
        for (int i = 0; i < p->n; ++i)
            if (is_named(p->at[i].name, line)) group[i] = k, found = i;
        if (found < 0 && number > 1) say("--groups %s: line %d: %s is not there", path, number, line);
        if (found >= 0 && k == count) names[count++] = text_format("%s", name);
    }
    fclose(f);
    for (int k = 0; k < count; ++k) free(names[k]);
    for (int i = 0; i < p->n; ++i) if (group[i] < 0) group[i] = count + alone++;
    return count + alone;
}

#endif /* FOLDER_H */
