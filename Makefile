# vgs.h - `make` alone prints this help. Every program is one command; there is nothing to configure.
.POSIX:
CC     = cc
CXX    = c++
CFLAGS = -std=c99 -O2 $(WARN)
WARN   = -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wcast-qual -Wstrict-prototypes \
         -Wmissing-prototypes -Wundef -Wdouble-promotion
# Threads where the compiler has OpenMP; waiting threads sleep, so that a busy machine is no trouble.
OPENMP = `sh tests/openmp.sh '$(CC)'`
# The longest first, so that the two that run at a time end together. QUICK: some of them, or parts of them.
# MORE: kernels in groups as on a GPU, and under oclgrind, take five minutes more: make test MORE=opencl_groups
# (CI has it, and make test-all).
TESTS  = opencl programs compile portable sampler coordinates curve low_rank rollout weights ebm energy ops mcmc repro backend \
         gemm metrics oom detect rng model hygiene checkpoint nets td policy file
QUICK  = programs:basics ops gemm compile:basics weights:densities,both_sides rng checkpoint nets model td file
SETUP  = CC='$(CC)' CXX='$(CXX)' CFLAGS='$(CFLAGS)' OPENMP="$(OPENMP)" MAKE='$(MAKE)'

help:
	@echo "make run        train a sampler of gmm9 and write its report (about a minute)"
	@echo "make run-ebm    learn an energy of 8 Gaussians from data (below a minute)"
	@echo "make examples   build all programs of examples/ into build/"
	@echo "make detect     build build/detect, the detector of image anomalies (needs Debian's libstb-dev)"
	@echo "make test-quick does it work here? some of the tests, about a minute"
	@echo "make test       the tests, 10 to 15 minutes of two cores (with OpenCL; MORE=opencl_groups: its kernels"
	@echo "                in groups as on a GPU, too, and under oclgrind)"
	@echo "make test-all   the same under other compilers, sanitizers and processors (20 of one core)"
	@echo "make bench      all of bench/ into bench/RESULTS.md: two hours; BENCH=--quick: a third of one"
	@echo "make quality    a table of the fast presets over three seeds: two hours; broken off, it goes on"
	@echo "                where it was; QUALITY='--seeds 0 gmm9': parts of it"
	@echo "make any        energies given without any setting, over three seeds: an hour and more; ANY='--seeds"
	@echo "                1 --seconds 30 rosenbrock': parts of it"
	@echo "make embed      write kernels/ into vgs_cl.h, after a kernel was changed"
	@echo "make clean      remove build/"
	@echo "OpenCL:         cc -O2 -DVGS_USE_CL examples/train.c -o train -lOpenCL -lm, so also sample and"
	@echo "                reference; products by CLBlast where it is faster: -DVGS_CL_CLBLAST -lclblast"
	@echo "Settings: CC=$(CC) CXX=$(CXX), CFLAGS, OPENMP= (no threads)"

run: build/train
	./build/train gmm9 --out build/gmm9 --force
	@echo "report: build/gmm9/report.html"

run-ebm: build/ebm
	./build/ebm demo 8gauss --out build/8gauss --force --iterations 3000
	@echo "report: build/8gauss/report.html"

# Every program is one command: these make it, but share the implementation where the built-in targets, which
# are compiled after it in the same file, do not come in.
WITH_TARGETS = build/train build/sample build/evaluate build/reference
PROGRAMS     = build/ring build/particles build/surrogate build/contrast build/inspect build/ebm

examples: $(WITH_TARGETS) $(PROGRAMS)

detect: build/detect

$(WITH_TARGETS): vgs.h examples/*.h examples/*.c
	@mkdir -p build
	$(CC) $(CFLAGS) -DVGS_STATIC $(OPENMP) examples/$(@F).c -o $@ -lm

$(PROGRAMS) build/detect: build/vgs.o examples/*.h examples/*.c
	$(CC) $(CFLAGS) $(OPENMP) -DVGS_IMPLEMENTED examples/$(@F).c build/vgs.o -o $@ -lm

# Two processes may make it at a time: each under a name of its own.
build/vgs.o: vgs.h
	@mkdir -p build
	@printf '#define VGS_IMPLEMENTATION\n#include "../vgs.h"\n' > build/vgs.c
	$(CC) $(CFLAGS) $(OPENMP) -c build/vgs.c -o build/vgs.$$$$.o && mv build/vgs.$$$$.o $@

test:
	@$(SETUP) sh tests/run.sh $(MORE) $(TESTS)

test-quick:
	@$(SETUP) sh tests/run.sh $(QUICK)

test-all:
	@$(SETUP) sh tests/run.sh opencl_groups $(TESTS)
	@$(SETUP) sh tests/all.sh

bench:
	@CC='$(CC)' CFLAGS='$(CFLAGS)' OPENMP="$(OPENMP)" sh bench/run.sh $(BENCH)

any: vgs.h bench/any.c
	@mkdir -p build
	$(CC) $(CFLAGS) $(OPENMP) bench/any.c -o build/bench_any -lm && ./build/bench_any $(ANY)

quality:
	@CC='$(CC)' CFLAGS='$(CFLAGS)' OPENMP="$(OPENMP)" sh bench/quality.sh $(QUALITY)

embed:
	@mkdir -p build
	$(CC) $(CFLAGS) kernels/embed.c -o build/embed && ./build/embed

clean:
	rm -rf build

.PHONY: help run run-ebm examples detect test test-quick test-all bench any quality embed clean
