/* cc kernels/embed.c -o embed && ./embed [--check]     (from the top folder; make embed, make test) Writes
   the .cl files of kernels/ into vgs_cl.h, between the two marker lines, as arrays of one string a line;
   --check only tells whether they differ. Refuses what a string or a compiler could take wrongly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER "vgs_cl.h"
#define BEGIN  "/* BEGIN GENERATED KERNELS (by kernels/embed.c from kernels/; do not edit) */\n"
#define END    "/* END GENERATED KERNELS */\n"

static const char *const families[] = { "common", "rows", "whole", "gemm" };
enum { FAMILIES = sizeof families / sizeof *families, MOST = 1 << 20 };

static char header[MOST], made[MOST];
static size_t n_made;

static void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "embed: %s:%d: %s\n", file, line, what);
    exit(1);
}

static void add(const char *text)
{
    size_t n = strlen(text);
    if (n_made + n >= MOST) fail(HEADER, 0, "too long");
    memcpy(made + n_made, text, n + 1);
    n_made += n;
}

/* A line as a string; one that would pass 110 columns becomes two strings side by side. */
static void add_line(const char *file, int number, const char *line)
{
    char one[3] = { 0, 0, 0 };
    size_t n = strlen(line), column = 5;
    if (!n || line[n - 1] != '\n') fail(file, number, "no newline at the end");
    if (n > 111) fail(file, number, "longer than 110 columns");
    add("    \"");
    for (; *line != '\n'; ++line) {
        if (*line < ' ' || *line > '~') fail(file, number, "not ASCII, or a control character");
        one[0] = *line == '"' || *line == '\\' || *line == '?' ? '\\' : *line;
        one[1] = one[0] == *line && *line != '\\' ? 0 : *line;
        add(one);
        column += strlen(one);
        if (column < 104) continue;
        add("\"\n        \"");
        column = 9;
    }
    add("\\n\",\n");
}

static void add_family(const char *name)
{
    char path[80], line[256];
    int number = 0;
    FILE *f;
    snprintf(path, sizeof path, "kernels/%s.cl", name);
    f = fopen(path, "rb");
    if (!f) fail(path, 0, "cannot be read");
    snprintf(line, sizeof line,
             "static const char *const vgs_cl__src_%s[] = {\n    \"#line 1 \\\"%s\\\"\\n\",\n",
             name, path);
    add(line);
    while (fgets(line, sizeof line, f)) add_line(path, ++number, line);
    add("    NULL\n};\n");
    fclose(f);
}

int main(int argc, char **argv)
{
    FILE *f = fopen(HEADER, "rb");
    size_t n = f ? fread(header, 1, MOST - 1, f) : 0;
    char *begin = strstr(header, BEGIN), *end = strstr(header, END);
    int k;
    if (f) fclose(f);
    if (!n || !begin || !end) fail(HEADER, 0, "cannot be read, or has no marker lines");
    begin += strlen(BEGIN);
    for (k = 0; k < FAMILIES; ++k) add_family(families[k]);
    if (n_made == (size_t)(end - begin) && !memcmp(made, begin, n_made)) return 0;
    if (argc > 1 && !strcmp(argv[1], "--check")) fail(HEADER, 0, "differs from kernels/: make embed");
    f = fopen(HEADER ".new", "wb");
    if (!f || fwrite(header, 1, (size_t)(begin - header), f) != (size_t)(begin - header) ||
        fwrite(made, 1, n_made, f) != n_made || fwrite(end, 1, strlen(end), f) != strlen(end) || fclose(f) ||
        rename(HEADER ".new", HEADER)) fail(HEADER, 0, "cannot be written");
    return 0;
}
