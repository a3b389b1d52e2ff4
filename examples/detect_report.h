/* detect_report.h - the page that `detect evaluate` writes: figures, curves, histograms, and the images that
   it found most and least anomalous. Include it after judge.h, heat.h and page.h. */
#ifndef DETECT_REPORT_H
#define DETECT_REPORT_H

enum { SHOWN_EACH = 8, THUMBNAIL = 224 };

/* ==== pictures inside the page ====================================================================== */

typedef struct picture { unsigned char *data; size_t n, room; } picture;       /* a file in memory   */

static inline void picture_add(void *to, void *data, int n)
{
    picture *b = (picture *)to;
    if (b->n + (size_t)n > b->room) {
        unsigned char *more = (unsigned char *)realloc(b->data, b->room = 2 * b->room + (size_t)n);
        if (!more) say("out of memory"), exit(EXIT_FAILED);
        b->data = more;
    }
    memcpy(b->data + b->n, data, (size_t)n);
    b->n += (size_t)n;
}

static inline void write_base64(FILE *f, const unsigned char *p, size_t n)
{
    static const char letter[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16;
        if (i + 1 < n) v |= (unsigned)p[i + 1] << 8;
        if (i + 2 < n) v |= p[i + 2];
        fputc(letter[v >> 18], f);
        fputc(letter[v >> 12 & 63], f);
        fputc(i + 1 < n ? letter[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? letter[v & 63] : '=', f);
    }
}

/* An image with its map over it, small. */
static inline void write_thumbnail(FILE *f, const detector *d, const photo *p, const float *map, double score,
                                   double p_of_it)
{
    image m, small = { NULL, THUMBNAIL, THUMBNAIL, 3 };
    unsigned char *over = (unsigned char *)room_for(2 * THUMBNAIL * THUMBNAIL, 3);
    picture png = { NULL, 0, 0 };
    vgs_error err;
    small.data = over + THUMBNAIL * THUMBNAIL * 3;
    if (!image_read(p->path, 3, &m, &err)) {
        if (image_resize(&m, THUMBNAIL, THUMBNAIL, small.data)) heat_overlay(d, &small, map, over);
        stbi_write_png_to_func(picture_add, &png, THUMBNAIL, THUMBNAIL, 3, over, 0);
        fputs("<figure><img width=\"100%\" alt=\"\" src=\"data:image/png;base64,", f);
        write_base64(f, png.data, png.n);
        fputs("\"><figcaption>", f);
        html_text(f, p->name);
        fprintf(f, "<span>%s, score %.3g, p %.3g</span></figcaption></figure>\n", p->bad ? "bad" : "good",
                score,
                p_of_it);
    }
    image_free(&m);
    free(png.data);
    free(over);
}

/* ==== curves ======================================================================================== */

/* Share of `bad` over share of good, up to `limit`. */
static inline void curve_chart(FILE *f, const char *title, const char *note, const double *good,
                               const double *bad,
                               int n, double limit)
{
    chart c = { .f = f, .title = title, .note = note, .x_label = "share of good ones above the threshold",
                .w = 300, .h = 220, .left = 40, .x1 = limit, .y1 = 1 };
    double g = sum_of(good, n), b = sum_of(bad, n), x = 0, y = 0, shown = -1;
    if (!(g > 0 && b > 0)) return;               /* one kind only: there is no curve                     */
    chart_begin(&c);
    fputs("<path class=\"a\" d=\"M0 ", f);
    fprintf(f, "%g", c.h);
    for (int i = 0; i < n && x <= limit; ++i) {
        x += good[i] / g;
        y += bad[i] / b;
        if (x - shown < limit / 500 && i + 1 < n) continue;
        fprintf(f, "L%.1f %.1f", chart_x(&c, x), chart_y(&c, y));
        shown = x;
    }
    fputs("\"/>", f);
    chart_end(&c);
}

static inline void score_chart(FILE *f, const evaluated *e)
{
    double *good = (double *)room_for(2 * (size_t)e->all.n, sizeof *good), *bad = good + e->all.n;
    int goods = 0, bads = 0;
    chart c = { .f = f, .title = "Scores", .note = "<i class=\"sw sa\"></i>bad<i class=\"sw sb\"></i>good",
                .x_label = "score of an image", .w = 300, .h = 220, .left = 10 };
    for (int i = 0; i < e->all.n; ++i)
        if (!isnan(e->score[i])) *(e->all.at[i].bad ? &bad[bads++] : &good[goods++]) = e->score[i];
    if (goods && bads) histogram_chart(c, bad, bads, good, goods);
    free(good);
}

static inline void report_curves(FILE *f, const evaluated *e, const detector *d)
{
    scored *s = (scored *)room_for((size_t)e->all.n, sizeof *s);
    result all = { 0 };
    pixel_bins pixels;
    roc_bins images;
    int n = 0;
    for (int i = 0; i < e->all.n; ++i)
        if (!isnan(e->score[i])) s[n++] = (scored){ e->score[i], e->all.at[i].bad };
    images = roc_of_images(s, n);
    pixel_figures(e, d, -1, &all, &pixels);
    fputs("<h2>Curves</h2><p>All classes together.</p><div class=\"grid\">", f);
    score_chart(f, e);
    curve_chart(f, "ROC", "share of bad images above the threshold", images.good, images.bad, images.n, 1);
    if (all.regions) curve_chart(f, "PRO", "mean share of a region above it", pixels.roc.good,
                                 pixels.roc.region,
                                 pixels.roc.n, 0.3);
    fputs("</div>\n", f);
    roc_free(&images);
    pixel_bins_free(&pixels);
    free(s);
}

/* ==== the page ====================================================================================== */

static inline void report_table(FILE *f, const photos *p, const result *mean, const result *each)
{
    fputs("<h2>Classes</h2><p>average precision is of pixels; f1_best is that of the best threshold, which "
          "only the answers tell.</p><div class=\"scroll\"><table><tr><th>class</th>", f);
    for (int k = 0; k < FIGURES; ++k) fprintf(f, "<th class=\"num\">%s</th>", figures[k].name);
    for (int c = -1; c < p->class_count; ++c) {
        fputs("</tr><tr><td>", f);
        html_text(f, c < 0 ? "mean" : p->classes[c]);
        for (int k = 0; k < FIGURES; ++k) {
            const char *at = (const char *)(c < 0 ? mean : each + c) + figures[k].at;
            double v = figures[k].count ? *(const int *)(const void *)at : *(const double *)(const void *)at;
            if (isnan(v)) fputs("</td><td class=\"num\">-", f);
            else fprintf(f,
                         figures[k].count ? "</td><td class=\"num\">%.0f" : "</td><td class=\"num\">%.3f", v);
        }
        fputs("</td>", f);
    }
    fputs("</tr></table></div>\n", f);
}

static inline void report_images(FILE *f, const evaluated *e, const detector *d)
{
    int cells = d->how.grid * d->how.grid, n = 0;
    int *order = (int *)room_for((size_t)e->all.n, sizeof *order);
    for (int i = 0; i < e->all.n; ++i) if (!isnan(e->score[i])) order[n++] = i;
    for (int i = 1; i < n; ++i)                                      /* few enough for an insertion sort  */
        for (int k = i; k > 0 && e->score[order[k]] > e->score[order[k - 1]]; --k) {
            int swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    for (int end = 0; end < 2; ++end) {
        fprintf(f, "<h2>%s anomalous</h2><p>%s</p><div class=\"grid\">", end ? "Least" : "Most",
                "One scale of colours for all: the share of good cells that score higher, from all to 1 in "
                "10,000.");
        for (int i = 0; i < SHOWN_EACH && i < n; ++i) {
            int k = order[end ? n - 1 - i : i];
            write_thumbnail(f, d, e->all.at + k, e->maps + (size_t)k * (size_t)cells, e->score[k], e->p[k]);
        }
        fputs("</div>\n", f);
    }
    free(order);
}

/* A key figure, unless there is none. */
static inline void key_number(FILE *f, const char *name, const char *format, double v, const char *note)
{
    char text[64];
    if (isnan(v)) return;
    snprintf(text, sizeof text, format, v);
    key_figure(f, name, text, note);
}

static inline vgs_status write_report(const char *path, const evaluated *e, const detector *d,
                                      const result *mean,
                                      const result *each, vgs_error *err)
{
    vgs_file f;
    char text[64];
    if (vgs_file_begin(&f, path, err)) return err->code;
    page_begin(f.stream);
    fputs("Anomaly detector", f.stream);
    page_style_end(f.stream);
    fprintf(f.stream, "<p class=\"eyebrow\">detect evaluate, %d images</p><h1>Anomaly detector</h1>"
            "<p>Method %s, %s, %d x %d pixels, %d x %d cells; %d good images calibrate it.</p>"
            "<dl class=\"key\">",
            e->all.n, setting_text(&d->how, setting_find("method"), text),
            d->weights[0] ? d->weights : "filters", d->how.size, d->how.size, d->how.grid, d->how.grid,
            d->good);
    key_number(f.stream, "image AUROC", "%.3f", mean->image_auroc, "mean of the classes");
    key_number(f.stream, "AUPRO(0.3)", "%.3f", mean->aupro_30, "mean of the classes");
    key_number(f.stream, "false alarms", "%.1f %%", 100 * mean->false_alarm_rate,
               "on good images of the test");
    key_number(f.stream, "detected", "%.1f %%", 100 * mean->detection_rate,
               "bad images above the threshold");
    fputs("</dl></header>\n", f.stream);
    report_table(f.stream, &e->all, mean, each);
    report_curves(f.stream, e, d);
    report_images(f.stream, e, d);
    fputs("</main></body></html>\n", f.stream);
    return vgs_file_commit(&f, err);
}

#endif /* DETECT_REPORT_H */
