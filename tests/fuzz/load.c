/* clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/load.c -o fuzz -lm && ./fuzz FOLDER
   cc -g tests/fuzz/load.c tests/fuzz/main.c -o fuzz -lm && ./fuzz FILE...      (without libFuzzer)
   Both loaders on arbitrary bytes: an error or a value, never a crash. The first byte picks the loader. */
#define VGS_IMPLEMENTATION
#include "../../vgs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_npy(const uint8_t *data, size_t size)
{
    volatile float sum = 0;
    float *x = NULL;
    int rows = 0, cols = 0;
    size_t i;
    if (vgs__npy_parse(data, size, "fuzz", &x, &rows, &cols, NULL)) return;
    for (i = 0; i < (size_t)rows * (size_t)cols; ++i) sum = sum + x[i];
    vgs_free(x);
}

static void use_safetensors(const uint8_t *data, size_t size)
{
    vgs_error err;
    vgs_safetensors *s = vgs__st_parse(data, size, "fuzz", &err);
    double number;
    int i;
    for (i = 0; s && i < vgs_safetensors_count(s); ++i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(s, i);
        void *out = vgs__alloc(t->count, 8);
        vgs_safetensors_floats(s, t->name, (float *)out, t->count, &err);
        vgs_safetensors_i64(s, t->name, (int64_t *)out, t->count, &err);
        vgs_safetensors_u64(s, t->name, (uint64_t *)out, t->count, &err);
        vgs__free(out);
    }
    for (i = 0; s && i < vgs_safetensors_meta_count(s); ++i)
        vgs_safetensors_number(s, vgs_safetensors_meta_key(s, i), &number, &err);
    vgs_safetensors_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] & 1) use_npy(data + 1, size - 1);
    else if (size) use_safetensors(data + 1, size - 1);
    return 0;
}
