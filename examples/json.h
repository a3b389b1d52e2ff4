/* json.h - writes JSON to a stream. Include it after vgs.h.
   Start with json j = { stream, false }. `key` is NULL inside an array and at the top. Numbers read back
   exactly, in any locale; NaN and infinity become null. Bytes that are not UTF-8 become U+FFFD, so that the
   result is JSON whatever the text. All is static inline because no program uses all of it. */
#ifndef JSON_H
#define JSON_H

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct json { FILE *out; bool comma; } json;

/* Bytes of the UTF-8 character at p; 0 if there is none: a form longer than needed, half of a surrogate pair,
   beyond U+10FFFF, or cut short. */
static inline int json_utf8(const unsigned char *p)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    int n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0, i;
    uint32_t u = n > 1 ? *p & 0x7Fu >> n : *p;
    for (i = 1; i < n; ++i) {
        if ((p[i] & 0xC0) != 0x80) return 0;     /* true of the final 0 as well                        */
        u = u << 6 | (p[i] & 0x3Fu);
    }
    return u >= least[n] && u <= 0x10FFFF && (u < 0xD800 || u > 0xDFFF) ? n : 0;
}

static inline void json_text(FILE *out, const char *text)
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const unsigned char *p = (const unsigned char *)text;
    int n;
    fputc('"', out);
    for (; *p; p += n ? n : 1) {
        const char *at = strchr(special, *p);
        n = json_utf8(p);
        if (at) fprintf(out, "\\%c", letter[at - special]);
        else if (!n) fputs("\\ufffd", out);
        else if (*p < 0x20) fprintf(out, "\\u%04x", (unsigned)*p);
        else fwrite(p, 1, (size_t)n, out);
    }
    fputc('"', out);
}

static inline void json_key(json *j, const char *key)
{
    if (j->comma) fputs(", ", j->out);
    j->comma = true;
    if (!key) return;
    json_text(j->out, key);
    fputs(": ", j->out);
}

/* bracket: '{' or '['. */
static inline void json_open(json *j, const char *key, char bracket)
{
    json_key(j, key);
    fputc(bracket, j->out);
    j->comma = false;
}

/* bracket: '}' or ']'. */
static inline void json_close(json *j, char bracket)
{
    fputc(bracket, j->out);
    j->comma = true;
}

/* value NULL: null. */
static inline void json_string(json *j, const char *key, const char *value)
{
    json_key(j, key);
    if (value) json_text(j->out, value);
    else fputs("null", j->out);
}

static inline void json_double(json *j, const char *key, double value)
{
    char text[32];
    json_key(j, key);
    vgs_number_text(value, text);
    fputs(text, j->out);
}

static inline void json_i64(json *j, const char *key, int64_t value)
{
    json_key(j, key);
    fprintf(j->out, "%" PRId64, value);
}

static inline void json_u64(json *j, const char *key, uint64_t value)
{
    json_key(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

/* Ends a line of a .jsonl file. */
static inline void json_line(json *j)
{
    fputc('\n', j->out);
    j->comma = false;
}

#endif /* JSON_H */
