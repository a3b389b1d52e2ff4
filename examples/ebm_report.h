/* ebm_report.h - the page that ebm writes. It is a part of ebm.c, which includes it after its job. */
#ifndef EBM_REPORT_H
#define EBM_REPORT_H

/* What the report and the summary are made of, by the averaged weights. */
typedef struct results {
    float *draws, *e_draws, *e_data, *e_valid;
    float *path;                                 /* NULL, or [T + 1,PATH_ROWS,2]                          */
    double *log_weight;
    int n, n_data, n_valid;
    bool weighted;
    vgs_weights weights;
    double log_likelihood, log_likelihood_se;    /* a row of --valid, else of the data                    */
} results;

static void chart_line(const chart *c, const curves *data, int which, const char *class_name)
{
    bool down = false;
    fprintf(c->f, "<path class=\"%s\" d=\"", class_name);
    for (int i = 0; i < data->n; ++i) {
        double y = data->y[which][i];
        if (isfinite(y)) fprintf(c->f, "%c%.1f %.1f", down ? 'L' : 'M', chart_x(c, data->iteration[i]),
                                 chart_y(c, y));
        down = isfinite(y);
    }
    fputs("\"/>\n", c->f);
}

/* One or two curves (second < 0: one) in one picture; nothing where there are no values. */
static void curve_chart(chart c, const curves *data, int first, int second)
{
    double all[2 * CURVE_POINTS];
    int n = data->n;
    memcpy(all, data->y[first], (size_t)n * sizeof *all);
    if (second >= 0) memcpy(all + n, data->y[second], (size_t)n * sizeof *all);
    n = sort_finite(all, second >= 0 ? 2 * n : n);
    if (!n) return;
    c.y0 = quantile(all, n, 0.01);
    c.y1 = quantile(all, n, 0.99);
    widen(&c);
    c.x0 = 0;
    c.x1 = data->iteration[data->n - 1] > 0 ? data->iteration[data->n - 1] : 1;
    chart_begin(&c);
    chart_line(&c, data, first, "a");
    if (second >= 0) chart_line(&c, data, second, "b");
    chart_end(&c);
}

static void learning_section(const job *j, FILE *f)
{
    static const char *const keys[] = { "e_data", "e_draws", "g", "draw_distance", "start_distance",
                                        "drift_first", "drift_last", "gamma_share", "energy_train",
                                        "energy_valid", "spread" };
    static curves data;
    char path[MAX_PATH_LENGTH];
    chart c = { .f = f, .w = 270.0, .h = 170.0, .left = 44.0, .x_label = "iteration" };
    const bool sphere = j->config.sampler.on_sphere;
    read_curves(in_dir(j, "log.jsonl", path), keys, 11, &data);
    fputs("<h2>Learning</h2><p>E falls where data lie and rises where negatives go; at rest both have the "
          "same mean.</p><div class=\"grid\">\n", f);
    c.title = "Mean e";
    c.note = "<i class=\"sw sa\"></i>data<i class=\"sw sb\"></i>negatives";
    curve_chart(c, &data, 0, 1);
    c.title = "Mean E by the averaged weights";
    c.note = "<i class=\"sw sa\"></i>train<i class=\"sw sb\"></i>held out";
    curve_chart(c, &data, 8, j->valid.n ? 9 : -1);
    c.title = sphere ? "Degrees" : "Distance";
    c.note = "<i class=\"sw sa\"></i>start to negative<i class=\"sw sb\"></i>data to start";
    curve_chart(c, &data, 3, 4);
    c.title = "Drift over noise";
    c.note = "<i class=\"sw sa\"></i>first step<i class=\"sw sb\"></i>last";
    curve_chart(c, &data, 5, 6);
    c.title = "g";
    c.note = "E = g&sup2; |x - r|&sup2;/tau";
    curve_chart(c, &data, 2, -1);
    c.title = "Spread of the negatives";
    c.note = "over that of the data: near 0 they are all alike";
    curve_chart(c, &data, 10, -1);
    c.title = "Share of gamma";
    c.note = "in the step of E";
    curve_chart(c, &data, 7, -1);
    fputs("</div>\n", f);
}

/* Over iterations of pretraining, where there were any; what a broken run has logged twice is left out. */
static void pretraining_section(const job *j, FILE *f)
{
    static const char *const keys[] = { "fitted", "fit_loss" };
    static curves data;
    char path[MAX_PATH_LENGTH];
    chart c = { .f = f, .w = 430.0, .h = 170.0, .left = 44.0, .log_y = true };
    int n = 0;
    read_curves(in_dir(j, "log.jsonl", path), keys, 2, &data);
    for (int i = 0; i < data.n; ++i) {
        if (!isfinite(data.y[0][i]) || (n && data.y[0][i] <= data.iteration[n - 1])) continue;
        data.iteration[n] = data.y[0][i];
        data.y[1][n++] = data.y[1][i];
    }
    data.n = n;
    if (n < 2) return;
    c.title = "Loss";
    c.x_label = "iteration of pretraining";
    c.note = j->config.objective == VGS_DXMI ? "|eps - net|&sup2;/D, mean since the point before"
                                             : "|x - r|&sup2;, mean since the point before";
    fprintf(f, "<h2>Pretraining</h2><p>%s.</p><div class=\"grid wide\">\n", j->config.objective == VGS_DXMI
            ? "The policy as a denoising diffusion model" : "E as an autoencoder");
    curve_chart(c, &data, 1, -1);
    fputs("</div>\n", f);
}

/* Shares p [CELLS,CELLS] of x [n,2] in the cells of [-half,half]^2. */
static void cells_of(const float *x, int n, double half, double *p)
{
    memset(p, 0, CELLS * CELLS * sizeof *p);
    for (int i = 0; i < n; ++i) {
        double u = ((double)x[2 * i] / half + 1) * CELLS / 2;
        double v = ((double)x[2 * i + 1] / half + 1) * CELLS / 2;
        if (u >= 0 && u < CELLS && v >= 0 && v < CELLS) p[(int)v * CELLS + (int)u] += 1;
    }
    normalise(p, n);
}

/* The same of the learned density, at the cells' centres; returns the largest. */
static double learned_cells(const job *j, double half, double *p)
{
    static float x[CELLS * CELLS][2], e[CELLS * CELLS];
    double sum = 0, bottom = HUGE_VAL;
    for (int i = 0; i < CELLS * CELLS; ++i) {
        x[i][0] = (float)(half * (2.0 * (i % CELLS + 0.5) / CELLS - 1));
        x[i][1] = (float)(half * (2.0 * (i / CELLS + 0.5) / CELLS - 1));
    }
    if (vgs_ebm_score(j->m, x[0], CELLS * CELLS, e, NULL)) return 0;
    for (int i = 0; i < CELLS * CELLS; ++i) bottom = fmin(bottom, (double)e[i]);
    for (int i = 0; i < CELLS * CELLS; ++i)
        sum += p[i] = exp((bottom - (double)e[i]) / (double)j->config.sampler.tau);
    return normalise(p, sum);
}

/* A square around the data. */
static double plane_half(const job *j, const results *r)
{
    double half = 0;
    for (int i = 0; i < 2 * r->n_data; ++i) half = fmax(half, fabs((double)j->data.x[i]));
    return 1.1 * half;
}

/* In the plane: what a sampler that starts from noise makes of it, at five times, and some paths. */
static void path_section(const job *j, const results *r, FILE *f)
{
    static double p[CELLS * CELLS];
    const int T = j->config.sampler.steps, shots = T < 4 ? T + 1 : 5;
    const double half = plane_half(j, r);
    char title[64];
    chart c = { .f = f, .w = 200.0, .h = 200.0, .left = 26.0, .frame = true, .x_label = "", .x0 = -half,
                .y0 = -half, .x1 = half, .y1 = half, .title = title, .note = "a histogram" };
    fprintf(f, "<h2>From noise to data</h2><p>The same rows after some of the %d steps.</p>"
            "<div class=\"grid\">\n", T);
    for (int k = 0; k < shots; ++k) {
        int t = T * k / (shots - 1);
        cells_of(r->path + 2 * (size_t)t * PATH_ROWS, PATH_ROWS, half, p);
        if (k) snprintf(title, sizeof title, "After %d step%s", t, t == 1 ? "" : "s");
        else snprintf(title, sizeof title, "Noise");
        chart_begin(&c);
        density(&c, p, normalise(p, 1));         /* each on a scale of its own                        */
        chart_end(&c);
    }
    c.note = "<i class=\"sw sa\"></i>on the way<i class=\"sw sb\"></i>arrived";
    snprintf(title, sizeof title, "Paths");
    chart_begin(&c);
    trails(&c, r->path, T, PATH_ROWS, 40);
    chart_end(&c);
    fputs("</div>\n", f);
}

/* In the plane: data, learned density, draws, on one colour scale. */
static void plane_section(const job *j, const results *r, FILE *f)
{
    static double p[CELLS * CELLS];
    double half = plane_half(j, r), top;
    chart c = { .f = f, .w = 300.0, .h = 300.0, .left = 32.0, .frame = true, .x_label = "" };
    c.x0 = c.y0 = -half;
    c.x1 = c.y1 = half;
    top = learned_cells(j, half, p);
    fputs("<h2>Density</h2><p>Equal axes and one colour scale; darker is denser (lighter, in dark mode). "
          "Centred, in units of the data's standard deviation.</p><div class=\"grid\">\n", f);
    for (int k = 0; k < 3; ++k) {
        c.title = k == 0 ? "Data" : k == 1 ? "exp(-E)/Z" : "Draws";
        c.note = k == 1 ? "what was learned" : "a histogram";
        if (k == 1) learned_cells(j, half, p);
        else cells_of(k ? r->draws : j->data.x, k ? r->n : r->n_data, half, p);
        chart_begin(&c);
        density(&c, p, top);
        chart_end(&c);
    }
    fputs("</div>\n", f);
}

/* One row as a square picture at (x, y) of the chart, dark where it has the most; colours as their mean. */
static void tile(FILE *f, const float *row, int side, int channels, double x, double y, double lo, double hi)
{
    for (int i = 0; i < side * side; ++i) {
        double grey = 0;
        for (int k = 0; k < channels; ++k) grey += (double)row[i * channels + k] / channels;
        int level = (int)(9 * (grey - lo) / (hi - lo) + 0.5);
        if (level > 0)
            fprintf(f, "<path class=\"q q%d\" d=\"M%.1f %.1fh3.6v3.6h-3.6z\"/>", level > 9 ? 9 : level,
                    x + 3.6 * (i % side), y + 3.6 * (i / side));
    }
    fputc('\n', f);
}

/* Rows that are square pictures: the first of the data, and draws. */
static void picture_section(const job *j, const results *r, int side, int channels, FILE *f)
{
    chart c = { .f = f, .w = 340.0, .h = 0, .left = 10.0, .x0 = 0, .x1 = 1, .y0 = 0, .y1 = 1, .frame = true,
                .x_label = "" };
    const size_t d = (size_t)j->units.dim;
    float *both[2], lo = 1e30f, hi = -1e30f;
    const double pitch = 3.6 * side + 4;
    const int across = (int)(c.w / pitch), tiles = r->n < TILES ? r->n : TILES;  /* slow ones make few  */
    both[0] = malloc((size_t)tiles * d * sizeof(float));
    both[1] = malloc((size_t)tiles * d * sizeof(float));
    if (both[0] && both[1] && across > 0 && r->n_data >= tiles) {
        c.h = pitch * ((tiles + across - 1) / across);
        memcpy(both[0], j->data.x, (size_t)tiles * d * sizeof(float));
        memcpy(both[1], r->draws, (size_t)tiles * d * sizeof(float));
        for (int k = 0; k < 2; ++k) units_undo(&j->units, both[k], tiles);
        for (size_t i = 0; i < (size_t)tiles * d; ++i) {
            lo = both[0][i] < lo ? both[0][i] : lo;
            hi = both[0][i] > hi ? both[0][i] : hi;
        }
        fputs("<h2>Pictures</h2><p>Rows as square pictures.</p><div class=\"grid wide\">\n", f);
        for (int k = 0; k < 2; ++k) {
            c.title = k ? "Draws" : "Data";
            chart_begin(&c);
            for (int i = 0; i < tiles; ++i)
                tile(f, both[k] + (size_t)i * d, side, channels, 2 + pitch * (i % across),
                     2 + pitch * (i / across), (double)lo, (double)hi + 1e-9);
            chart_end(&c);
        }
        fputs("</div>\n", f);
    }
    free(both[0]);
    free(both[1]);
}

static void energy_chart(chart c, const float *a, int n, const float *b, int m)
{
    double *u = malloc((size_t)(n + 1) * sizeof *u), *v = malloc((size_t)(m + 1) * sizeof *v);
    for (int i = 0; u && i < n; ++i) u[i] = (double)a[i];
    for (int i = 0; v && i < m; ++i) v[i] = (double)b[i];
    if (u && v) histogram_chart(c, u, n, v, m);
    free(u);
    free(v);
}

static void histogram_section(const job *j, const results *r, FILE *f)
{
    chart c = { .f = f, .w = 430.0, .h = 170.0, .left = 10.0, .x_label = "E(x)" };
    fputs("<h2>Energies</h2><p><i class=\"sw sb\"></i>data that E was learned from, in each picture</p>"
          "<div class=\"grid wide\">\n", f);
    c.title = "Draws";
    energy_chart(c, r->e_draws, r->n, r->e_data, r->n_data);
    c.title = "Held-out data";
    if (j->valid.n) energy_chart(c, r->e_valid, r->n_valid, r->e_data, r->n_data);
    fputs("</div>\n", f);
}

static void configuration_section(const job *j, FILE *f)
{
    const vgs_ebm_config *c = vgs_ebm_settings(j->m);
    char text[32], name[72];
    fputs("<h2>Configuration</h2><p>Every field, defaults filled in: of the energy, then of the sampler.</p>"
          "<div class=\"scroll conf\">\n", f);
    for (int i = 0; vgs_ebm_field_name(i); ++i) {
        snprintf(name, sizeof name, "energy_%s", vgs_ebm_field_name(i));
        vgs_ebm_field_get(c, i, text);
        fewest_digits(text);
        fact(f, name, vgs_ebm_field_help(i), text);
    }
    for (int i = 0; vgs_field_name(i); ++i) {
        vgs_field_get(&c->sampler, i, text);
        fewest_digits(text);
        fact(f, vgs_field_name(i), vgs_field_help(i), text);
    }
    fputs("</div>\n", f);
}

/* Every warning of the log, once for each beginning, with where it was seen first and last. */
static void warnings_section(const job *j, FILE *f)
{
    enum { KINDS = 8 };
    struct { char text[200]; size_t key; double first, last; } seen[KINDS];
    char path[MAX_PATH_LENGTH], line[2048];
    FILE *log = fopen(in_dir(j, "log.jsonl", path), "r");
    int n = 0;
    while (log && fgets(line, sizeof line, log)) {
        static const char key[] = "\"warning\": \"";
        const char *text = strstr(line, key);
        int k = 0;
        if (!text) continue;
        text += strlen(key);
        while (k < n && strncmp(seen[k].text, text, seen[k].key)) ++k;
        if (k == KINDS) continue;
        if (k == n) seen[n++].first = log_number(line, "iteration");
        snprintf(seen[k].text, sizeof seen[k].text, "%.*s", (int)strcspn(text, "\""), text);
        seen[k].key = strcspn(seen[k].text, ":(0123456789");
        seen[k].last = log_number(line, "iteration");
    }
    if (log) fclose(log);
    for (int k = 0; k < n; ++k) {
        fputs("<p>Warning: ", f);
        html_text(f, seen[k].text);
        fprintf(f, " (iterations %.0f to %.0f).</p>\n", seen[k].first, seen[k].last);
    }
}

static void page_head(const job *j, const results *r, FILE *f)
{
    const vgs_ebm_stats *s = &j->stats;
    const char *name = j->args > 1 ? j->arg[1] : j->arg[0];
    char value[64], note[96];
    page_begin(f);
    html_text(f, name);
    fputs(" - energy-based model", f);
    page_style_end(f);
    fputs("<p class=\"eyebrow\">Energy-based model</p><h1>", f);
    html_text(f, name);
    fprintf(f, "</h1><p>%d rows of %d columns</p></header><dl class=\"key\">\n", j->data.n, j->units.dim);
    snprintf(value, sizeof value, "%.4f", r->log_likelihood);
    snprintf(note, sizeof note, "&plusmn; %.2g, a row of %s", r->log_likelihood_se,
             j->valid.n ? "held-out data" : "the data");
    if (r->weighted && is_trusted(&r->weights)) key_figure(f, "Log-likelihood", value, note);
    snprintf(value, sizeof value, "%.2f", r->weights.ess);
    if (r->weighted) key_figure(f, "ESS/N", value, "of the draws' path weights");
    note[0] = '\0';
    if (isfinite(s->e_draws)) snprintf(note, sizeof note, "of negatives: %.4g", s->e_draws);
    if (isfinite(s->e_data)) key_figure(f, "Mean e of data", number(s->e_data, value), note);
    if (isfinite(s->scale)) key_figure(f, "g", number(s->scale, value), "scale of the energy");
    snprintf(value, sizeof value, "%lld", (long long)vgs_ebm_iteration(j->m));
    snprintf(note, sizeof note, "%d steps, batch %d", j->config.sampler.steps, j->config.sampler.batch);
    key_figure(f, "Iterations", value, note);
    snprintf(note, sizeof note, "%d threads, %s", thread_count(j->threads), vgs_isa_name(vgs_cpu_isa()));
    key_figure(f, "Time", duration(j->earlier + elapsed(j), value), note);
    fputs("</dl>\n", f);
    warnings_section(j, f);
}

static vgs_status write_report(const job *j, const results *r, vgs_error *err)
{
    char path[MAX_PATH_LENGTH];
    int side = (int)(sqrt((double)j->units.dim) + 0.5), third = (int)(sqrt(j->units.dim / 3.0) + 0.5);
    vgs_file f;
    vgs_status st = vgs_file_begin(&f, in_dir(j, "report.html", path), err);
    if (st != VGS_OK) return st;
    page_head(j, r, f.stream);
    pretraining_section(j, f.stream);
    if (!is_policy_alone(j)) learning_section(j, f.stream);
    if (j->units.dim == 2 && !j->config.sampler.on_sphere && !is_policy_alone(j))
        plane_section(j, r, f.stream);
    if (r->path) path_section(j, r, f.stream);
    if (side >= 6 && side <= 32 && side * side == j->units.dim) picture_section(j, r, side, 1, f.stream);
    else if (third >= 6 && third <= 32 && 3 * third * third == j->units.dim)
        picture_section(j, r, third, 3, f.stream);
    histogram_section(j, r, f.stream);
    configuration_section(j, f.stream);
    fprintf(f.stream, "<footer>Written by examples/ebm.c of vgs.h %d.%d.%d.</footer></main></body></html>\n",
            VGS_VERSION_MAJOR, VGS_VERSION_MINOR, VGS_VERSION_PATCH);
    st = vgs_file_commit(&f, err);
    vgs_file_discard(&f);
    return st;
}

#endif /* EBM_REPORT_H */
