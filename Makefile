# qwen3dm: `make demo` and `make test` install what they need; the rest is an ordinary PGXS build.
#
#   make, make install, make installcheck    the extension and its engine, as PGXS users know them
#   make demo                                a throw-away cluster with a real model, from nothing
#   make test                                unit, oracle, regression and TAP tests, from nothing
#   make headers-check                       compile only, against every PostgreSQL whose headers are here
#   make fuzz, make tsan, make format        for developers
#
# The module (qwen3dm.so: src/extension, src/protocol) is built by PGXS. The engine
# (qwen3dm-engine: src/engine, src/model, src/protocol, kernels) is built by engine.mk's rules below:
# it shares no object with the module and contains no PostgreSQL code.

MODULE_big = qwen3dm
EXTENSION = qwen3dm
EXTVERSION = 0.1.0
DATA = sql/qwen3dm--$(EXTVERSION).sql
PGFILEDESC = "qwen3dm - Qwen3 language models inside PostgreSQL"

EXTENSION_SRC := $(sort $(wildcard src/extension/*.c)) src/protocol/protocol.c
OBJS = $(EXTENSION_SRC:.c=.o)
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare \
	-fvisibility=hidden

# Model-independent regression tests; they need a server with qwen3dm preloaded and a model set.
REGRESS ?= $(patsubst sql/%.sql,%,$(filter-out sql/qwen3dm--%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --inputdir=$(srcdir)

# Bitcode of a client of a socket has nothing to inline, and clang need not be there.
override with_llvm := no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
HAVE_PGXS := $(wildcard $(PGXS))

ifneq ($(HAVE_PGXS),)
include $(PGXS)
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
LIB_SRC := $(KERNEL_SRC) $(MODEL_SRC) src/protocol/protocol.c $(SERVICE_SRC)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
ENGINE_OBJ := $(LIB_OBJ) $(BUILD)/obj/src/engine/main.o

# Each instruction set has its own file and its own flags; nothing else may use them.
MACHINE := $(shell uname -m)
ifneq ($(filter x86_64 amd64,$(MACHINE)),)
ISA_avx2 = -mavx2 -mfma -mf16c
ISA_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
endif
isa_flags = $(ISA_$(basename $(notdir $(1))))

all: $(ENGINE)

$(ENGINE): $(ENGINE_OBJ)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $(ENGINE_OBJ) $(ENGINE_LIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(if $(filter kernels/cpu/%,$<),$(call isa_flags,$<)) -MMD -MP -c -o $@ $<

-include $(ENGINE_OBJ:.o=.d)

# ---------------------------------------------------------------------------------------------
# Unit tests: cmocka programs over the engine's code, built with AddressSanitizer and UBSan
# ---------------------------------------------------------------------------------------------
SAN_CFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g \
	-fno-omit-frame-pointer
SAN_LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/san/%.o)
UNIT_SRC := $(sort $(wildcard test/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:test/unit/%.c=$(BUILD)/san/%)

$(BUILD)/san/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(SAN_CFLAGS) \
		$(if $(filter kernels/cpu/%,$<),$(call isa_flags,$<)) -MMD -MP -c -o $@ $<

$(BUILD)/san/test_%: $(BUILD)/san/test/unit/test_%.o $(SAN_LIB_OBJ)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(SAN_CFLAGS) -o $@ $^ -lcmocka $(ENGINE_LIBS)

-include $(SAN_LIB_OBJ:.o=.d) $(UNIT_SRC:%.c=$(BUILD)/san/%.d)

unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

.PHONY: unit format
.SECONDARY:
