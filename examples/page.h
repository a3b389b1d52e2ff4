/* page.h - what the programs' reports are made of: one HTML file with its pictures inside, no script, works
   offline. Include it after common.h. A picture is an inline SVG: chart_begin draws axes and opens the plot
   area, whose coordinates begin at its top left corner and which cuts off what lies outside. All is static
   inline because no program uses all of it. */
#ifndef PAGE_H
#define PAGE_H

enum { CELLS = 100, LEVELS = 9, BINS = 64, CURVE_POINTS = 400 };

/* ==== the look ====================================================================================== */

static const char *const page_style[] = {
    ":root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#1b1f27;--soft:#667080;\n",
    "--line:#e5e5df;--a:#2a5bd0;--fill:#2a5bd033;--b:#d9661f;--q1:#e6eef9;--q2:#cadcf2;--q3:#a5c6e9;\n",
    "--q4:#78abdd;--q5:#4d8ecd;--q6:#2d70b7;--q7:#18559b;--q8:#0d3d7c;--q9:#08285c}\n",
    "@media(prefers-color-scheme:dark){:root{--bg:#121419;--card:#1a1d23;--ink:#e7e9ec;--soft:#98a1ae;\n",
    "--line:#2c313a;--a:#82a8ff;--fill:#82a8ff3a;--b:#f2a063;--q1:#17253c;--q2:#1c3556;--q3:#224874;\n",
    "--q4:#295e97;--q5:#3777ba;--q6:#5493d4;--q7:#7fb2e7;--q8:#b0d1f4;--q9:#e8f3ff}}\n",
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);\n",
    "-webkit-text-size-adjust:100%;font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,\n",
    "'Helvetica Neue',Arial,sans-serif}main{max-width:1040px;margin:0 auto;padding:48px 20px 64px}\n",
    "h1{font-size:40px;line-height:1.1;margin:4px 0 8px;letter-spacing:-.02em;font-weight:680}\n",
    "h2{font-size:20px;margin:52px 0 4px;letter-spacing:-.01em}p{margin:0 0 16px;max-width:70ch}.soft,\n",
    "header p,h2+p{color:var(--soft)}.eyebrow{font-size:13px;letter-spacing:.04em;color:var(--soft);\n",
    "margin:0}.key{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;\n",
    "background:var(--line);border:1px solid var(--line);border-radius:12px;overflow:hidden;\n",
    "margin:28px 0 0}.key div{background:var(--card);padding:14px 18px}.key dt{font-size:13px;\n",
    "color:var(--soft)}.key dd{margin:2px 0 0;font-size:24px;line-height:1.25;font-weight:620;\n",
    "letter-spacing:-.01em;font-variant-numeric:tabular-nums}.key small{display:block;font-size:12.5px;\n",
    "font-weight:400;letter-spacing:0;color:var(--soft)}.grid{display:grid;\n",
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,290px),1fr));gap:16px}\n",
    ".wide{grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}\n",
    ".one{grid-template-columns:1fr}figure{margin:0;background:var(--card);\n",
    "border:1px solid var(--line);border-radius:12px;padding:14px 16px 10px;min-width:0}\n",
    "figcaption{font-size:14px;font-weight:600;margin-bottom:8px}figcaption span{font-weight:400;\n",
    "color:var(--soft);margin-left:6px}svg{display:block;width:100%;height:auto}text{font-size:11px;\n",
    "fill:var(--soft);font-variant-numeric:tabular-nums}.end{text-anchor:end}.mid{text-anchor:middle}\n",
    ".g{stroke:var(--line);stroke-width:1;fill:none}.axis{stroke:var(--soft);stroke-width:1;fill:none;\n",
    "opacity:.55}.a{fill:none;stroke:var(--a);stroke-width:1.75;stroke-linejoin:round}.b{fill:none;\n",
    "stroke:var(--b);stroke-width:1.75;stroke-linejoin:round}.dash{stroke-dasharray:5 4}\n",
    ".area{fill:var(--fill);stroke:none}.bar{fill:var(--a)}.band{fill:var(--b);opacity:.18}\n",
    ".dot{fill:var(--b)}.trail{fill:none;stroke:var(--a);stroke-width:.8;stroke-opacity:.45;\n",
    "stroke-linejoin:round}.q{shape-rendering:crispEdges}.q1{fill:var(--q1)}.q2{fill:var(--q2)}\n",
    ".q3{fill:var(--q3)}.q4{fill:var(--q4)}.q5{fill:var(--q5)}.q6{fill:var(--q6)}.q7{fill:var(--q7)}\n",
    ".q8{fill:var(--q8)}.q9{fill:var(--q9)}.sw{display:inline-block;width:14px;height:3px;\n",
    "border-radius:2px;vertical-align:middle;margin:0 6px 0 14px}p .sw:first-child{margin-left:0}\n",
    ".sa{background:var(--a)}.sb{background:var(--b)}.scroll{overflow-x:auto;background:var(--card);\n",
    "border:1px solid var(--line);border-radius:12px;padding:4px 18px}table{border-collapse:collapse;\n",
    "width:100%;font-variant-numeric:tabular-nums;font-size:15px}th{font-size:13px;font-weight:500;\n",
    "color:var(--soft);text-align:left;padding:10px 16px 8px 0}td{padding:9px 16px 9px 0;\n",
    "border-top:1px solid var(--line);vertical-align:baseline}td:last-child,\n",
    "th:last-child{padding-right:0}.num{text-align:right;white-space:nowrap}td small{display:block;\n",
    "color:var(--soft);font-size:13px;line-height:1.35}.conf{columns:2;column-gap:40px;\n",
    "padding:10px 18px}.conf div{display:flex;justify-content:space-between;gap:14px;padding:5px 0;\n",
    "break-inside:avoid;font-size:14px;border-bottom:1px solid var(--line)}\n",
    ".conf span{color:var(--soft);font-size:13px;display:block}.conf b{font-weight:560;\n",
    "font-variant-numeric:tabular-nums;white-space:nowrap}footer{margin-top:56px;font-size:13px;\n",
    "color:var(--soft)}@media(max-width:640px){main{padding:28px 14px 48px}h1{font-size:32px}\n",
    ".conf{columns:1}.key{grid-template-columns:1fr 1fr}.key dd{font-size:20px}\n",
    ".key div:last-child:nth-child(odd){grid-column:1/-1}td,th{padding-right:10px}\n",
    ".scroll{padding:4px 12px}}\n"
};

/* Everything of a page before its first heading's words. */
static inline void page_begin(FILE *f)
{
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width,initial-scale=1\"><title>", f);
}

/* After the title: the style, and the body up to what stands above the heading. */
static inline void page_style_end(FILE *f)
{
    fputs("</title><style>\n", f);
    for (size_t i = 0; i < sizeof page_style / sizeof *page_style; ++i) fputs(page_style[i], f);
    fputs("</style></head><body><main><header>", f);
}

/* ==== numbers and text ============================================================================== */

/* The number after "key": in a line of log.jsonl; NaN for null and for a key that is not there. */
static inline double log_number(const char *line, const char *key)
{
    char quoted[64];
    const char *p;
    char *end;
    double v;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    p = strstr(line, quoted);
    if (!p) return (double)NAN;
    p += strlen(quoted);
    v = strtod(p, &end);
    return end > p ? v : (double)NAN;
}

static inline void html_text(FILE *f, const char *s)
{
    for (; *s; ++s) {
        if (*s == '<') fputs("&lt;", f);
        else if (*s == '>') fputs("&gt;", f);
        else if (*s == '&') fputs("&amp;", f);
        else if (*s == '"') fputs("&quot;", f);
        else fputc(*s, f);
    }
}

/* 0.05, 1,500, 30k, 2M, 3e-05 */
static const char *tick_text(double v, char text[32])
{
    double size = fabs(v);
    if (size < 1e-12) snprintf(text, 32, "0");
    else if (size >= 1e6 && size < 1e9) snprintf(text, 32, "%gM", v / 1e6);
    else if (size >= 1e4 && size < 1e6) snprintf(text, 32, "%gk", v / 1e3);
    else snprintf(text, 32, "%.6g", v);
    return text;
}

/* Sorts v [n], drops what is not finite from it, and returns how many are left. */
static inline int sort_finite(double *v, int n)
{
    int m = 0;
    for (int i = 0; i < n; ++i)
        if (isfinite(v[i])) v[m++] = v[i];
    qsort(v, (size_t)m, sizeof *v, compare_doubles);
    return m;
}

static inline double quantile(const double *sorted, int n, double q)
{
    return n ? sorted[(int)(q * (n - 1) + 0.5)] : (double)NAN;
}

/* 812, 15.4k, 1.05M, 3.2e+09 */
static inline const char *count_text(double v, char text[32])
{
    if (v < 1e4) snprintf(text, 32, "%.0f", v);
    else if (v < 1e6) snprintf(text, 32, "%.3gk", v / 1e3);
    else if (v < 1e9) snprintf(text, 32, "%.3gM", v / 1e6);
    else snprintf(text, 32, "%.3g", v);
    return text;
}

/* ==== charts ======================================================================================== */

typedef struct chart {
    FILE  *f;
    const char *title, *note, *x_label;
    double w, h;                         /* of the plot area, in the picture's units                     */
    double left;                         /* margin for the numbers on the y axis; small: no numbers      */
    double x0, x1, y0, y1;               /* the values at its edges                                      */
    bool   log_y, frame;                 /* frame: a border in place of grid lines                       */
    bool   whole;                        /* x counts: ticks at whole numbers only                        */
} chart;

static const double margin_top = 8.0, margin_right = 16.0, margin_bottom = 36.0;

/* Far outside is as good as infinitely far: it is cut off, and the file stays small. */
static inline double inside(double v, double size)
{
    return v < -size ? -size : v > 2.0 * size ? 2.0 * size : v;
}

static inline double chart_x(const chart *c, double x)
{
    return inside((x - c->x0) / (c->x1 - c->x0) * c->w, c->w);
}

static inline double chart_y(const chart *c, double y)
{
    double u = c->log_y ? log(y / c->y0) / log(c->y1 / c->y0) : (y - c->y0) / (c->y1 - c->y0);
    return inside(c->h - u * c->h, c->h);
}

/* 1, 2 or 5 times a power of ten, so that `range` has about `count` ticks */
static inline double tick_step(double range, double count)
{
    double raw = range / count, power = pow(10.0, floor(log10(raw))), u = raw / power;
    return power * (u < 1.5 ? 1.0 : u < 3.5 ? 2.0 : u < 7.5 ? 5.0 : 10.0);
}

static inline void chart_y_tick(const chart *c, double v)
{
    char text[32];
    double y = margin_top + chart_y(c, v);
    if (c->left < 20.0) return;
    if (!c->frame) fprintf(c->f, "<path class=\"g\" d=\"M%g %.1fh%g\"/>", c->left, y, c->w);
    fprintf(c->f, "<text class=\"end\" x=\"%g\" y=\"%.1f\">%s</text>\n", c->left - 7.0, y + 4.0,
            tick_text(v, text));
}

static inline void chart_ticks(const chart *c)
{
    char text[32];
    double step = tick_step(c->x1 - c->x0, c->w / 62.0);
    if (c->whole && step < 1.0) step = 1.0;
    for (double v = ceil(c->x0 / step - 1e-6) * step; v <= c->x1 + 1e-6 * step; v += step)
        fprintf(c->f, "<text class=\"mid\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", c->left + chart_x(c, v),
                margin_top + c->h + 16.0, tick_text(fabs(v) < 1e-9 * step ? 0.0 : v, text));
    if (c->log_y) {
        double decades = log10(c->y1 / c->y0), every = decades > 5.0 ? ceil(decades / 5.0) : 1.0;
        for (double d = floor(log10(c->y0)); d <= log10(c->y1); d += every)
            for (int k = 1; k <= (decades < 2.0 ? 5 : 1); k += k < 2 ? 1 : 3)            /* 1, 2, 5 */
                if (k * pow(10.0, d) >= c->y0 * 0.999 && k * pow(10.0, d) <= c->y1 * 1.001)
                    chart_y_tick(c, k * pow(10.0, d));
        return;
    }
    step = tick_step(c->y1 - c->y0, c->h / 42.0);
    for (double v = ceil(c->y0 / step - 1e-6) * step; v <= c->y1 + 1e-6 * step; v += step)
        chart_y_tick(c, fabs(v) < 1e-9 * step ? 0.0 : v);
}

static inline void chart_begin(const chart *c)
{
    fprintf(c->f, "<figure><figcaption>%s<span>%s</span></figcaption>\n", c->title, c->note ? c->note : "");
    fprintf(c->f, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n",
            c->left + c->w + margin_right,
            margin_top + c->h + margin_bottom, c->title);
    chart_ticks(c);
    if (c->frame) fprintf(c->f, "<path class=\"g\" d=\"M%g %gh%gv%gh-%gz\"/>", c->left, margin_top, c->w,
                          c->h, c->w);
    else fprintf(c->f, "<path class=\"axis\" d=\"M%g %gh%g\"/>", c->left, margin_top + c->h, c->w);
    fprintf(c->f, "<text class=\"mid\" x=\"%g\" y=\"%g\">%s</text>\n", c->left + c->w / 2.0,
            margin_top + c->h + 32.0, c->x_label);
    fprintf(c->f, "<svg x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\">\n", c->left, margin_top, c->w, c->h);
}

static inline void chart_end(const chart *c)
{
    fputs("</svg></svg></figure>\n", c->f);
}

/* ==== learning curves =============================================================================== */

enum { CURVES = 12 };
typedef struct curves { int n; double iteration[CURVE_POINTS], y[CURVES][CURVE_POINTS]; } curves;

/* Reads these keys of the log; when it grows too long, every other point is dropped, and from then on only
   every other line is taken, and so on. */
static inline void read_curves(const char *log_path, const char *const *keys, int n_keys, curves *c)
{
    FILE *f = fopen(log_path, "rb");
    char line[1024];
    long count = 0, every = 1;
    c->n = 0;
    for (; f && fgets(line, sizeof line, f); ++count) {
        if (count % every) continue;
        if (c->n == CURVE_POINTS) {
            for (int i = 0; i < CURVE_POINTS / 2; ++i) {
                c->iteration[i] = c->iteration[2 * i];
                for (int k = 0; k < n_keys; ++k) c->y[k][i] = c->y[k][2 * i];
            }
            c->n /= 2;
            every *= 2;
            if (count % every) continue;
        }
        c->iteration[c->n] = log_number(line, "iteration");
        for (int k = 0; k < n_keys; ++k) c->y[k][c->n] = log_number(line, keys[k]);
        if (isfinite(c->iteration[c->n])) ++c->n;
    }
    if (f) fclose(f);
}

/* The first values are often so bad that nothing else could be seen: the range is that of the better part,
   and half as much again towards the side of the worse. */
static inline void curve_range(chart *c, const double *y, int n, bool up)
{
    double sorted[CURVE_POINTS], lo, hi;
    memcpy(sorted, y, (size_t)n * sizeof *y);
    n = sort_finite(sorted, n);
    lo = quantile(sorted, n, c->log_y ? 0.0 : up ? 0.15 : 0.0);
    hi = quantile(sorted, n, c->log_y ? 1.0 : up ? 1.0 : 0.85);
    if (up) lo -= 0.5 * (hi - lo);
    else hi += 0.5 * (hi - lo);
    if (n && lo < sorted[0]) lo = sorted[0];
    if (n && hi > sorted[n - 1]) hi = sorted[n - 1];
    c->y0 = lo;
    c->y1 = hi;
}

static inline void widen(chart *c)
{
    double room = 0.06 * (c->y1 - c->y0);
    if (c->log_y) {
        c->y0 = c->y0 > 0.0 ? c->y0 / 1.3 : 1e-12;
        c->y1 = c->y1 > c->y0 ? c->y1 * 1.3 : c->y0 * 10.0;
        return;
    }
    if (!(room > 0.0)) room = isfinite(c->y0) && fabs(c->y0) > 1.0 ? 0.1 * fabs(c->y0) : 1.0;
    if (!isfinite(c->y0) || !isfinite(c->y1)) c->y0 = c->y1 = 0.0;
    c->y0 -= room;
    c->y1 += room;
}

static inline void learning_curve(chart c, const curves *data, int which, double line)
{
    bool down = false;
    curve_range(&c, data->y[which], data->n, which == 1);
    if (isfinite(line) && line > c.y1) c.y1 = line;
    widen(&c);
    c.x0 = 0.0;
    c.x1 = data->n ? data->iteration[data->n - 1] : 1.0;
    chart_begin(&c);
    if (isfinite(line)) fprintf(c.f, "<path class=\"b dash\" d=\"M0 %.1fh%g\"/>", chart_y(&c, line), c.w);
    fputs("<path class=\"a\" d=\"", c.f);
    for (int i = 0; i < data->n; ++i) {
        double y = data->y[which][i];
        bool ok = isfinite(y) && !(c.log_y && y <= 0.0);
        if (ok) fprintf(c.f, "%c%.1f %.1f", down ? 'L' : 'M', chart_x(&c, data->iteration[i]),
                        chart_y(&c, y));
        down = ok;
    }
    fputs("\"/>\n", c.f);
    chart_end(&c);
}

/* ==== densities in the plane ========================================================================= */

/* Cells of equal colour that touch along a row become one rectangle, all of a colour one path. The square
   root keeps thin regions visible. */
static inline void density(const chart *c, const double *p, double top)
{
    const double cell = c->w / CELLS;
    for (int level = 1; level <= LEVELS; ++level) {
        fprintf(c->f, "<path class=\"q q%d\" transform=\"scale(%.4g)\" d=\"", level, cell);
        for (int y = 0; y < CELLS; ++y)
            for (int x = 0, run = 0; x <= CELLS; ++x) {
                double u = x < CELLS ? LEVELS * sqrt(p[y * CELLS + x] / top) + 0.5 : 0.0;
                bool in = (u >= LEVELS ? LEVELS : (int)u) == level;
                if (!in && run) fprintf(c->f, "M%d %dh%dv1h-%dz", x - run, CELLS - 1 - y, run, run);
                run = in ? run + 1 : 0;
            }
        fputs("\"/>\n", c->f);
    }
}

/* The first `shown` paths of path [steps + 1,n,2], and where they end. */
static inline void trails(const chart *c, const float *path, int steps, int n, int shown)
{
    for (int k = 0; k < shown; ++k) {
        const float *last = path + 2 * ((size_t)steps * (size_t)n + (size_t)k);
        fputs("<path class=\"trail\" d=\"", c->f);
        for (int t = 0; t <= steps; ++t) {
            const float *x = path + 2 * ((size_t)t * (size_t)n + (size_t)k);
            fprintf(c->f, "%c%.1f %.1f", t ? 'L' : 'M', chart_x(c, (double)x[0]), chart_y(c, (double)x[1]));
        }
        fprintf(c->f, "\"/><circle class=\"dot\" r=\"2.2\" cx=\"%.1f\" cy=\"%.1f\"/>\n",
                chart_x(c, (double)last[0]), chart_y(c, (double)last[1]));
    }
}

static inline double normalise(double *p, double sum)
{
    double top = 0.0;
    for (int i = 0; i < CELLS * CELLS; ++i) {
        p[i] /= sum;
        if (p[i] > top) top = p[i];
    }
    return top;
}

/* ==== histograms ==================================================================================== */

/* Densities of v [n] in BINS bins over [c->x0, c->x1]; returns the share outside. */
static inline double histogram(const chart *c, const double *v, int n, double out[BINS])
{
    double width = (c->x1 - c->x0) / BINS;
    int count[BINS] = { 0 }, in = 0;
    for (int i = 0; i < n; ++i) {
        double u = (v[i] - c->x0) / width;
        if (u >= 0.0 && u < BINS) { ++count[(int)u]; ++in; }
    }
    for (int i = 0; i < BINS; ++i) out[i] = n ? count[i] / (n * width) : 0.0;
    return n ? 1.0 - (double)in / n : 0.0;
}

static inline void steps_path(const chart *c, const double h[BINS], const char *class_name, bool closed)
{
    fprintf(c->f, "<path class=\"%s\" d=\"M0 %.1f", class_name, c->h);
    for (int i = 0; i < BINS; ++i) fprintf(c->f, "V%.1fH%.1f", chart_y(c, h[i]), (i + 1) * c->w / BINS);
    fprintf(c->f, "V%.1f%s\"/>\n", c->h, closed ? "z" : "");
}

/* a [n] over b [m] (m = 0: none); both get sorted. The range is b's without its tails. */
static inline void histogram_chart(chart c, double *a, int n, double *b, int m)
{
    double ha[BINS], hb[BINS], room, outside, most = 0.0;
    char note[64];
    int na = sort_finite(a, n), nb = sort_finite(b, m);
    c.x0 = nb ? quantile(b, nb, 0.004) : quantile(a, na, 0.01);
    c.x1 = nb ? quantile(b, nb, 0.996) : quantile(a, na, 0.99);
    if (!(c.x1 > c.x0)) { c.x0 = -1.0; c.x1 = 1.0; }
    room = 0.04 * (c.x1 - c.x0);
    c.x0 -= room;
    c.x1 += room;
    outside = histogram(&c, a, na, ha);
    outside = n ? 1.0 - (1.0 - outside) * na / n : 0.0;
    histogram(&c, b, nb, hb);
    c.y0 = c.y1 = 0.0;
    for (int i = 0; i < BINS; ++i) {
        if (ha[i] > c.y1) c.y1 = ha[i];
        if (hb[i] > most) most = hb[i];
    }
    if (nb && c.y1 > 2.5 * most) c.y1 = 2.5 * most;                  /* a collapsed sampler must not hide b */
    if (c.y1 < most) c.y1 = most;
    c.y1 = c.y1 > 0.0 ? 1.08 * c.y1 : 1.0;
    snprintf(note, sizeof note, "%.2g %% of the samples lie outside", 100.0 * outside);
    c.note = outside > 0.015 ? note : NULL;
    chart_begin(&c);
    steps_path(&c, ha, "area", true);
    steps_path(&c, ha, "a", false);
    if (nb) steps_path(&c, hb, "b", false);
    chart_end(&c);
}

/* ==== figures and facts ============================================================================= */

static inline void key_figure(FILE *f, const char *name, const char *value, const char *note)
{
    fprintf(f, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>\n", name, value, note);
}

static inline void fact(FILE *f, const char *name, const char *note, const char *value)
{
    fprintf(f, "<div><div style=\"display:block;border:0;padding:0\">%s<span>%s</span></div><b>", name, note);
    html_text(f, value);
    fputs("</b></div>\n", f);
}

#endif /* PAGE_H */
