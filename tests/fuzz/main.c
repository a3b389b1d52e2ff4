/* Runs the fuzz target on each file given: for compilers without libFuzzer, and to replay a crash. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    static uint8_t data[1 << 20];
    int i;
    for (i = 1; i < argc; ++i) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t *exact;
        size_t n;
        if (!f) {
            fprintf(stderr, "cannot open %s\n", argv[i]);
            return 1;
        }
        n = fread(data, 1, sizeof data, f);
        fclose(f);
        exact = (uint8_t *)malloc(n ? n : 1);                        /* so that ASan sees a read beyond the end */
        if (!exact) return 1;
        for (size_t k = 0; k < n; ++k) exact[k] = data[k];
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    printf("%d files, no crash\n", argc - 1);
    return 0;
}
