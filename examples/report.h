/* report.h - the page that train writes. Include it after on_target.h. */
#ifndef REPORT_H
#define REPORT_H

#include "page.h"

typedef struct report {
    const target *target;
    const char *preset;
    const vgs_config *config;
    vgs_stats stats;
    double seconds;
    const vgs_weights *weights;              /* NULL: there are none                                     */
    const vgs_forward *forward;              /* likewise, of reference samples                           */
    const char *doubt;                       /* of the pilot: a sentence, or nothing                     */
    int threads;
    const float *x, *ref;                /* samples [n,dim] and, or NULL, reference samples [n_ref,dim]  */
    int n, n_ref;
    const float *path;                   /* NULL, or [steps + 1, paths, 2]                               */
    int paths;
    const evaluation *metrics;           /* NULL: none                                                   */
} report;

static void learning_section(const report *r, const char *log_path, FILE *f)
{
    static const char note[] = "<i class=\"sw sb\"></i>log Z";
    static const char *const keys[] = { "loss", "elbo", "energy_median" };
    curves data;
    chart c = { .f = f, .w = 270.0, .h = 170.0, .left = 40.0, .x_label = "iteration" };
    bool known = r->target->log_z_known && r->config->tau == 1.0f;
    read_curves(log_path, keys, 3, &data);
    fputs("<h2>Learning</h2><p>The ELBO is the figure to watch: it rises towards log Z, and what is missing "
          "is the "
          "error. Early values far off may lie outside of the pictures.</p><div class=\"grid\">\n", f);
    c.title = "ELBO";
    c.note = known ? note : NULL;
    learning_curve(c, &data, 1, known ? r->target->log_z : (double)NAN);
    c.title = "Median energy";
    c.note = NULL;
    learning_curve(c, &data, 2, (double)NAN);
    c.title = "Loss";
    c.note = "log scale";
    c.log_y = true;
    learning_curve(c, &data, 0, (double)NAN);
    fputs("</div>\n", f);
}

/* ==== two-dimensional targets ======================================================================= */

/* exp(-E/tau) at the centres of the cells, sum 1; returns the largest */
static double target_density(const report *r, double half, double *p)
{
    double sum = 0.0, least = HUGE_VAL;
    for (int i = 0; i < CELLS * CELLS; ++i) {
        float x[2], e = 0.0f;
        x[0] = (float)(half * (2.0 * (i % CELLS + 0.5) / CELLS - 1.0));
        x[1] = (float)(half * (2.0 * (i / CELLS + 0.5) / CELLS - 1.0));
        r->target->eval(r->target->user, x, 1, 2, &e, NULL);
        p[i] = (double)e / (double)r->config->tau;
        if (p[i] < least) least = p[i];
    }
    for (int i = 0; i < CELLS * CELLS; ++i) sum += p[i] = exp(least - p[i]);
    return normalise(p, sum);
}

static void sample_density(const report *r, double half, double *p)
{
    memset(p, 0, CELLS * CELLS * sizeof *p);
    for (int i = 0; i < r->n; ++i) {
        double u = ((double)r->x[2 * i] / half + 1.0) * CELLS / 2.0,
        v = ((double)r->x[2 * i + 1] / half + 1.0) * CELLS / 2.0;
        if (u >= 0.0 && u < CELLS && v >= 0.0 && v < CELLS) p[(int)v * CELLS + (int)u] += 1.0;
    }
    normalise(p, r->n);
}

static double noise_density(double sigma, double half, double *p)
{
    double sum = 0.0;
    for (int i = 0; i < CELLS * CELLS; ++i) {
        double x = half * (2.0 * (i % CELLS + 0.5) / CELLS - 1.0),
        y = half * (2.0 * (i / CELLS + 0.5) / CELLS - 1.0);
        sum += p[i] = exp(-(x * x + y * y) / (2.0 * sigma * sigma));
    }
    return normalise(p, sum);
}

static void plane_section(const report *r, FILE *f, double *p)
{
    double half = r->target->plot_half, top;
    chart c = { .f = f, .w = 400.0, .h = 400.0, .left = 32.0, .x0 = -half, .x1 = half, .y0 = -half,
                .y1 = half,
                .frame = true, .x_label = "" };
    fputs("<h2>From noise to samples</h2><p>Equal axes everywhere. Samples and target share one colour "
          "scale; darker "
          "is denser (lighter, in dark mode).</p><div class=\"grid wide\">\n", f);
    c.title = "Noise";
    c.note = "where a sample starts";
    chart_begin(&c);
    top = noise_density(r->stats.init_sigma, half, p);
    density(&c, p, top);
    chart_end(&c);
    c.title = "Paths";
    c.note = "<i class=\"sw sa\"></i>on the way<i class=\"sw sb\"></i>arrived";
    chart_begin(&c);
    if (r->path) trails(&c, r->path, r->config->steps, r->paths, r->paths);
    chart_end(&c);
    top = target_density(r, half, p);
    sample_density(r, half, p);
    c.title = "Samples";
    c.note = "a histogram";
    chart_begin(&c);
    density(&c, p, top);
    chart_end(&c);
    c.title = "Target";
    c.note = "the exact density";
    chart_begin(&c);
    target_density(r, half, p);
    density(&c, p, top);
    chart_end(&c);
    fputs("</div>\n", f);
}

/* ==== histograms ==================================================================================== */

static int energies(const report *r, const float *x, int n, double *out)
{
    float e = 0.0f;
    for (int i = 0; i < n; ++i) {
        r->target->eval(r->target->user, x + (size_t)i * (size_t)r->target->dim, 1, r->target->dim, &e,
                          NULL);
        out[i] = (double)e;
    }
    return n;
}

/* At most `room` distances, of the first rows. */
static int distances(const report *r, const float *x, int n, double *out, int room)
{
    int d = r->target->space_dim, p = r->target->particles, m = 0;
    for (int row = 0; row < n && m + p * (p - 1) / 2 <= room; ++row, x += r->target->dim)
        for (int i = 0; i < p; ++i)
            for (int j = 0; j < i; ++j) {
                double square = 0.0;
                for (int k = 0; k < d; ++k) square += pow((double)(x[i * d + k] - x[j * d + k]), 2.0);
                out[m++] = sqrt(square);
            }
    return m;
}

static int column(const report *r, const float *x, int n, int k, double *out)
{
    for (int i = 0; i < n; ++i) out[i] = (double)x[(size_t)i * (size_t)r->target->dim + (size_t)k];
    return n;
}

/* a and b: room for max(n, n_ref) numbers each */
static void histogram_section(const report *r, FILE *f, double *a, double *b, int room)
{
    int n = r->n, m = r->ref ? r->n_ref : 0, shown = r->target->dim < 5 ? r->target->dim : 5;
    chart c = { .f = f, .w = 290.0, .h = 170.0, .left = 10.0, .title = "Energy", .x_label = "E(x)" };
    char title[32];
    fprintf(f, "<h2>Histograms</h2><p><i class=\"sw sa\"></i>samples%s</p><div class=\"grid%s\">\n",
            m ? "<i class=\"sw sb\"></i>reference samples" : "", r->target->particles ? " wide" : "");
    if (r->target->particles) c.w = 430.0;
    histogram_chart(c, a, energies(r, r->x, n, a), b, energies(r, r->ref, m, b));
    if (r->target->particles) {
        c.title = "Pair distance";
        c.x_label = "distance";
        histogram_chart(c, a, distances(r, r->x, n, a, room), b, distances(r, r->ref, m, b, room));
    } else for (int k = 0; k < shown; ++k) {
        snprintf(title, sizeof title, "Coordinate %d", k + 1);
        c.title = title;
        c.x_label = "";
        histogram_chart(c, a, column(r, r->x, n, k, a), b, column(r, r->ref, m, k, b));
    }
    fputs("</div>\n", f);
}

static void modes_section(const metrics *m, FILE *f)
{
    double fair = 1.0 / m->modes, chance = 2.0 * sqrt(fair * (1.0 - fair) / m->n), most = fair + 2.0 * chance;
    chart c = { .f = f, .w = 910.0, .h = 190.0, .left = 40.0, .x_label = "mode", .whole = true,
                .title = "Share of the samples nearest to each mode",
                .note = "<i class=\"sw sb\"></i>equal shares, with two standard deviations of chance" };
    for (int k = 0; k < m->modes; ++k) if (m->mode_weight[k] > most) most = m->mode_weight[k];
    c.x0 = 0.4;
    c.x1 = m->modes + 0.6;
    c.y1 = 1.12 * most;
    fputs("<h2>Modes</h2><p>A sampler that forgets a mode still has good energies; this is where it "
          "shows.</p>"
          "<div class=\"grid one\">\n", f);
    chart_begin(&c);
    for (int k = 0; k < m->modes; ++k) {
        double left = chart_x(&c, k + 0.65), y = chart_y(&c, m->mode_weight[k]);
        fprintf(f, "<rect class=\"bar\" rx=\"2\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                left, y, chart_x(&c, k + 1.35) - left, c.h - y);
    }
    fprintf(f, "<rect class=\"band\" x=\"0\" y=\"%.1f\" width=\"%g\" height=\"%.1f\"/>",
            chart_y(&c, fair + chance), c.w, chart_y(&c, fair - chance) - chart_y(&c, fair + chance));
    fprintf(f, "<path class=\"b dash\" d=\"M0 %.1fh%g\"/>\n", chart_y(&c, fair), c.w);
    chart_end(&c);
    fputs("</div>\n", f);
}

/* ==== tables ======================================================================================== */

static void metrics_section(const evaluation *e, FILE *f)
{
    char v[32], b[32], s[32], q[32];
    fprintf(f, "<h2>Metrics</h2><p>No metric is zero for a perfect sampler, because samples are finite. The "
               "floor is what "
            "reference samples score against other reference samples at the same %d rows: a ratio near 1 "
            "cannot be told "
            "from perfect, and a ratio of 3 is three times the error of pure chance.</p>\n", e->value.n);
    fputs("<div class=\"scroll\"><table><thead><tr><th>metric</th><th class=\"num\">value</th><th "
          "class=\"num\">floor</th>"
          "<th class=\"num\">ratio</th></tr></thead><tbody>\n", f);
    for (int i = 0; i < METRICS; ++i) {
        double value = metric_of(&e->value, i), base = metric_of(&e->floor, i);
        if (!metric_applies(e, i)) continue;
        number(value / base, q);
        if (!isnan(value / base)) snprintf(q, sizeof q, "%.2f", value / base);
        fprintf(f, "<tr><td>%s<small>%s</small></td><td class=\"num\">%s</td><td "
                   "class=\"num\">%s<small>&plusmn; %s</small></td>"
                "<td class=\"num\"><b>%s</b></td></tr>\n", metric_list[i].label, metric_list[i].meaning,
                number(value, v),
                number(base, b), number(metric_of(&e->spread, i), s), q);
    }
    fputs("</tbody></table></div>\n", f);
}

static void configuration_section(const report *r, FILE *f)
{
    char text[32];
    fputs("<h2>Configuration</h2><p>Every field, defaults filled in.</p><div class=\"scroll conf\">\n", f);
    for (int i = 0; vgs_field_name(i); ++i) {
        vgs_field_get(r->config, i, text);
        fewest_digits(text);
        fact(f, vgs_field_name(i), vgs_field_help(i), text);
    }
    fputs("</div>\n", f);
}

static void run_section(const report *r, FILE *f)
{
    char text[64];
    fputs("<h2>Run</h2><p>What it took, and where.</p><div class=\"scroll conf\">\n", f);
    fact(f, "preset", "settings to start from", r->preset);
    snprintf(text, sizeof text, "%lld", (long long)r->stats.iteration);
    fact(f, "iterations", "of training", text);
    snprintf(text, sizeof text, "%.1f", r->seconds);
    fact(f, "seconds", "wall time, with measuring", text);
    snprintf(text, sizeof text, "%.4g", r->stats.energy_calls);
    fact(f, "energy calls", "energies computed in training", text);
    snprintf(text, sizeof text, "%d", r->threads);
    fact(f, "threads", "of the processor", text);
    fact(f, "kernels", "chosen for this processor", vgs_isa_name(vgs_cpu_isa()));
    snprintf(text, sizeof text, "%d.%d.%d", VGS_VERSION_MAJOR, VGS_VERSION_MINOR, VGS_VERSION_PATCH);
    fact(f, "vgs.h", "version", text);
    if (r->metrics) {
        fact(f, "energy mean", "of the samples", number(r->metrics->value.energy_mean, text));
        fact(f, "reference energy mean", "of the reference samples",
             number(r->metrics->value.reference_energy_mean, text));
    }
    fputs("</div>\n", f);
}

/* ==== the page ====================================================================================== */

static void weight_figures(const report *r, FILE *f)
{
    const vgs_weights *w = r->weights;
    char value[64], note[64];
    if (!w) return;
    snprintf(value, sizeof value, "%.3f", w->elbo);
    snprintf(note, sizeof note, "&plusmn; %.2g, at most log Z", w->elbo_se);
    key_figure(f, "ELBO", isfinite(w->elbo) ? value : "-", note);
    snprintf(value, sizeof value, "%.3f", w->log_z);
    snprintf(note, sizeof note, "&plusmn; %.2g, from path weights", w->log_z_se);
    if (r->target->log_z_known && r->config->tau == 1.0f)
        snprintf(note, sizeof note, "&plusmn; %.2g; true: %.4g", w->log_z_se, r->target->log_z);
    key_figure(f, "log Z", isfinite(w->log_z) ? value : "-", note);
    snprintf(value, sizeof value, "%.3f", w->ess);
    key_figure(f, "ESS/N", value, "share of samples that count");
    if (isfinite(w->khat)) snprintf(value, sizeof value, "%.2f", w->khat);
    key_figure(f, "k-hat", isfinite(w->khat) ? value : "-", "of the weights; usable below 0.7");
    if (!r->forward) return;
    snprintf(value, sizeof value, "%.3f", r->forward->log_z);
    snprintf(note, sizeof note, "&plusmn; %.2g; EUBO %.4g", r->forward->log_z_se, r->forward->eubo);
    key_figure(f, "log Z, forward", isfinite(r->forward->log_z) ? value : "-", note);
}

static void page_head(const report *r, FILE *f)
{
    char value[64], note[96], calls[32], says[200];
    page_begin(f);
    html_text(f, r->target->name);
    fputs(" - Value Gradient Sampler", f);
    page_style_end(f);
    fputs("<p class=\"eyebrow\">Value Gradient Sampler</p><h1>", f);
    html_text(f, r->target->name);
    fputs("</h1><p>", f);
    html_text(f, r->target->summary);
    fputs("</p></header><dl class=\"key\">\n", f);
    weight_figures(r, f);
    key_figure(f, "Median energy", number(r->stats.energy_median, value), "of samples, last measurement");
    snprintf(value, sizeof value, "%lld", (long long)r->stats.iteration);
    snprintf(note, sizeof note, "%d steps, batch %d, %s energy calls", r->config->steps, r->config->batch,
             count_text(r->stats.energy_calls, calls));
    key_figure(f, "Iterations", value, note);
    snprintf(note, sizeof note, "%d thread%s, %s", r->threads, r->threads == 1 ? "" : "s",
             vgs_isa_name(vgs_cpu_isa()));
    key_figure(f, "Time", duration(r->seconds, value), note);
    fputs("</dl>\n", f);
    if (!r->weights) return;
    vgs_weights_say(r->weights, r->forward, says);
    fprintf(f, "<p>Can the samples be trusted? By the path weights: %s%s%s.</p>\n", says,
            *r->doubt ? "; " : "", r->doubt);
}

/* The report from what is in r and the log; the page replaces an older one only when it is complete. */
static vgs_status report_write(const report *r, const char *log_path, const char *path, vgs_error *err)
{
    int pairs = r->target->particles * (r->target->particles - 1) / 2,
    room = r->n > r->n_ref ? r->n : r->n_ref;
    double *a, *b;
    vgs_file f;
    vgs_status st = vgs_file_begin(&f, path, err);
    if (st != VGS_OK) return st;
    if (room < CELLS * CELLS) room = CELLS * CELLS;
    if (room < 10000 * pairs) room = pairs < 100 ? 10000 * pairs : 1000000;
    a = malloc((size_t)room * sizeof *a);
    b = malloc((size_t)room * sizeof *b);
    if (a && b) {
        page_head(r, f.stream);
        learning_section(r, log_path, f.stream);
        if (r->target->dim == 2 && r->target->plot_half > 0.0) plane_section(r, f.stream, a);
        histogram_section(r, f.stream, a, b, room);
        if (r->metrics && r->metrics->value.modes) modes_section(&r->metrics->value, f.stream);
        if (r->metrics) metrics_section(r->metrics, f.stream);
        configuration_section(r, f.stream);
        run_section(r, f.stream);
        fprintf(f.stream, "<footer>Written by examples/train.c of vgs.h "
                          "%d.%d.%d.</footer></main></body></html>\n",
                VGS_VERSION_MAJOR, VGS_VERSION_MINOR, VGS_VERSION_PATCH);
        st = vgs_file_commit(&f, err);
    } else {
        err->code = st = VGS_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "%.200s: out of memory", path);
    }
    vgs_file_discard(&f);
    free(a);
    free(b);
    return st;
}

#endif /* REPORT_H */
