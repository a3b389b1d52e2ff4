/* The parts of examples/detect.c against what others make of the same: Pillow's resize, scikit-learn's
   metrics, PyTorch's features of networks (tests/vectors/detect.h, jpeg.h, lite0.h). tests/detect.sh builds
   it, and puts the files of weights into the folder that VGS_NETWORKS names. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "detector"
#include "../examples/common.h"
#include <errno.h>
#include "../examples/image.h"
#include "../examples/folder.h"
#include "../examples/settings.h"
#include "../examples/view.h"
#include "../examples/moments.h"
#include "../examples/store.h"
#include "../examples/features.h"
#include "../examples/gaussian.h"
#include "../examples/neighbour.h"
#include "../examples/energy.h"
#include "../examples/efficientnet.h"
#include "../examples/extractor.h"
#include "../examples/detector.h"
#include "../examples/roc.h"
#include "../examples/heat.h"
#include "t.h"
#include "vectors/detect.h"
#include "vectors/jpeg.h"
#include "vectors/lite0.h"

/* The formula of vectors/gen/state_dict.py: number i of array t, in [0, 1) */
static double uniform(uint32_t t, uint32_t i)
{
    uint32_t x = t * 0x9E3779B1u + i * 0x85EBCA77u;
    x = (x ^ x >> 15) * 0x2C1B3C6Du;
    x = (x ^ x >> 12) * 0x297A2D39u;
    return ((x ^ x >> 15) >> 8) / 16777216.0;
}

static void fill_bytes(unsigned char *x, uint32_t t, int n)
{
    for (int i = 0; i < n; ++i) x[i] = (unsigned char)(uniform(t, (uint32_t)i) * 256);
}

static void resize(void)
{
    static const struct { int w, h, to_w, to_h; const unsigned char *want; } cases[] = {
        { 37, 23, 16, 16, resized_0 }, { 5, 9, 16, 12, resized_1 }, { 64, 3, 7, 8, resized_2 },
        { 1, 1, 4, 3, resized_3 } };
    unsigned char in[37 * 23 * 3], out[16 * 16 * 3];
    for (uint32_t k = 0; k < 4; ++k) {
        image m = { in, cases[k].w, cases[k].h, 3 };
        T_IN("%d x %d", m.width, m.height);
        fill_bytes(in, 100 + k, m.width * m.height * 3);
        OK(image_resize(&m, cases[k].to_w, cases[k].to_h, out));
        OK(!memcmp(out, cases[k].want, (size_t)(cases[k].to_w * cases[k].to_h * 3)));
    }
}

/* A picture of 3 x 2 pixels, each of another colour, turned as EXIF's eight ways are undone. */
static void orientations(void)
{
    static const char *const want[9] = { "", "abcdef", "cbafed", "fedcba", "defabc", "adbecf", "daebfc",
   "fcebda", "cfbead" };
    vgs_error err;
    for (int k = 1; k <= 8; ++k) {
        image m = { (unsigned char *)malloc(6), 3, 2, 1 };
        T_IN("orientation %d", k);
        memcpy(m.data, "abcdef", 6);
        OK(!image_turn(&m, k, "x", &err));
        CHECK(!memcmp(m.data, want[k], 6), "%.6s, want %s", (char *)m.data, want[k]);
        OK(m.width == (k >= 5 ? 2 : 3));
        image_free(&m);
    }
}

/* Colours of four inks, and a picture that lies on its side, as another reads these files. */
static void jpegs(void)
{
    image m;
    vgs_error err = { VGS_OK, "" };
    if (CHECK(!image_decode(cmyk_jpeg, sizeof cmyk_jpeg, 3, "x", &m, &err), "%s", err.msg)) {
        OK(m.width == 32 && m.height == 8);
        for (size_t i = 0; i < sizeof cmyk_row; ++i) OK(abs(m.data[i] - cmyk_row[i]) <= 3);
    }
    image_free(&m);
    if (CHECK(!image_decode(turned_jpeg, sizeof turned_jpeg, 3, "x", &m, &err), "%s", err.msg)) {
        OK(m.width == 8 && m.height == 16);
        for (size_t i = 0; i < sizeof turned_column; ++i)
            OK(abs(m.data[i / 3 * 24 + i % 3] - turned_column[i]) <= 3);
    }
    image_free(&m);
}

static void image_scores(void)
{
    scored s[60];
    roc_bins b;
    for (uint32_t i = 0; i < 60; ++i) {
        s[i].score = nearbyint(uniform(200, i) * 20);
        s[i].bad = uniform(201, i) + uniform(200, i) > 1;
    }
    b = roc_of_images(s, 60);
    CHECK_NEAR(roc_area(b.good, b.bad, b.n), image_metrics[0], 0, 1e-12);
    CHECK_NEAR(average_precision(b.good, b.bad, b.n), image_metrics[1], 0, 1e-12);
    CHECK_NEAR(best_f1(b.good, b.bad, b.n), image_metrics[2], 0, 1e-12);
    roc_free(&b);
}

/* Bins of the histogram are no finer than scores of cells are dense: the tolerance is theirs. */
static void pixel_scores(void)
{
    float maps[5 * 16];
    unsigned char mask[5][32 * 32];
    pixel_bins b;
    int regions = 0;
    for (uint32_t i = 0; i < 80; ++i) maps[i] = (float)uniform(202, i);
    memset(mask, 0, sizeof mask);
    for (uint32_t i = 0; i < 4; ++i)
        for (uint32_t k = 0; k < 3; ++k) {
            int y0 = (int)(uniform(203 + k, 3 * i) * 28), x0 = (int)(uniform(203 + k, 3 * i + 1) * 28);
            int size = 1 + (int)(uniform(203 + k, 3 * i + 2) * 6);
            for (int y = y0; y < y0 + size && y < 32; ++y)
                for (int x = x0; x < x0 + size && x < 32; ++x) mask[i][y * 32 + x] = 255;
        }
    b = pixel_bins_create(maps, 80);
    for (int i = 0; i < 5; ++i) regions += pixel_bins_add(&b, maps + 16 * i, 4, i < 4 ? mask[i] : NULL, 32);
    CHECK_NEAR(roc_area(b.roc.good, b.roc.bad, b.roc.n), pixel_metrics[0], 0, 1e-3);
    CHECK_NEAR(partial_area(b.roc.good, b.roc.region, b.roc.n, 0.3), pixel_metrics[1], 0, 1e-3);
    CHECK_NEAR(partial_area(b.roc.good, b.roc.region, b.roc.n, 0.05), pixel_metrics[2], 0, 2e-3);
    CHECK_NEAR(average_precision(b.roc.good, b.roc.bad, b.roc.n), pixel_metrics[3], 0, 2e-3);
    CHECK(regions == (int)pixel_metrics[4], "%d regions", regions);
    pixel_bins_free(&b);
}

/* Features of blocks 2, 4, 10 and 14 by the file of weights FOLDER/NAME, each 23rd, are `want`. */
static void features_are(const char *folder, const char *name, const char *padding, const float *want)
{
    unsigned char rgb[64 * 64 * 3];
    float out[16 * 512], largest = 0, worst = 0;
    settings s = settings_initial();
    network n = { .size = 0 };
    vgs_error err = { VGS_OK, "" };
    char path[1200];
    int channels, at = 0;
    T_IN("%s", name);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    s.size = 64;
    s.grid = 4;
    strcpy(s.blocks, "2,4,10,14");
    strcpy(s.padding, padding);
    fill_bytes(rgb, 300, 64 * 64 * 3);
    if (CHECK(!network_open(&n, path, &s, 1, &err), "%s", err.msg)) {
        OK(!network_run(&n, rgb, out, &err));
        channels = net_features(&n.plan);
        for (int i = 0; i < 16; ++i)
            for (int c = 0; c < channels; c += 23, ++at) {
                float d = fabsf(out[i * channels + c] - want[at]);
                if (fabsf(want[at]) > largest) largest = fabsf(want[at]);
                if (d > worst) worst = d;
            }
        CHECK(worst < 1e-4f * largest, "off by %g of %g", (double)worst, (double)largest);
    }
    network_free(&n);
}

static void network_features(void)
{
    const char *folder = getenv("VGS_NETWORKS");
    char real[1200];
    OK(folder != NULL);
    if (!folder) return;
    features_are(folder, "b0_efficientnet_pytorch", "auto", features_b0_efficientnet_pytorch_static);
    features_are(folder, "lite0_timm", "same", features_lite0_timm_same);
    features_are(folder, "b0_timm", "symmetric", features_b0_timm_symmetric);
    features_are(folder, "b0_torchvision", "auto", features_b0_torchvision_symmetric);
    snprintf(real, sizeof real, "%s/lite0.safetensors", folder);
    if (file_exists(real)) features_are(folder, "lite0", "auto", features_lite0_real);
}

/* What cannot be told is asked, and what is not there is named. */
static void network_errors(void)
{
    settings s = settings_initial();
    network n = { .size = 0 };
    vgs_error err;
    char path[1200];
    snprintf(path, sizeof path, "%s/b0_timm.safetensors",
             getenv("VGS_NETWORKS") ? getenv("VGS_NETWORKS") : "");
    s.size = 64;
    OK(network_open(&n, path, &s, 1, &err) != VGS_OK);
    CHECK(strstr(err.msg, "--padding same") != NULL, "%s", err.msg);
    network_free(&n);
    strcpy(s.padding, "same");
    strcpy(s.blocks, "3,2");
    OK(network_open(&n, path, &s, 1, &err) != VGS_OK);
    CHECK(strstr(err.msg, "--blocks 3,2") != NULL, "%s", err.msg);
    network_free(&n);
    strcpy(s.blocks, "");
    strcpy(s.map_blocks, "2,99");
    OK(network_open(&n, path, &s, 1, &err) != VGS_OK);
    CHECK(strstr(err.msg, "--map-blocks 2,99") != NULL, "%s", err.msg);
    network_free(&n);
}

static void lengths(void)
{
    float x[8] = { 3, 4, 0, 1, 0, 0, 1, 1 };
    vgs_error err;
    OK(unit_cells(x, 2, 2, "a.png", &err) == VGS_E_NONFINITE);
    CHECK(!strcmp(err.msg, "a.png: the feature of cell 1, 0 has length 0"), "%s", err.msg);
    CHECK_NEAR((double)x[1], 0.8, 0, 1e-7);
}

/* Two of three ranges of channels, means over 3 x 3 cells: against a mean taken cell by cell. */
static void views(void)
{
    view v = { .grid = 4, .from = 6, .pool = 3 };
    float x[4 * 4 * 6], out[4 * 4 * 3];
    vgs_error err;
    for (int i = 0; i < 96; ++i) x[i] = (float)(i * 37 % 19);
    view_add(&v, 1, 2);
    view_add(&v, 5, 1);
    OK(v.channels == 3 && !view_make(&v, x, "", out, &err));
    for (int k = 0; k < 16; ++k)
        for (int c = 0; c < 3; ++c) {
            double sum = 0, n = 0;
            for (int j = 0; j < 16; ++j)
                if (abs(j / 4 - k / 4) <= 1 && abs(j % 4 - k % 4) <= 1)
                    sum += (double)x[j * 6 + (c < 2 ? 1 + c : 5)], n += 1;
            CHECK_NEAR((double)out[k * 3 + c], sum / n, 0, 1e-5);
        }
}

static void map_is(const float *map, const double *want)
{
    for (int k = 0; k < 4; ++k) CHECK_NEAR((double)map[k], want[k], 0, 1e-6);
}

/* The score is the methods'; the map is the larger of its two scales, or with --map score the score. */
static void maps_of_scales(void)
{
    static const float maps[4][4] = { { 1, 2, 3, 4 }, { 9, 9, 9, 1 }, { 1, 3, 5, 2 }, { 0, 8, 4, 0 } };
    static const double scores[4] = { 4, 5, 6, 3 }, larger[4] = { 0, 2, 1.5, 0 };
    detector d = { .mean = { 1, 1, 2, 0 }, .deviation = { 1, 2, 2, 4 } };
    float score[4], map[4];
    d.how = settings_initial();
    d.how.grid = 2;
    d.how.method = LOCATION | MAHALANOBIS;
    OK(layers_in_use(&d.how) == 4);
    combine_maps(&d, maps[0], score, map);
    map_is(score, scores);
    map_is(map, larger);
    strcpy(d.how.map, "score");
    OK(layers_in_use(&d.how) == 2);
    combine_maps(&d, maps[0], score, map);
    map_is(map, scores);
}

static void p_values(void)
{
    double scores[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    detector d = { .good = 9, .scores = scores };
    CHECK_NEAR(conformal_threshold(scores, 9, 0.3), 7, 0, 0);        /* ceil(10 * 0.7) */
    CHECK_NEAR(p_value(&d, 7.5), 0.3, 0, 1e-15);
    CHECK_NEAR(p_value(&d, 9), 0.2, 0, 1e-15);
    CHECK_NEAR(p_value(&d, 0), 1, 0, 1e-15);
    CHECK_NEAR(least_rate(0.01, 9), 0.1, 0, 1e-15);
    CHECK_NEAR(least_rate(0.3, 9), 0.3, 0, 0);
    CHECK_NEAR(conformal_threshold(scores, 9, 0.1), 9, 0, 0);
}

/* The score's threshold is of the largest cell of each good image, the map's of that of its map. */
static void thresholds(void)
{
    float score[9 * 4] = { 0 }, map[9 * 4] = { 0 };
    detector d = { .good = 0 };
    d.how = settings_initial();
    d.how.grid = 2;
    d.how.false_alarms = 0.2;
    for (int i = 0; i < 9; ++i) {
        score[4 * i + i % 4] = (float)(i * 4 % 9);
        map[4 * i + 3] = (float)(100 - i * i);
    }
    calibrate(&d, score, map, 9);
    CHECK_NEAR(d.threshold, 7, 0, 0);            /* the 8th of 0..8 */
    CHECK_NEAR(d.map_threshold, 99, 0, 0);       /* the 8th of 36..100 */
    free(d.scores);
}

/* A mask is by the threshold of maps, not by that of scores. */
static void masks(void)
{
    static const float map[4] = { 0, 2, 6, 4 };
    unsigned char pixels[4] = { 0 }, mask[4];
    image m = { pixels, 2, 2, 1 };
    detector d = { .threshold = 1, .map_threshold = 5 };
    d.how.grid = 2;
    heat_mask(&d, &m, map, mask);
    OK(!mask[0] && !mask[1] && mask[2] == 255 && !mask[3]);
}

/* A model a group while that is cheap; 20 at least, and no more than there are groups. */
static void folds(void)
{
    settings s = settings_initial();
    OK(folds_in_use(&s, 327, 54) == 54 && folds_in_use(&s, 100, 100) == 60);
    OK(folds_in_use(&s, 500, 300) == 40 && folds_in_use(&s, 5000, 300) == 20);
    s.method = LOCATION | ENERGY;
    OK(folds_in_use(&s, 327, 54) == 5);
    s.folds = 7;
    OK(folds_in_use(&s, 327, 54) == 7 && folds_in_use(&s, 327, 3) == 3);
}

/* What a fold's images score does not depend on themselves, and does on the others. */
static void folds_do_not_see(void)
{
    enum { N = 12, CHANNELS = 2, CELLS = 4 };
    static const int fold[N] = { 0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, -1 };
    settings how = settings_initial();
    detector d = { .good = 0 };
    store st = { .n = N, .numbers = CELLS * CHANNELS };
    float x[CELLS * CHANNELS], maps[3][N * CELLS];
    bool use[N];
    vgs_error err = { VGS_OK, "" };
    how.grid = 2;
    how.window = 0;
    how.ridge = 0.1;
    strcpy(how.map, "score");
    d.how = how;
    d.extract.how = &d.how;
    d.extract.channels = CHANNELS;
    d.extract.score = (view){ .grid = 2, .from = CHANNELS, .pool = 1 };
    view_add(&d.extract.score, 0, CHANNELS);
    d.extract.seen = (float *)room_for(CELLS * CHANNELS, sizeof(float));
    for (int run = 0; run < 3; ++run) {          /* run 1: image 0 is another one; run 2: image 2 is     */
        OK(store_open(&st, "build/folds.cache", "a", CELLS * CHANNELS, false));
        if (!st.file) return;
        for (int i = 0; i < N; ++i) {
            for (int k = 0; k < CELLS * CHANNELS; ++k)
                x[k] = (float)uniform(400 + (uint32_t)i, (uint32_t)k) + (float)(run && i == 2 * run - 2);
            OK(store_add(&st, (uint64_t)i, x));
        }
        OK(!score_fold(&d, &st, fold, 0, use, 1, maps[run], &err));
        store_close(&st);
        remove("build/folds.cache");
    }
    OK(!memcmp(maps[0] + 6 * CELLS, maps[1] + 6 * CELLS, CELLS * sizeof(float)));    /* 6: of fold 0 */
    OK(memcmp(maps[0] + 6 * CELLS, maps[2] + 6 * CELLS, CELLS * sizeof(float)) != 0);
    OK(memcmp(maps[0], maps[1], CELLS * sizeof(float)) != 0);
    free(d.extract.seen);
}

/* However long it has learned, the mean energy of what a model learned from is 1. */
static void energies(void)
{
    enum { N = 6, CHANNELS = 5, CELLS = 4 };
    view seen = { .grid = 2, .from = CHANNELS, .pool = 1, .unit = true };
    settings how = settings_initial();
    store st;
    float x[CELLS * CHANNELS], map[CELLS];
    bool use[N];
    vgs_error err = { VGS_OK, "" };
    how.grid = 2;
    how.hidden = how.code = 4;
    view_add(&seen, 0, CHANNELS);
    OK(store_open(&st, "build/energy.cache", "a", CELLS * CHANNELS, false));
    if (!st.file) return;
    st.seen = &seen;
    for (int i = 0; i < N; ++i) {
        use[i] = i != 2;
        for (int k = 0; k < CELLS * CHANNELS; ++k)
            x[k] = (float)uniform(600 + (uint32_t)i, (uint32_t)k) - 0.3f;
        OK(store_add(&st, (uint64_t)i, x));
    }
    for (how.fit_steps = 1; how.fit_steps < 40; how.fit_steps += 30) {
        energy e;
        double sum = 0;
        T_IN("%d steps", how.fit_steps);
        OK(!energy_create(&e, &how, CHANNELS, 1, &err));
        if (!CHECK(!energy_fit(&e, &how, &st, use, CHANNELS, &err), "%s", err.msg)) return;
        for (int i = 0; i < N; ++i) {
            store_get(&st, i, x);
            energy_score(&e, x, map);
            for (int k = 0; k < CELLS && use[i]; ++k) sum += (double)map[k] / (CELLS * (N - 1));
        }
        CHECK_NEAR(sum, 1, 0, 1e-5);
        energy_free(&e);
    }
    store_close(&st);
    remove("build/energy.cache");
}

/* The direction of largest variance, from sums of all images less those left out: against that of a
   covariance of those in use. */
static void basis(void)
{
    enum { N = 10, CHANNELS = 3, CELLS = 4 };
    view seen = { .grid = 2, .from = CHANNELS, .pool = 1 };
    gaussian g = gaussian_create(1, CHANNELS, 1, 1);
    store st;
    bool use[N];
    float x[CELLS * CHANNELS];
    double c[3][3] = { { 0 } }, mean[3] = { 0 }, v[3] = { 1, 1, 1 }, n = 0;
    view_add(&seen, 0, CHANNELS);
    OK(store_open(&st, "build/basis.cache", "a", CELLS * CHANNELS, false));
    if (!st.file) return;
    st.seen = &seen;
    for (int i = 0; i < N; ++i) {
        use[i] = i % 3 != 1;
        for (int k = 0; k < CELLS * CHANNELS; ++k)
            x[k] = (float)uniform(500 + (uint32_t)i, (uint32_t)k) * (float)(1 + k % 3);
        if (!use[i]) x[i % 4 * CHANNELS] += 50;  /* its variance would be the largest by far             */
        OK(store_add(&st, (uint64_t)i, x));
        for (int k = i % 4; k < CELLS && use[i]; k += 4, n += 1)
            for (int a = 0; a < 3; ++a) {
                mean[a] += (double)x[k * 3 + a];
                for (int b = 0; b < 3; ++b) c[a][b] += (double)x[k * 3 + a] * (double)x[k * 3 + b];
            }
    }
    for (int round = 0; round < 200; ++round) {
        double w[3], length = 0;
        for (int a = 0; a < 3; ++a) {
            w[a] = 0;
            for (int b = 0; b < 3; ++b) w[a] += (c[a][b] / n - mean[a] / n * mean[b] / n) * v[b];
            length += w[a] * w[a];
        }
        for (int a = 0; a < 3; ++a) v[a] = w[a] / sqrt(length);
    }
    gaussian_basis(&g, &st, use, x);
    CHECK_NEAR(fabs((double)g.basis[0] * v[0] + (double)g.basis[1] * v[1] + (double)g.basis[2] * v[2]), 1, 0,
               1e-5);
    store_close(&st);
    remove("build/basis.cache");
    gaussian_free(&g);
}

/* An empty file under build/walk, in folders that are made. */
static void touch(const char *name)
{
    char path[200];
    FILE *f;
    snprintf(path, sizeof path, "build/walk/%s", name);
    make_folders(path);
    f = fopen(path, "w");
    if (OK(f != NULL)) fclose(f);
}

static bool photo_is(const photo *p, const char *name, int class_index, bool bad, const char *mask)
{
    return !strcmp(p->name, name) && p->class_index == class_index && p->bad == bad &&
           (mask ? p->mask && !strcmp(p->mask, mask) : !p->mask);
}

/* One class in MVTec's layout, a folder of such classes, and any folder of images. */
static void walker(void)
{
    static const char *const files[] = {
        "a/train/good/2.PNG", "a/train/good/1.jpeg", "a/train/good/deep/er/3.bmp", "a/train/good/.hidden.png",
        "a/train/good/notes.txt", "a/train/bad/9.png", "a/test/good/7.png", "a/test/cut/5.png",
        "a/test/cut/6.jpg", "a/test/cut/deep/8.png", "a/ground_truth/cut/5_mask.png",
        "a/ground_truth/cut/6.png", "a/ground_truth/good/7_mask.png", "b/train/good/4.png",
        "other/readme.png" };
    photos p;
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) touch(files[i]);
    if (OK(photos_scan(&p, "build/walk/a", false)) && OK(p.n == 3 && p.class_count == 1)) {
        OK(!strcmp(p.classes[0], "a") && !strcmp(p.at[0].path, "build/walk/a/train/good/1.jpeg"));
        OK(photo_is(p.at, "train/good/1.jpeg", 0, false, NULL));
        OK(photo_is(p.at + 1, "train/good/2.PNG", 0, false, NULL));
        OK(photo_is(p.at + 2, "train/good/deep/er/3.bmp", 0, false, NULL));
    }
    photos_free(&p);
    if (OK(photos_scan(&p, "build/walk/a/", true)) && OK(p.n == 4)) {
        OK(photo_is(p.at, "test/cut/5.png", 0, true, "build/walk/a//ground_truth/cut/5_mask.png"));
        OK(photo_is(p.at + 1, "test/cut/6.jpg", 0, true, "build/walk/a//ground_truth/cut/6.png"));
        OK(photo_is(p.at + 2, "test/cut/deep/8.png", 0, true, NULL));
        OK(photo_is(p.at + 3, "test/good/7.png", 0, false, NULL));
    }
    photos_free(&p);
    if (OK(photos_scan(&p, "build/walk", false)) && OK(p.n == 4 && p.class_count == 2)) {
        OK(!strcmp(p.classes[1], "b") && photo_is(p.at + 3, "b/train/good/4.png", 1, false, NULL));
        OK(photo_is(p.at, "a/train/good/1.jpeg", 0, false, NULL));
    }
    photos_free(&p);
    OK(photos_scan(&p, "build/walk/other", false) && p.n == 1 &&
       photo_is(p.at, "readme.png", 0, false, NULL));
    photos_free(&p);
    OK(!photos_scan(&p, "build/walk/other", true) && !photos_scan(&p, "build/walk/a/ground_truth/x", false));
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        char path[200];
        snprintf(path, sizeof path, "build/walk/%s", files[i]);
        OK(!remove(path));
    }
}

/* Lines FILE,GROUP, FILE the end of a path; what is not listed is alone. */
static void groups_by_file(void)
{
    static const char *const names[] = { "t/a.png", "t/ba.png", "u/bc.png", "t/c.png" };
    photos p = { 0 };
    int group[4];
    FILE *f = fopen("build/groups.csv", "w");
    if (!OK(f != NULL)) return;
    fputs("file,group\nt/a.png,x\r\nba.png,y\n\nc.png,x\n", f);
    fclose(f);
    photos_class(&p, text_format("c"));
    for (int i = 0; i < 4; ++i) photos_add(&p, "", names[i], NULL, false);
    OK(group_by_file(&p, "build/groups.csv", group) == 3);
    OK(group[0] == group[3] && group[0] != group[1] && group[2] != group[0] && group[2] != group[1]);
    f = fopen("build/groups.csv", "w");
    if (!OK(f != NULL)) return;
    fputs("a.png\n", f);
    fclose(f);
    OK(group_by_file(&p, "build/groups.csv", group) == -1);
    remove("build/groups.csv");
    photos_free(&p);
}

static void groups(void)
{
    static const char *const names[] = { "a_5.png", "a_100.png", "b_106.png", "b_90.png", "x.png", "y.png" };
    photos p = { 0 };
    int group[6];
    photos_class(&p, text_format("c"));
    for (int i = 0; i < 6; ++i) photos_add(&p, "", names[i], NULL, false);
    OK(group_by_gap(&p, 10, group) == 4);
    OK(group[1] == group[2] && group[1] == group[3] && group[0] != group[1] && group[4] != group[5]);
    photos_free(&p);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(resize);
    RUN(orientations);
    RUN(jpegs);
    RUN(image_scores);
    RUN(pixel_scores);
    RUN(network_features);
    RUN(network_errors);
    RUN(lengths);
    RUN(views);
    RUN(maps_of_scales);
    RUN(p_values);
    RUN(thresholds);
    RUN(masks);
    RUN(folds);
    RUN(folds_do_not_see);
    RUN(energies);
    RUN(basis);
    RUN(walker);
    RUN(groups_by_file);
    RUN(groups);
    return t_end();
}
