/* cc -O2 tests/file.c -o file -lm && ./file
   Files: round trips, damage, hostile headers, full disks, no memory, Python's files.
   ./file FOLDER writes its files there. */
#define _XOPEN_SOURCE 700

#include "weak.h"
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/json.h"
#include "t.h"
#include "vectors/files.h"
#include <locale.h>
#if defined __unix__ || defined __APPLE__
#  include <signal.h>
#  include <sys/resource.h>
#  include <sys/stat.h>
#  include <unistd.h>
#  include <dirent.h>
#  define ON_UNIX
#endif

/* ---- helpers ---- */

static const char *folder = ".";
static vgs_error err;

static const char *in_folder(const char *name)
{
    static char path[16][512];
    static int turn;
    turn = (turn + 1) % 16;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static bool says(const char *text)
{
    bool ok = strstr(err.msg, text) != NULL;
    if (!ok) printf("    the message is: %s\n", err.msg);
    memset(&err, 0, sizeof err);
    return ok;
}

/* Number of files in the folder whose name holds ".tmp-": there must be none when all is done. */
static int leftovers(void)
{
    int n = 0;
#ifdef ON_UNIX
    struct dirent *e;
    DIR *d = opendir(folder);
    if (!d) return -1;
    while ((e = readdir(d)) != NULL) n += strstr(e->d_name, ".tmp-") != NULL;
    closedir(d);
#endif
    return n;
}

static bool same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* ---- bytes and text ---- */

static uint32_t crc_of(const void *data, size_t n)
{
    vgs__crc c;
    vgs__crc_init(&c);
    vgs__crc_add(&c, data, n);
    return vgs__crc_end(&c);
}

static void test_bytes(void)
{
    unsigned char b[8];
    OK(crc_of("123456789", 9) == 0xCBF43926u);
    OK(crc_of("", 0) == 0);
    vgs__file_store_le(b, 0x0102030405060708u, 8);
    OK(b[0] == 8 && b[7] == 1 && vgs__file_load_le(b, 8) == 0x0102030405060708u &&
          vgs__file_load_le(b, 2) == 0x0708);
}

static bool number_is(double x, const char *want)
{
    char text[32];
    vgs_number_text(x, text);
    if (strcmp(text, want) != 0) printf("    %s, not %s\n", text, want);
    return strcmp(text, want) == 0;
}

static void test_numbers(void)
{
    static const char *const bad[] = { "", "-", "01", "1.", ".5", "1e", "1e+", "0x10", "nan", "inf", "1 ",
        " 1", "1,5",
                                       "1e999", "+1" };
    char text[32], comma[3][16] = { "1,5e-05", "-0\xd9\xab\x32\x35", "17" };
    vgs_rng rng = { 1, 0, 0 };
    double x, y = 0;
    float f;
    int i, wrong = 0;
    size_t k;
    OK(number_is(0.1, "0.1") && number_is((double)0.1f, "0.10000000149011612") &&
          number_is(1.0 / 3, "0.3333333333333333"));
    OK(number_is(-0.0, "-0") && number_is(1e300, "1e+300") && number_is(5e-324, "4.94065645841247e-324"));
    OK(number_is(-DBL_MAX, "-1.7976931348623157e+308") && number_is(0.1 + 0.2, "0.30000000000000004"));
    OK(number_is(HUGE_VAL, "null") && number_is(-HUGE_VAL, "null") && number_is(HUGE_VAL - HUGE_VAL, "null"));
    for (i = 0; i < 20000; ++i) {
        uint64_t u = vgs_rng_u64(&rng);
        uint32_t w = (uint32_t)(u >> 32);
        memcpy(&x, &u, 8);
        memcpy(&f, &w, 4);
        if (x - x == 0.0) {
            vgs_number_text(x, text);
            wrong += !vgs__scan_number(text, &y) || memcmp(&x, &y, 8) != 0;
        }
        if (f - f == 0.0f) {
            vgs_number_text((double)f, text);
            wrong += !vgs__scan_number(text, &y) || !same_float(f, (float)y);
        }
    }
    OK(wrong == 0);
    for (k = 0; k < sizeof bad / sizeof *bad; ++k) OK(!vgs__scan_number(bad[k], &y));
    OK(vgs__scan_number("-0.5E+1", &y) && y == -5.0);
    for (i = 0; i < 3; ++i) vgs__scan_decimal_point(comma[i]);
    OK(strcmp(comma[0], "1.5e-05") == 0 && strcmp(comma[1], "-0.25") == 0 && strcmp(comma[2], "17") == 0);
}

/* Where there is a locale with a decimal comma. */
static void test_locale(void)
{
    static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "German" };
    double y = 0;
    size_t i;
    for (i = 0; i < 4 && !setlocale(LC_ALL, names[i]); ++i) ;
    if (i < 4) {
        snprintf(err.msg, 8, "%.1f", 0.5);
        OK(strcmp(err.msg, "0,5") == 0);
        OK(number_is(0.5, "0.5") && number_is(1.5e-5, "1.5e-05"));
        OK(vgs__scan_number("0.25", &y) && y == 0.25 && !vgs__scan_number("0,25", &y));
        setlocale(LC_ALL, "C");
    }
}

static bool read_back(const char *path, const char *want)
{
    unsigned char *data = NULL;
    size_t size = 0;
    bool ok = vgs__file_read(path, &data, &size, &err) == VGS_OK;
    ok = ok && size == strlen(want) && memcmp(data, want, size) == 0;
    if (!ok) printf("    %.*s\n", (int)size, (const char *)data);
    vgs__free(data);
    return ok;
}

static void test_json(void)
{
    static const char want[] =
        "{\"s\\\"\": \"b\\\\\\\"\\b\\f\\n\\r\\t\\u0001/bfnrt \xe2\x82\xac \xf0\x9f\x98\x80 "
        "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\", \"none\": null, \"d\": 0.1, "
        "\"bad\": null, \"list\": [-9223372036854775808, 18446744073709551615, -50], \"empty\": {}}\n"
        "[]\n";
    const char *path = in_folder("log.jsonl");
    vgs_file f;
    json j = { NULL, false };
    OK(vgs_file_begin(&f, path, &err) == VGS_OK);
    j.out = f.stream;
    json_open(&j, NULL, '{');
    json_string(&j, "s\"",
        "b\\\"\b\f\n\r\t\x01/bfnrt \xe2\x82\xac \xf0\x9f\x98\x80 \xff\xc0\xaf\xed\xa0\x80|\xe2\x82");
    json_string(&j, "none", NULL);
    json_double(&j, "d", 0.1);
    json_double(&j, "bad", -HUGE_VAL);
    json_open(&j, "list", '[');
    json_i64(&j, NULL, INT64_MIN);
    json_u64(&j, NULL, UINT64_MAX);
    json_i64(&j, NULL, -50);
    json_close(&j, ']');
    json_open(&j, "empty", '{');
    json_close(&j, '}');
    json_close(&j, '}');
    json_line(&j);
    json_open(&j, NULL, '[');
    json_close(&j, ']');
    json_line(&j);
    OK(vgs_file_commit(&f, &err) == VGS_OK);
    OK(read_back(path, want));
    remove(path);
}

/* ---- whole files ---- */

static void test_atomic(void)
{
    const char *path = in_folder("atomic.txt");
    unsigned char *big = (unsigned char *)vgs__alloc(300000, 1), *data = NULL;
    size_t size = 0, i;
    vgs_file f;
    OK(vgs_file_write(path, "old", 3, &err) == VGS_OK && read_back(path, "old"));
    OK(vgs_file_begin(&f, path, &err) == VGS_OK && fputs("new", f.stream) >= 0 && leftovers() == 1);
    OK(read_back(path, "old"));
    vgs_file_discard(&f);
    vgs_file_discard(&f);
    OK(read_back(path, "old") && leftovers() == 0);
    OK(vgs_file_begin(&f, path, &err) == VGS_OK && fputs("new", f.stream) >= 0);
    OK(vgs_file_commit(&f, &err) == VGS_OK && read_back(path, "new") && leftovers() == 0);
    vgs_file_discard(&f);
    OK(vgs_file_commit(&f, &err) == VGS_E_ARG);
    OK(vgs_file_write(path, "", 0, &err) == VGS_OK && read_back(path, ""));
    for (i = 0; i < 300000; ++i) big[i] = (unsigned char)(i * 7 >> 3);
    for (i = 65534; i < 300000; i = i < 65538 ? i + 1 : i + 78154) {
        OK(vgs_file_write(path, big, i, &err) == VGS_OK);
        OK(vgs__file_read(path, &data, &size, &err) == VGS_OK && size == i && memcmp(data, big, i) == 0);
        vgs__free(data);
    }
    vgs__free(big);
    remove(path);
    OK(vgs_file_write("", "x", 1, &err) == VGS_E_ARG && vgs_file_write(NULL, "x", 1, NULL) == VGS_E_ARG);
    OK(vgs_file_write(in_folder("no/such/folder"), "x", 1, &err) == VGS_E_IO && says("no/such/folder"));
}

/* Two writers of one path, open at once: each has a temporary of its own, the later commit wins. */
static void test_two_writers(void)
{
    const char *path = in_folder("two.txt");
    vgs_file a, b;
    OK(vgs_file_begin(&a, path, &err) == VGS_OK && vgs_file_begin(&b, path, &err) == VGS_OK);
    OK(strcmp(a.temp, b.temp) != 0 && fputs("a", a.stream) >= 0 && fputs("b", b.stream) >= 0);
    OK(vgs_file_commit(&b, &err) == VGS_OK && read_back(path, "b"));
    OK(vgs_file_commit(&a, &err) == VGS_OK && read_back(path, "a") && leftovers() == 0);
    remove(path);
}

/* ---- .npy ---- */

static vgs_status npy(const unsigned char *data, size_t size, float **x, int *rows, int *cols)
{
    unsigned char *copy = (unsigned char *)malloc(size ? size : 1);  /* of the exact size, for ASan */
    vgs_status st;
    memcpy(copy, data, size);
    *x = NULL;
    st = vgs__npy_parse(copy, size, "mem.npy", x, rows, cols, &err);
    free(copy);
    return st;
}

/* A header of version 1 around `dict`, then `bytes` zeros; the message must hold `text`. */
static bool npy_refuses(const char *dict, size_t bytes, const char *text)
{
    unsigned char file[1024] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0 };
    size_t n = strlen(dict);
    float *x;
    int rows, cols;
    vgs__file_store_le(file + 8, n, 2);
    memcpy(file + 10, dict, n);
    return npy(file, 10 + n + bytes, &x, &rows, &cols) == VGS_E_FORMAT && !x && says(text) && says("");
}

static void test_npy_hostile(void)
{
    OK(npy_refuses("", 0, "expected '{'"));
    OK(npy_refuses("{", 0, "quoted string"));
    OK(npy_refuses("{}", 0, "'descr' is missing"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False}", 0, "'shape' is missing"));
    OK(npy_refuses("{'descr': '<f4', 'descr': '<f4'}", 0, "'descr' appears twice"));
    OK(npy_refuses("{'color': '<f4'}", 0, "'color' is not known"));
    OK(npy_refuses("{'descr': '>f4', 'fortran_order': False, 'shape': (1, 1), }", 4, "descr is '>f4'"));
    OK(npy_refuses("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1), }", 4, "list"));
    OK(npy_refuses("{'descr': '<f4", 0, "does not end"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 20, "needs 24 bytes"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 1), }", 4,
          "fortran_order is neither"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': Fal", 0, "fortran_order is neither"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, "0 dimensions"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", 4, "not a tuple"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }", 4, "more than 2"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1), }", 4, "0 or more"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (01, 1), }", 4, "starts with 0"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1 1), }", 4, "expected ','"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483648, 1), }", 4,
          "over 2^31"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 1), }", 4,
          "over 2^64"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483647, 2147483647), }", 4,
          "needs"));
    OK(npy_refuses("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 2147483647), }", 4,
          "there are 4"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), } x", 4, "follows"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", 5, "needs 4 bytes"));
    OK(npy_refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", 3, "there are 3"));
}

/* A file in Fortran order: `bytes` of numbers of 8 bytes. */
static vgs_status npy_fortran(const char *descr, const char *shape, const double *data, size_t bytes,
                              float **x, int *rows, int *cols)
{
    unsigned char file[256] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0 };
    size_t n = (size_t)sprintf((char *)file + 10, "{'descr': '%s', 'fortran_order': True, 'shape': (%s), }",
                               descr, shape), i;
    vgs__file_store_le(file + 8, n, 2);
    for (i = 0; i < bytes; i += 8) vgs__file_host_to_le(file + 10 + n + i, (const unsigned char *)data + i,
                                                        8);
    return npy(file, 10 + n + bytes, x, rows, cols);
}

static void test_npy(void)
{
    static const float x[6] = { 1, 2, 3, 4, 5, 6 };
    const char *path = in_folder("ours.npy");
    unsigned char *data = NULL, v2[200];
    double doubles[6] = { -2.5, -1.5, -0.5, 0.5, 1.5, 2.5 };
    float *y, special[4];
    int rows, cols, i;
    size_t size = 0;
    OK(vgs_npy_write(path, x, 2, 3, &err) == VGS_OK);
    OK(vgs__file_read(path, &data, &size, &err) == VGS_OK);
    OK(size == sizeof py_npy_f4 &&
          memcmp(data, py_npy_f4, size) == 0);              /* NumPy's very bytes */
    vgs__free(data);
    OK(vgs_npy_read(path, &y, &rows, &cols, &err) == VGS_OK && rows == 2 && cols == 3 &&
          memcmp(x, y, sizeof x) == 0);
    vgs_free(y);
    OK(npy(py_npy_f8, sizeof py_npy_f8, &y, &rows, &cols) == VGS_OK && rows == 3 && cols == 1);
    OK(y && same_float(y[0], 0.5f) && same_float(y[1], -1.25f) && same_float(y[2], 1.0f / 3));
    vgs_free(y);
    OK(npy(py_npy_fortran, sizeof py_npy_fortran, &y, &rows, &cols) == VGS_OK && rows == 2 && cols == 3);
    for (i = 0; y && i < 6; ++i) OK(same_float(y[i], (float)i));
    vgs_free(y);
    OK(npy_fortran("<f8", "3, 2", doubles, 48, &y, &rows, &cols) == VGS_OK && rows == 3 && cols == 2);
    for (i = 0; y && i < 6; ++i) OK(same_float(y[i], (float)(i % 2 * 3 + i / 2) - 2.5f));
    vgs_free(y);
    OK(npy_fortran("<f8", "6, ", doubles, 48, &y, &rows, &cols) == VGS_OK && rows == 6 && cols == 1);
    for (i = 0; y && i < 6; ++i) OK(same_float(y[i], (float)i - 2.5f));
    vgs_free(y);
    OK(npy_fortran("<f8", "0, 2", doubles, 0, &y, &rows, &cols) == VGS_OK && y && rows == 0 && cols == 2);
    vgs_free(y);
    doubles[4] = 1e40;
    OK(npy_fortran("<f8", "3, 2", doubles, 48, &y, &rows, &cols) == VGS_E_NONFINITE && !y);
    OK(npy(py_npy_i4, sizeof py_npy_i4, &y, &rows, &cols) == VGS_E_FORMAT && says("'<i4'"));
    OK(npy(py_npy_3d, sizeof py_npy_3d, &y, &rows, &cols) == VGS_E_FORMAT && says("2 dimensions"));
    memcpy(v2 + 2, py_npy_f4, sizeof py_npy_f4);                     /* the same as version 2 */
    memcpy(v2, "\x93NUMPY\x02\x00\x76\x00\x00\x00", 12);
    OK(npy(v2, sizeof py_npy_f4 + 2, &y, &rows, &cols) == VGS_OK && rows == 2 &&
          memcmp(x, y, sizeof x) == 0);
    vgs_free(y);
    memset(v2 + 8, 0xff, 4);
    OK(npy(v2, sizeof py_npy_f4 + 2, &y, &rows, &cols) == VGS_E_FORMAT && says("within the header"));
    v2[6] = 4;
    OK(npy(v2, sizeof py_npy_f4 + 2, &y, &rows, &cols) == VGS_E_FORMAT && says("version of .npy is 4.0"));
    OK(vgs_npy_write(path, NULL, 0, 5, &err) == VGS_OK);
    OK(vgs_npy_read(path, &y, &rows, &cols, &err) == VGS_OK && y && rows == 0 && cols == 5);
    vgs_free(y);
    OK(vgs_npy_write(path, x, -1, 5, &err) == VGS_E_ARG &&
          vgs_npy_write(path, NULL, 1, 1, &err) == VGS_E_ARG);
    special[0] = -0.0f;
    special[1] = (float)HUGE_VAL;
    special[2] = vgs__from_bits(0x7FC12345u);
    special[3] = vgs__from_bits(1);
    OK(vgs_npy_write(path, special, 1, 4, &err) == VGS_OK &&
          vgs_npy_read(path, &y, &rows, &cols, &err) == VGS_OK);
    OK(memcmp(y, special, sizeof special) == 0);
    vgs_free(y);
    OK(vgs_npy_write(path, x, 2, 3, &err) == VGS_OK); /* stays, for vectors/gen/files.py to read */
}

static void test_npy_doubles(void)
{
    static const double cases[] = { 1e300, 3.5e38, -3.5e38, HUGE_VAL, 1e-300, 3.4028234663852886e38 };
    unsigned char file[sizeof py_npy_f8];
    float *y;
    int rows, cols, i;
    uint64_t u;
    for (i = 0; i < 6; ++i) {
        memcpy(file, py_npy_f8, sizeof file);
        memcpy(&u, &cases[i], 8);
        vgs__file_store_le(file + sizeof file - 8, u, 8);
        if (i < 3) {
            OK(npy(file, sizeof file, &y, &rows, &cols) == VGS_E_NONFINITE && !y &&
                  says("number 2 is too large"));
        } else {
            OK(npy(file, sizeof file, &y, &rows, &cols) == VGS_OK && same_float(y[2], (float)cases[i]));
            vgs_free(y);
        }
    }
}

static void test_npy_damage(void)
{
    unsigned char file[sizeof py_npy_f4 + 1];
    size_t n = sizeof py_npy_f4, i;
    int rows, cols, loaded = 0, bad = 0;
    float *y;
    memcpy(file, py_npy_f4, n);
    file[n] = 0;
    for (i = 0; i <= n + 1; ++i) {
        if (i == n) continue;
        if (npy(file, i, &y, &rows, &cols) != VGS_E_FORMAT || y) ++bad;
    }
    for (i = 0; i < n * 8; ++i) {                                    /* a flip may stay a good file */
        file[i / 8] ^= (unsigned char)(1 << i % 8);
        if (npy(file, n, &y, &rows, &cols) == VGS_OK) {
            ++loaded;
            bad += (int64_t)rows * cols * 4 > (int64_t)(n - 128) || (i < 128 * 8 && rows * cols != 6);
        }
        vgs_free(y);
        file[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    OK(bad == 0 && loaded >= 24 * 8);
}

/* ---- .safetensors ---- */

static vgs_safetensors *st_parse(const unsigned char *data, size_t size, unsigned char **copy)
{
    *copy = (unsigned char *)malloc(size ? size : 1);
    memcpy(*copy, data, size);
    return vgs__st_parse(*copy, size, "mem.st", &err);
}

static bool st_loads(const unsigned char *data, size_t size)
{
    unsigned char *copy;
    vgs_safetensors *s = st_parse(data, size, &copy);
    vgs_safetensors_free(s);
    free(copy);
    return s != NULL;
}

/* A file with this header and so many bytes of data; `text` NULL: it must load. */
static bool st_says(const char *header, size_t bytes, const char *text)
{
    unsigned char file[2048] = { 0 };
    size_t n = strlen(header);
    bool ok;
    vgs__file_store_le(file, n, 8);
    memcpy(file + 8, header, n);
    memset(&err, 0, sizeof err);
    ok = st_loads(file, 8 + n + bytes) == !text;
    if (!ok && !text) printf("    the message is: %s\n", err.msg);
    return ok && (!text || (err.code == VGS_E_FORMAT && says(text)));
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void test_st_hostile(void)
{
    OK(st_says("{}", 0, NULL) && st_says("{}  \n", 0, NULL));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) "}", 8, NULL));
    OK(st_says("{ \"a\" : { \"data_offsets\" : [ 0 , 4 ] , \"shape\" : [ ] , \"dtype\" : \"F32\" } }", 4,
          NULL));
    OK(st_says("{" T("b", "U8", "[2]", 1, 3) "," T("a", "U8", "[1]", 0, 1) "}", 3, NULL));
    OK(st_says("{" T("a", "F32", "[0,7]", 0, 0) "," T("b", "U8", "[1]", 0, 1) "," T("c", "U8", "[0]", 1,
          1) "}", 1, NULL));
    OK(st_says("{" T("a", "F32", "[1,1,1,1,1,1,1,1]", 0, 4) "}", 4, NULL));
    OK(st_says("", 0, "expected '{'") && st_says(" {}", 0, "expected '{'") &&
          st_says("[]", 0, "expected '{'"));
    OK(st_says("{", 0, "expected '\"'") && st_says("{,}", 0, "expected '\"'") &&
          st_says("{} x", 0, "follows"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) ",}", 8, "expected '\"'"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8), 8, "expected '}'"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) T("b", "F32", "[0]", 8, 8) "}", 8, "expected '}'"));
    OK(st_says("{" T("a", "F99", "[2]", 0, 8) "}", 8, NULL));
    OK(st_says("{" T("a", "F99", "[64]", 0, 8) "}", 8, NULL));
    OK(st_says("{" T("a", "F99", "[72]", 0, 8) "}", 8, "'a': data_offsets do not fit"));
    OK(st_says("{" T("a", "F99", "[0]", 0, 8) "}", 8, "'a': data_offsets do not fit"));
    OK(st_says("{" T("a", "F99", "[1]", 0, 0) "}", 0, "'a': data_offsets do not fit"));
    OK(st_says("{" T("a", "F99", "[4294967296,4294967296]", 0, 8) "}", 8, "overflows"));
    OK(st_says("{" T("a", "F99", "[2]", 0, 16) "}", 8, "outside"));
    OK(st_says("{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "expected '\"'"));
    OK(st_says("{" T("a", "F32", "[3]", 0, 8) "}", 8, "'a': data_offsets do not fit"));
    OK(st_says("{" T("a", "F32", "[1]", 0, 8) "}", 8, "'a': data_offsets do not fit"));
    OK(st_says("{" T("a", "F32", "[2,]", 0, 8) "}", 8, "whole number"));
    OK(st_says("{" T("a", "F32", "[-2]", 0, 8) "}", 8, "whole number"));
    OK(st_says("{" T("a", "F32", "[2.0]", 0, 8) "}", 8, "expected ']'"));
    OK(st_says("{" T("a", "F32", "[02]", 0, 8) "}", 8, "starts with 0"));
    OK(st_says("{" T("a", "F32", "2", 0, 8) "}", 8, "expected '['"));
    OK(st_says("{" T("a", "F32", "[[[[[[[[[[[[[[[[[[2]]]]]]]]]]]]]]]]]]", 0, 8) "}", 8, "whole number"));
    OK(st_says("{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", 0, 8) "}", 8, "more than 8"));
    OK(st_says("{" T("a", "F32", "[18446744073709551616]", 0, 8) "}", 8, "over 2^64"));
    OK(st_says("{" T("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "overflows"));
    OK(st_says("{" T("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, "do not fit"));
    OK(st_says("{" T("a", "F32", "[2]", 8, 0) "}", 8, "backwards"));
    OK(st_says("{" T("a", "F32", "[2]", 8, 16) "}", 8, "outside"));
    OK(st_says("{" T("a", "F32", "[2]", 18446744073709551608, 18446744073709551615) "}", 8, "outside"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) "}", 9, "last 1 bytes"));
    OK(st_says("{}", 4, "last 4 bytes"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", 12, "overlap"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 0, 8) "}", 8, "overlap"));
    OK(st_says("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[1]", 12, 16) "}", 16, "gap"));
    OK(st_says("{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8, "'a' appears twice"));
    OK(st_says("{" T("a", "F32", "[1]", 0, 4) "," T("\\u0061", "F32", "[1]", 4, 8) "}", 8,
          "'a' appears twice"));
    OK(st_says("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'data_offsets' is missing"));
    OK(st_says("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 8, "'dtype' appears twice"));
    OK(st_says("{\"a\":{\"color\":1}}", 8, "'color' is not known") &&
          st_says("{\"a\":{}}", 0, "expected '\"'"));
    OK(st_says("{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}", 0, "is not known"));
    OK(st_says("{\"a\":null}", 0, "expected '{'") && st_says("{\"a\":\"b\"}", 0, "expected '{'"));
}

static void test_st_strings(void)
{
    OK(st_says("{\"__metadata__\":{\"\":\"\",\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u20AC\"}}", 0, NULL));
    OK(st_says("{\"__metadata__\":{}}", 0, NULL));
    OK(st_says("{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"));
    OK(st_says("{\"__metadata__\":{\"a\":null}}", 0, "expected '\"'"));
    OK(st_says("{\"__metadata__\":{\"a\":{}}}", 0, "expected '\"'"));
    OK(st_says("{\"__metadata__\":[]}", 0, "expected '{'") &&
          st_says("{\"__metadata__\":\"x\"}", 0, "expected '{'"));
    OK(st_says("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"));
    OK(st_says("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, "'a' appears twice"));
    OK(st_says("{\"\\x\":{}}", 0, "unknown escape") && st_says("{\"a\\", 0, "unknown escape"));
    OK(st_says("{\"\\u12", 0, "four hex") && st_says("{\"\\u12g4\":{}}", 0, "four hex"));
    OK(st_says("{\"\\u0000\":{}}", 0, "character 0"));
    OK(st_says("{\"\\ud800\":{}}", 0, "surrogate") && st_says("{\"\\udc00\":{}}", 0, "surrogate"));
    OK(st_says("{\"\\ud800\\u0041\":{}}", 0, "surrogate") &&
          st_says("{\"\\ud800\\n\":{}}", 0, "surrogate"));
    OK(st_says("{\"\x80\":{}}", 0, "UTF-8") && st_says("{\"\xc0\xaf\":{}}", 0, "UTF-8") &&
          st_says("{\"\xe2\x82\":{}}", 0, "UTF-8"));
    OK(st_says("{\"\xed\xa0\x80\":{}}", 0, "UTF-8") && st_says("{\"\xf4\x90\x80\x80\":{}}", 0, "UTF-8"));
    OK(st_says("{\"\xe0\x80\x80\":{}}", 0, "UTF-8") && st_says("{\"\xf0\x80\x80\x80\":{}}", 0, "UTF-8"));
    OK(st_says("{\"a\nb\":{}}", 0, "UTF-8") && st_says("{\"abc", 0, "does not end"));
    OK(st_says("{ \"__metadata__\":{\"vgs.checksum\":\"00000000\"}}", 0, "lacks 'vgs.format'"));
    OK(st_says("{ \"__metadata__\":{\"vgs.format\":\"1\"}}", 0, "lacks 'vgs.checksum'"));
    OK(st_says("{ \"__metadata__\":{\"vgs.format\":\"1\",\"vgs.checksum\":\"00000000\"}}", 0,
          "checksum mismatch"));
    OK(st_says("{ \"__metadata__\":{\"vgs.checksum\":\"0000000A\"}}", 0, "8 hex"));
    OK(st_says("{ \"__metadata__\":{\"vgs.checksum\":\"\\u0030000000\"}}", 0, "8 hex"));
    OK(st_says("{\"__metadata__\":{\"vgs.format\":\"2\"}}", 0, "reads '1'"));
    OK(st_says("{\"__metadata__\":{\"vgs.checksum\":\"", 0, "does not end"));
}

/* Kinds of numbers that are not ours lie beside others, which can be read. */
static void test_st_other(void)
{
    static const char header[] = "{" T("half", "F4", "[2,3]", 12, 15) "," T("w", "F32", "[3]", 0, 12) ","
        T("marker", "F8_E4M3", "[0]", 15, 15) "}";
    unsigned char file[sizeof header + 22] = { 0 };
    const vgs_file_tensor *t;
    vgs_safetensors *s;
    float w[6] = { 1, 1, 1 };
    double d[6];
    int64_t n[6];
    vgs__file_store_le(file, sizeof header - 1, 8);
    memcpy(file + 8, header, sizeof header - 1);
    s = vgs__st_parse(file, sizeof file, "mem.st", &err);
    if (!OK(s != NULL)) return;
    t = vgs_safetensors_find(s, "half");
    OK(t->dtype == VGS_DTYPE_OTHER && !strcmp(t->dtype_name, "F4") && t->count == 6 && t->bytes == 3 &&
          t->data == file + sizeof file - 3);
    t = vgs_safetensors_find(s, "marker");
    OK(t->dtype == VGS_DTYPE_OTHER && t->count == 0 && t->bytes == 0);
    OK(!strcmp(vgs_safetensors_find(s, "w")->dtype_name, "F32"));
    OK(vgs_safetensors_floats(s, "w", w, 3, &err) == VGS_OK && same_float(w[2], 0));
    OK(vgs_safetensors_floats(s, "half", w, 6, &err) == VGS_E_FORMAT && says("is F4; F32 or F64 is needed"));
    OK(vgs_safetensors_doubles(s, "half", d, 6, &err) == VGS_E_FORMAT && says("is F4; F32 or F64"));
    OK(vgs_safetensors_i64(s, "half", n, 6, &err) == VGS_E_FORMAT && says("is F4; an integer is needed"));
    vgs_safetensors_free(s);
}

static void test_st_escapes(void)
{
    static const char header[] = "{\"__metadata__\":{\"a\":"
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"}}";
    unsigned char file[sizeof header + 7];
    vgs_safetensors *s;
    vgs__file_store_le(file, sizeof header - 1, 8);
    memcpy(file + 8, header, sizeof header - 1);
    s = vgs__st_parse(file, sizeof file, "mem.st", &err);
    OK(s && strcmp(vgs_safetensors_meta(s, "a"),
          "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80") == 0);
    vgs_safetensors_free(s);
}

static void test_st_length(void)
{
    static const uint64_t lengths[] = { 1, 3, 100, 100000000, 100000001, 0x7FFFFFFFFFFFFFFF, UINT64_MAX,
        UINT64_MAX - 7 };
    unsigned char file[16] = { 2, 0, 0, 0, 0, 0, 0, 0, '{', '}' };
    size_t i;
    long before = allocations;
    for (i = 0; i < 8; ++i) OK(!st_loads(file, i));
    OK(st_loads(file, 10));
    before = allocations - before;
    OK(before == 4);                                              /* none of them for the short files */
    for (i = 0; i < sizeof lengths / sizeof *lengths; ++i) {
        vgs__file_store_le(file, lengths[i], 8);
        OK(!st_loads(file, 10) && err.code == VGS_E_FORMAT);
    }
}

static void test_st_many(void)
{
    char header[200000];
    size_t n = 1, i;
    unsigned char *file;
    header[0] = '{';
    for (i = 0; i < 3000; ++i)                                       /* no shorter tensor can be written */
        n += (size_t)sprintf(header + n, "%s\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
            i ? "," : "");
    header[n++] = '}';
    file = (unsigned char *)malloc(n + 8);
    vgs__file_store_le(file, n, 8);
    memcpy(file + 8, header, n);
    OK(!st_loads(file, n + 8) && says("'' appears twice"));
    n = (size_t)sprintf(header, "{\"__metadata__\":{\"\":\"\"");
    for (i = 0; i < 30000; ++i) n += (size_t)sprintf(header + n, ",\"\":\"\"");
    n += (size_t)sprintf(header + n, "}}");
    file = (unsigned char *)realloc(file, n + 8);
    vgs__file_store_le(file, n, 8);
    memcpy(file + 8, header, n);
    OK(!st_loads(file, n + 8) && says("'' appears twice"));
    free(file);
}

static void test_st_python(void)
{
    unsigned char *copy;
    vgs_safetensors *s = st_parse(py_safetensors, sizeof py_safetensors, &copy);
    const vgs_file_tensor *t;
    float w[6];
    double number, number_of[6];
    int64_t n[2];
    uint64_t u[2];
    if (!OK(s != NULL)) {
        printf("    %s\n", err.msg);
        return;
    }
    OK(vgs_safetensors_count(s) == 7 && !vgs_safetensors_has_checksum(s));
    OK(vgs_safetensors_floats(s, "w", w, 6, &err) == VGS_OK && same_float(w[5], 1.25f));
    OK(vgs_safetensors_floats(s, "d", w, 1, &err) == VGS_OK && same_float(w[0], 1.0f / 3));
    OK(vgs_safetensors_doubles(s, "d", number_of, 1, &err) == VGS_OK && number_of[0] == 1.0 / 3);
    OK(vgs_safetensors_doubles(s, "w", number_of, 6, &err) == VGS_OK && number_of[5] == 1.25);
    OK(vgs_safetensors_doubles(s, "h", number_of, 1, &err) == VGS_E_FORMAT && says("BF16"));
    OK(vgs_safetensors_doubles(s, "w", number_of, 5, &err) == VGS_E_SHAPE && says("5 are needed"));
    OK(vgs_safetensors_doubles(s, "x", number_of, 1, &err) == VGS_E_FORMAT && says("is missing"));
    OK(vgs_safetensors_floats(s, "gr\xc3\xb6\xc3\x9f" "e", w, 1, &err) == VGS_OK &&
          same_float(w[0], 2.5f));
    OK(vgs_safetensors_i64(s, "n", n, 2, &err) == VGS_OK && n[0] == -1 && n[1] == (int64_t)1 << 40);
    OK(vgs_safetensors_u64(s, "n", u, 2, &err) == VGS_E_FORMAT && says("number 0 is negative"));
    OK(vgs_safetensors_u64(s, "u", u, 2, &err) == VGS_OK && u[0] == 1 && u[1] == 255);
    OK(vgs_safetensors_floats(s, "h", w, 1, &err) == VGS_E_FORMAT && says("BF16"));
    OK(vgs_safetensors_i64(s, "w", n, 6, &err) == VGS_E_FORMAT && says("is F32; an integer is needed"));
    OK(vgs_safetensors_floats(s, "w", w, 5, &err) == VGS_E_SHAPE && says("has 6 values; 5 are needed"));
    OK(vgs_safetensors_floats(s, "x", w, 5, &err) == VGS_E_FORMAT &&
          says("mem.st: tensor 'x' is missing"));
    t = vgs_safetensors_find(s, "w");
    OK(t && t->dtype == VGS_DTYPE_F32 && t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3 &&
          t->count == 6 && t->bytes == 24);
    t = vgs_safetensors_find(s, "flag");
    OK(t && t->dtype == VGS_DTYPE_BOOL && memcmp(t->data, "\1\0\1", 3) == 0);
    OK(vgs_safetensors_tensor(s, 0) && strcmp(vgs_safetensors_tensor(s, 0)->name, "d") == 0);
    OK(!vgs_safetensors_tensor(s, -1) && !vgs_safetensors_tensor(s, 7));
    OK(vgs_safetensors_meta_count(s) == 2 && strcmp(vgs_safetensors_meta_key(s, 0), "format") == 0);
    OK(!vgs_safetensors_meta_key(s, 2) && !vgs_safetensors_meta(s, "none"));
    OK(strcmp(vgs_safetensors_meta(s, "k\xc3\xa9y"), "\xe2\x82\xac \xf0\x9f\x98\x80 \"q\" \n") == 0);
    OK(vgs_safetensors_number(s, "format", &number, &err) == VGS_E_FORMAT && says("'pt', not a number"));
    OK(vgs_safetensors_number(s, "none", &number, &err) == VGS_E_FORMAT && says("'none' is missing"));
    vgs_safetensors_free(s);
    free(copy);
}

/* ---- our writer ---- */

static const float    ours_w[6] = { 0, 1.5f, -2, 1e-38f, 3e38f, 0.1f };
static const uint64_t ours_seed = UINT64_MAX;
static const int32_t  ours_counts[2] = { -1, INT32_MAX };
static const double   ours_wide = 1.0 / 3;
static const unsigned char ours_b[3] = { 1, 2, 255 };

static vgs_status write_ours(const char *path)
{
    static const uint64_t s23[2] = { 2, 3 }, s1[1] = { 1 }, s2[1] = { 2 }, s3[1] = { 3 }, s04[2] = { 0, 4 };
    vgs_writer *w = vgs_writer_create(&err);
    vgs_status st;
    if (!w) return VGS_E_NOMEM;
    vgs_writer_tensor(w, "b", VGS_DTYPE_U8, 1, s3, ours_b);
    vgs_writer_tensor(w, "w \xc3\xa9\"\\", VGS_DTYPE_F32, 2, s23, ours_w);
    vgs_writer_tensor(w, "seed", VGS_DTYPE_U64, 1, s1, &ours_seed);
    vgs_writer_tensor(w, "counts", VGS_DTYPE_I32, 1, s2, ours_counts);
    vgs_writer_tensor(w, "wide", VGS_DTYPE_F64, 1, s1, &ours_wide);
    vgs_writer_tensor(w, "one", VGS_DTYPE_F32, 0, NULL, ours_w + 1);
    vgs_writer_tensor(w, "none", VGS_DTYPE_F32, 2, s04, NULL);
    vgs_writer_number(w, "tau", 0.1);
    vgs_writer_meta(w, "text", "tab\there, \xe2\x82\xac, \x01");
    st = vgs_writer_save(w, path, &err);
    vgs_writer_free(w);
    return st;
}

static bool read_ours(const char *path)
{
    vgs_safetensors *s = vgs_safetensors_open(path, &err);
    float w[6];
    double tau = 0;
    uint64_t seed = 0;
    int64_t counts[2] = { 0, 0 };
    bool ok = s != NULL;
    if (!s) return false;
    ok = ok && vgs_safetensors_has_checksum(s) && vgs_safetensors_count(s) == 7;
    ok = ok && !vgs_safetensors_floats(s, "w \xc3\xa9\"\\", w, 6, &err) && memcmp(w, ours_w, sizeof w) == 0;
    ok = ok && !vgs_safetensors_u64(s, "seed", &seed, 1, &err) && seed == ours_seed;
    ok = ok && vgs_safetensors_i64(s, "seed", counts, 1, NULL) == VGS_E_FORMAT;
    ok = ok && !vgs_safetensors_i64(s, "counts", counts, 2, &err) && counts[0] == -1 &&
        counts[1] == INT32_MAX;
    ok = ok && !vgs_safetensors_floats(s, "one", w, 1, &err) && same_float(w[0], 1.5f);
    ok = ok && !vgs_safetensors_number(s, "tau", &tau, &err) && tau == 0.1;
    ok = ok && strcmp(vgs_safetensors_meta(s, "text"), "tab\there, \xe2\x82\xac, \x01") == 0;
    vgs_safetensors_free(s);
    return ok;
}

/* Our numbers start at a multiple of their size, so Python may map the file. */
static bool aligned(const unsigned char *file, size_t size)
{
    vgs_safetensors *s = vgs__st_parse(file, size, "mem.st", &err);
    bool ok = s != NULL;
    int i;
    for (i = 0; ok && i < vgs_safetensors_count(s); ++i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(s, i);
        ok = (size_t)((const unsigned char *)t->data - file) % (size_t)vgs__dtypes[t->dtype].size == 0;
    }
    vgs_safetensors_free(s);
    return ok;
}

static void test_st_damage(const char *path)
{
    unsigned char *file = NULL;
    size_t size = 0, i;
    int bad = 0;
    OK(vgs__file_read(path, &file, &size, &err) == VGS_OK && st_loads(file, size) && aligned(file, size));
    for (i = 0; i < size; ++i) bad += st_loads(file, i);
    OK(bad == 0);
    for (i = 0; i < size * 8; ++i) {
        file[i / 8] ^= (unsigned char)(1 << i % 8);
        if (st_loads(file, size)) {
            ++bad;
            printf("    a flip of bit %d of byte %d is not seen\n", (int)(i % 8), (int)(i / 8));
        }
        file[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    OK(bad == 0);
    file[size - 1] ^= 1;
    OK(!st_loads(file, size) && says("checksum mismatch: mem.st says "));
    vgs__free(file);
}

/* A file of ours whose header another program has written anew: without our space behind the brace. */
static void test_st_saved_again(const char *path)
{
    unsigned char *file = NULL, *end;
    vgs_safetensors *s;
    size_t size = 0, header;
    OK(vgs__file_read(path, &file, &size, &err) == VGS_OK);
    header = (size_t)vgs__file_load_le(file, 8);
    OK(!memcmp(file + 8, "{ ", 2));
    memmove(file + 9, file + 10, header - 2);
    file[8 + header - 1] = ' ';
    file[size - 1] ^= 1;                                             /* other numbers, too              */
    s = vgs__st_parse(file, size, "mem.st", &err);
    OK(s && !vgs_safetensors_has_checksum(s) && vgs_safetensors_count(s) == 7);
    OK(s && vgs_safetensors_meta(s, "vgs.checksum") && !strcmp(vgs_safetensors_meta(s, "tau"), "0.1"));
    vgs_safetensors_free(s);
    end = file + 9 + strlen("\"__metadata__\":{\"");
    OK(!memcmp(end, "vgs.checksum", 12));
    end[0] = 'V';                                                    /* the checksum taken out          */
    OK(st_loads(file, size));
    vgs__free(file);
}

static void test_writer_errors(void)
{
    static const uint64_t huge[3] = { UINT64_MAX / 8, 3, 0 }, one[1] = { 1 };
    static const char *const wants[] = { "'t': dtype", "'t': dtype", "'t': dtype", "'t': data is NULL",
                                         "reserved", "UTF-8", "there already", "reserved", "reserved",
                                         "UTF-8", "not finite",
                                         "is NULL", "there already" };
    const char *path = in_folder("errors.st");
    int i;
    for (i = 0; i < 13; ++i) {
        vgs_writer *w = vgs_writer_create(&err);
        vgs_writer_tensor(w, "a", VGS_DTYPE_F32, 0, NULL, ours_w);
        vgs_writer_meta(w, "a", "x");
        if (i == 0) vgs_writer_tensor(w, "t", VGS_DTYPE_F32, 2, huge, ours_w);
        if (i == 1) vgs_writer_tensor(w, "t", VGS_DTYPE_F32, 9, huge, ours_w);
        if (i == 2) vgs_writer_tensor(w, "t", VGS_DTYPE_OTHER, 1, one, ours_w);
        if (i == 3) vgs_writer_tensor(w, "t", VGS_DTYPE_F32, 1, one, NULL);
        if (i == 4) vgs_writer_tensor(w, "__metadata__", VGS_DTYPE_F32, 1, one, ours_w);
        if (i == 5) vgs_writer_tensor(w, "\xff", VGS_DTYPE_F32, 1, one, ours_w);
        if (i == 6) vgs_writer_tensor(w, "a", VGS_DTYPE_F32, 1, one, ours_w);
        if (i == 7) vgs_writer_meta(w, "vgs.checksum", "x");
        if (i == 8) vgs_writer_meta(w, "vgs.format", "x");
        if (i == 9) vgs_writer_meta(w, "k", "\xc0");
        if (i == 10) vgs_writer_number(w, "k", HUGE_VAL);
        if (i == 11) vgs_writer_meta(w, "k", NULL);
        if (i == 12) vgs_writer_meta(w, "a", "y");
        vgs_writer_tensor(w, "later", VGS_DTYPE_F32, -1, one, ours_w);     /* the first error stays */
        OK(vgs_writer_save(w, path, &err) != VGS_OK && says(wants[i]));
        vgs_writer_free(w);
    }
    OK(!vgs_safetensors_open(path, NULL));
}

/* Whatever the length of the header. */
static void test_alignment(void)
{
    const char *path = in_folder("aligned.st");
    unsigned char *file = NULL;
    size_t size = 0, i;
    for (i = 0; i < 8; ++i) {
        vgs_writer *w = vgs_writer_create(&err);
        vgs_writer_meta(w, "pad", &"12345678"[i]);
        vgs_writer_tensor(w, "f", VGS_DTYPE_F32, 0, NULL, ours_w);
        vgs_writer_tensor(w, "d", VGS_DTYPE_F64, 0, NULL, &ours_wide);
        OK(vgs_writer_save(w, path, &err) == VGS_OK);
        vgs_writer_free(w);
        OK(vgs__file_read(path, &file, &size, &err) == VGS_OK && aligned(file, size));
        vgs__free(file);
    }
    remove(path);
}

static void test_writer(void)
{
    const char *path = in_folder("ours.safetensors");
    vgs_writer *w = vgs_writer_create(&err);
    OK(vgs_writer_save(w, path, &err) == VGS_OK && vgs_writer_save(w, path, &err) == VGS_OK);
    vgs_writer_free(w);
    vgs_writer_free(NULL);
    vgs_safetensors_free(NULL);
    vgs_free(NULL);
    OK(write_ours(path) == VGS_OK && read_ours(path));
    test_st_damage(path);
    test_st_saved_again(path);
}

/* ---- what the system refuses ---- */

static void test_system_errors(void)
{
#ifdef ON_UNIX
    static float x[100000];
    const char *path = in_folder("full.npy"), *sub = in_folder("readonly");
    const char *full = in_folder("dev_full"), *null = in_folder("dev_null");
    struct rlimit limit, old;
    struct stat st;
    float *y;
    int rows, cols;
    OK(vgs_npy_write(folder, x, 2, 2, &err) == VGS_E_IO && says("directory"));
    OK(vgs_npy_read(folder, &y, &rows, &cols, &err) == VGS_E_IO && !y && says("directory"));
    OK(vgs_npy_read(in_folder("missing.npy"), &y, &rows, &cols, &err) == VGS_E_IO && says("missing.npy"));
    OK(!vgs_safetensors_open(in_folder("missing"), &err) && err.code == VGS_E_IO && says("missing"));
    remove(full);                                                    /* links: a mistake hits them,
        not /dev */
    remove(null);
    OK(symlink("/dev/full", full) == 0 && symlink("/dev/null", null) == 0);
    if (stat(full, &st) == 0) {
        OK(vgs_npy_write(full, x, 2, 2, &err) == VGS_E_IO && says("No space left"));
        OK(vgs_npy_write(full, x, 1000, 100, &err) == VGS_E_IO && says("No space left"));
        OK(write_ours(full) == VGS_E_IO && says("No space left"));
        OK(vgs_npy_write(null, x, 1000, 100, &err) == VGS_OK);
        OK(lstat(full, &st) == 0 && S_ISLNK(st.st_mode) && lstat(null, &st) == 0 && S_ISLNK(st.st_mode));
    }
    remove(full);
    remove(null);
    x[3] = 7;                                                        /* a disk that is full after 64 kB */
    OK(vgs_npy_write(path, x, 2, 2, &err) == VGS_OK);
    OK(getrlimit(RLIMIT_FSIZE, &old) == 0 && signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    limit = old;
    limit.rlim_cur = 65536;
    OK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    OK(vgs_npy_write(path, x, 1000, 100, &err) == VGS_E_IO && says("too large") && leftovers() == 0);
    OK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    OK(vgs_npy_read(path, &y, &rows, &cols, &err) == VGS_OK && rows == 2 && same_float(y[3], 7));
    vgs_free(y);
    OK(vgs_npy_write(in_folder("full.npy/x"), x, 2, 2, &err) == VGS_E_IO);
    remove(path);
    OK(mkdir(sub, 0555) == 0);
    path = in_folder("readonly/x.npy");
    if (getuid() != 0) OK(vgs_npy_write(path, x, 2, 2, &err) == VGS_E_IO && says("Permission"));
    else OK(vgs_npy_write(path, x, 2, 2, &err) == VGS_OK && remove(path) == 0);
    OK(rmdir(sub) == 0);
#endif
}

/* ---- no memory: the n-th allocation fails, for every n ---- */

static void test_no_memory(void)
{
    const char *st = in_folder("ours.safetensors"), *npy_path = in_folder("ours.npy");
    long n, before = alive;
    float *y;
    int rows, cols, done = 0;
    for (n = 1; done < 3 && n <= 200; ++n) {
        done = 0;
        memset(&err, 0, sizeof err);
        allocations = 0;
        fail_at = n;
        if (read_ours(st)) ++done;
        else OK(err.code == VGS_E_NOMEM);
        allocations = 0;
        if (vgs_npy_read(npy_path, &y, &rows, &cols, &err) == VGS_OK) ++done;
        else OK(err.code == VGS_E_NOMEM && !y);
        vgs_free(y);
        allocations = 0;
        if (write_ours(st) == VGS_OK) ++done;
        else OK(err.code == VGS_E_NOMEM);
        fail_at = 0;
        OK(alive == before && read_ours(st) && leftovers() == 0);
    }
    OK(done == 3 && n > 11);
}

int main(int argc, char **argv)
{
    t_begin(1, argv);                            /* no parts: a word is a folder                      */
    if (argc > 1) folder = argv[1];
    test_bytes();
    test_numbers();
    test_locale();
    test_json();
    test_atomic();
    test_two_writers();
    test_npy();
    test_npy_hostile();
    test_npy_doubles();
    test_npy_damage();
    test_st_hostile();
    test_st_strings();
    test_st_other();
    test_st_escapes();
    test_st_length();
    test_st_many();
    test_st_python();
    test_writer();
    test_alignment();
    test_writer_errors();
    test_system_errors();
    test_no_memory();
    OK(alive == 0 && leftovers() == 0);
    if (argc < 2) {
        remove("ours.npy");
        remove("ours.safetensors");
    }
    return t_end();
}
