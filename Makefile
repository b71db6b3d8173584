# qwen3dm: `make demo` and `make test` install what they need; the rest is an ordinary PGXS build.
#
#   make, make install, make installcheck    the extension and its engine, as PGXS users know them
#   make demo                                a throw-away cluster with a model at work, from nothing;
#                                            MODEL=smollm2: with a small general one
#   make test                                unit, oracle, regression and TAP tests, from nothing
#   make demo-stop                           stops the demo's cluster and removes it
#   make unit, make regress-tests, make server-tests
#                                            parts of it; TESTS=t/003_cancel.pl for some of the last
#   make fuzz-corpus, make fuzz              another part, and fuzzing proper (FUZZ_SECONDS a target)
#   make tsan                                the unit tests once more, under ThreadSanitizer
#   make neon-tests                          the kernels for ARM, cross-compiled and under qemu-user; TESTS="..."
#   make bench                               speed beside llama.cpp's on Qwen3's shapes; BENCH=quick: some of it;
#                                            BENCH=rows: many rows through SQL, beside llama.cpp's server;
#                                            BENCH=surface: labels, extraction, vectors, triggers;
#                                            BENCH=modes: mode auto beside the fixed ones
#   make eval                                accuracy and speed of the modes on the three jobs' rows;
#                                            EVAL_SEED, EVAL_ROWS, EVAL_MODEL
#   make quality                             how far mode efficient is from mode precise on SmolLM2
#   make bench-programs                      the benchmarks of single parts, in build/bench
#   make headers-check                       compile only, against every PostgreSQL whose headers are here
#   make headers-fetch                       gets the headers of other releases from Debian
#   make format, make format-check           clang-format over all C files; shellcheck over the scripts
#   make clean, make distclean               the objects; everything that a command here has made
#
# The module (qwen3dm.so: src/extension, src/protocol, src/policy) is built by PGXS. The engine
# (qwen3dm-engine: src/engine, src/model, src/protocol, src/policy, kernels) is built by the rules
# below: it shares no object with the module and contains no PostgreSQL code.

MODULE_big = qwen3dm
EXTENSION = qwen3dm
EXTVERSION = 0.1.0
DATA = sql/qwen3dm--$(EXTVERSION).sql
PGFILEDESC = "qwen3dm - Qwen3 language models inside PostgreSQL"

POLICY_SRC := $(sort $(wildcard src/policy/*.c))
EXTENSION_SRC := $(sort $(wildcard src/extension/*.c)) src/protocol/protocol.c $(POLICY_SRC)
OBJS = $(EXTENSION_SRC:.c=.o)
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare \
	-fvisibility=hidden
SHLIB_LINK += -lm

# Model-independent regression tests; they need a server with qwen3dm preloaded and a model set.
REGRESS ?= $(patsubst sql/%.sql,%,$(filter-out sql/qwen3dm--%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --inputdir=$(srcdir)

# Bitcode of a client of a socket has nothing to inline, and clang need not be there.
override with_llvm := no

# What "make clean" removes besides PGXS's own files.
EXTRA_CLEAN = $(ENGINE) $(addprefix $(BUILD)/,obj san tsan fuzz bench arm headers/objects)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
HAVE_PGXS := $(and $(wildcard $(PGXS)),$(wildcard $(shell $(PG_CONFIG) --includedir-server)/postgres.h))

ifneq ($(HAVE_PGXS),)
include $(PGXS)
install: install-engine
uninstall: uninstall-engine
distclean: clean-area
$(OBJS): $(wildcard src/extension/*.h src/policy/*.h) src/protocol/protocol.h
else
srcdir = .
all: no-pgxs
no-pgxs:
	@echo "qwen3dm: PostgreSQL's server headers were not found (pg_config --pgxs)." >&2
	@echo "qwen3dm: 'make demo' and 'make test' install them on Debian and Ubuntu;" >&2
	@echo "qwen3dm: elsewhere install the server development package and set PG_CONFIG." >&2
	@exit 1
.PHONY: no-pgxs
endif

# ---------------------------------------------------------------------------------------------
# The engine
# ---------------------------------------------------------------------------------------------
ENGINE = qwen3dm-engine
BUILD = build
ENGINE_CC ?= $(CC)
ENGINE_OPT ?= -O2 -g
ENGINE_CFLAGS = -std=c11 -D_GNU_SOURCE $(ENGINE_OPT) -Wall -Wextra -Wshadow -Wpointer-arith \
	-Wstrict-prototypes -Wmissing-prototypes -fvisibility=hidden -fno-math-errno \
	-fstack-protector-strong -Isrc -Ikernels -pthread
ENGINE_LIBS = -lutf8proc -lcjson -lcrypto -lm -pthread

KERNEL_SRC := $(sort $(wildcard kernels/*.c kernels/cpu/*.c))
MODEL_SRC := $(sort $(wildcard src/model/*.c))
SERVICE_SRC := $(filter-out src/engine/main.c,$(sort $(wildcard src/engine/*.c)))
LIB_SRC := $(KERNEL_SRC) $(MODEL_SRC) src/protocol/protocol.c $(POLICY_SRC) $(SERVICE_SRC)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
ENGINE_OBJ := $(LIB_OBJ) $(BUILD)/obj/src/engine/main.o

# Each instruction set has its own file and its own flags; nothing else may use them.
MACHINE := $(shell uname -m)
ifneq ($(filter x86_64 amd64,$(MACHINE)),)
ISA_avx2 = -mavx2 -mfma -mf16c
ISA_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
endif
# gcc would schedule so many loads ahead that accumulators spill.
ifneq ($(filter aarch64 arm64,$(MACHINE)),)
ISA_neon = -fno-schedule-insns
ISA_neondot = -march=armv8.2-a+dotprod -fno-schedule-insns
endif
isa_flags = $(ISA_$(basename $(notdir $(1))))

all: $(ENGINE)

$(ENGINE): $(ENGINE_OBJ)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $(ENGINE_OBJ) $(ENGINE_LIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(if $(filter kernels/cpu/%,$<),$(call isa_flags,$<)) -MMD -MP -c -o $@ $<

-include $(ENGINE_OBJ:.o=.d)

# Beside the module: the background worker finds it in the server's library folder.
install-engine: $(ENGINE)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(ENGINE) '$(DESTDIR)$(pkglibdir)/$(ENGINE)'

uninstall-engine:
	rm -f '$(DESTDIR)$(pkglibdir)/$(ENGINE)'

# ---------------------------------------------------------------------------------------------
# Unit tests: cmocka programs over the engine's code, built with AddressSanitizer and UBSan in
# build/san and with ThreadSanitizer in build/tsan; the fuzz targets with a plain main() over their
# corpora, and with libFuzzer in build/fuzz
# ---------------------------------------------------------------------------------------------
SAN_CFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g \
	-fno-omit-frame-pointer
TSAN_CFLAGS = -fsanitize=thread -O1 -g -fno-omit-frame-pointer
FUZZ_CFLAGS = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -O1 -g \
	-fno-omit-frame-pointer
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 60

UNIT_SRC := $(sort $(wildcard test/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:test/unit/%.c=$(BUILD)/san/%)
TSAN_BIN := $(UNIT_SRC:test/unit/%.c=$(BUILD)/tsan/%)
FUZZ_SRC := $(sort $(wildcard test/fuzz/fuzz_*.c))
CORPUS_BIN := $(FUZZ_SRC:test/fuzz/%.c=$(BUILD)/san/%)
FUZZ_BIN := $(FUZZ_SRC:test/fuzz/%.c=$(BUILD)/fuzz/%)

# $(1): folder of build/; $(2): compiler; $(3): flags
define sanitized
$(BUILD)/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$(2) $$(ENGINE_CFLAGS) $(3) $$(if $$(filter kernels/cpu/%,$$<),$$(call isa_flags,$$<)) \
		-MMD -MP -c -o $$@ $$<

$(BUILD)/$(1)/test_%: $(BUILD)/$(1)/test/unit/test_%.o $(LIB_SRC:%.c=$(BUILD)/$(1)/%.o)
	$(2) $$(ENGINE_CFLAGS) $(3) -o $$@ $$^ -lcmocka $$(ENGINE_LIBS)

-include $(LIB_SRC:%.c=$(BUILD)/$(1)/%.d) $(UNIT_SRC:%.c=$(BUILD)/$(1)/%.d) \
	$(FUZZ_SRC:%.c=$(BUILD)/$(1)/%.d)
endef
$(eval $(call sanitized,san,$(ENGINE_CC),$(SAN_CFLAGS)))
$(eval $(call sanitized,tsan,$(ENGINE_CC),$(TSAN_CFLAGS)))
$(eval $(call sanitized,fuzz,$(FUZZ_CC),$(FUZZ_CFLAGS)))

$(BUILD)/san/fuzz_%: $(BUILD)/san/test/fuzz/fuzz_%.o $(BUILD)/san/test/fuzz/standalone_main.o \
		$(LIB_SRC:%.c=$(BUILD)/san/%.o)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(SAN_CFLAGS) -o $@ $^ $(ENGINE_LIBS)

$(BUILD)/fuzz/fuzz_%: $(BUILD)/fuzz/test/fuzz/fuzz_%.o $(LIB_SRC:%.c=$(BUILD)/fuzz/%.o)
	$(FUZZ_CC) $(ENGINE_CFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $^ $(ENGINE_LIBS)

unit-programs: $(UNIT_BIN) $(CORPUS_BIN)

unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done

tsan: $(TSAN_BIN)
	@set -e; for t in $(TSAN_BIN); do echo "== $$t"; TSAN_OPTIONS=halt_on_error=1 $$t; done

fuzz-corpus: $(CORPUS_BIN)
	@set -e; for t in $(CORPUS_BIN); do \
		echo "== $$t"; $$t test/fuzz/corpus/$${t##*/fuzz_}; done

# New finds stay in build/fuzz; what is worth keeping is moved to test/fuzz/corpus by hand.
fuzz: $(FUZZ_BIN)
	@set -e; for t in $(FUZZ_BIN); do name=$${t##*/fuzz_}; \
		mkdir -p $(BUILD)/fuzz/found/$$name; \
		echo "== $$t for $(FUZZ_SECONDS) s"; \
		$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 \
			-artifact_prefix=$(BUILD)/fuzz/$$name- -print_final_stats=1 -verbosity=0 \
			$(BUILD)/fuzz/found/$$name test/fuzz/corpus/$$name; done

# TESTS="kernels planes model": these unit tests (test/unit/test_model.c and so on)
neon-tests:
	@MAKE='$(MAKE)' test/setup/arm.sh $(TESTS)

# Benchmarks of single parts: programs that are run by hand, as they say at their top.
BENCH_SRC := $(sort $(wildcard test/bench/bench_*.c))
BENCH_BIN := $(BENCH_SRC:test/bench/%.c=$(BUILD)/bench/%)

$(BUILD)/bench/bench_%: $(BUILD)/obj/test/bench/bench_%.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $^ $(ENGINE_LIBS)

$(BUILD)/bench/bench_kernels: ENGINE_LIBS += -lopenblas

bench-programs: $(BENCH_BIN)

$(BUILD)/bench/peaks: test/bench/peaks.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $<

# Takes half an hour (BENCH=quick: some minutes) and the whole machine; see test/bench/NOTES.md.
bench: $(ENGINE) $(BUILD)/bench/peaks
	@MAKE='$(MAKE)' test/bench/run.sh bench $(ENGINE)

# Needs SmolLM2, which "make demo MODEL=smollm2" fetches, or QUALITY_MODEL=FILE.
quality: $(ENGINE)
	@test/bench/run.sh quality $(ENGINE)

# Some minutes; the rows are made from EVAL_SEED, which training never sees.
eval: $(ENGINE)
	@MAKE='$(MAKE)' test/bench/run.sh eval $(ENGINE)

# ---------------------------------------------------------------------------------------------
# The two commands, and what belongs to them
# ---------------------------------------------------------------------------------------------
demo:
	@MAKE='$(MAKE)' MODEL='$(MODEL)' test/setup/demo.sh

demo-stop:
	@test/setup/demo.sh stop

test:
	@MAKE='$(MAKE)' test/setup/run-tests.sh

# TESTS="t/003_cancel.pl ...": only these
server-tests:
	@MAKE='$(MAKE)' test/setup/run-tests.sh server $(TESTS)

regress-tests:
	@MAKE='$(MAKE)' test/setup/run-tests.sh regress

headers-check:
	@EXTENSION_SRC='$(EXTENSION_SRC)' EXTENSION_FLAGS='-I$(srcdir)/src $(PG_CFLAGS)' \
		test/setup/headers.sh check

headers-fetch:
	@test/setup/headers.sh fetch

clean-area:
	@test/setup/clean.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

format-check:
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	shellcheck -x .ci/run test/setup/*.sh

.PHONY: unit unit-programs tsan neon-tests fuzz fuzz-corpus bench bench-programs quality eval demo demo-stop test server-tests regress-tests \
	headers-check headers-fetch clean-area format format-check install-engine uninstall-engine
.SECONDARY:
