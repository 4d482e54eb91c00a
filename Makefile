# shunt - `make help` lists the targets. Variables: V=1 (commands), SAN=address,undefined (or thread), DESTDIR, PREFIX, CC, CLANG.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

CC ?= gcc
CLANG ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/bin/bpftool) bpftool)
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
VERSION := 0.1.0
BUILD ?= $(if $(SAN),build-$(subst $(comma),-,$(SAN)),build)
comma := ,

Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-7s %s\n' $(1) $(2))

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DSHUNT_VERSION='"$(VERSION)"' $(WARN) -Iuser -Iinclude $(CFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -Wno-error) # instrumented, gcc guesses wrong
ALL_LDFLAGS := -pthread $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
BPF_LIBS = $(shell $(PKG_CONFIG) --libs libbpf)
SECCOMP_LIBS = $(shell $(PKG_CONFIG) --libs libseccomp)
CMOCKA_LIBS = $(shell $(PKG_CONFIG) --libs cmocka)
BPF_ARCH := $(shell uname -m | sed 's/x86_64/x86/;s/aarch64/arm64/')
BPF_CFLAGS := -g -O2 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Wextra -Werror -Iinclude

USER_SRC := $(sort $(wildcard user/*.c))
USER_OBJ := $(USER_SRC:user/%.c=$(BUILD)/user/%.o)
TOOLS := $(BUILD)/exact $(BUILD)/edges $(BUILD)/changing $(BUILD)/flood $(BUILD)/shunt-dice $(BUILD)/shunt-scaled $(BUILD)/shunt-mortal \
	$(BUILD)/shunt-next $(BUILD)/shunt-jumpy $(BUILD)/shunt-older
# Left out with sanitizers: test_privileges, since their own system calls could not be restricted.
CHECK_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(filter-out $(if $(SAN),%/test_privileges.c),$(wildcard tests/test_*.c))))
BPF_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(filter-out %_help.c,$(wildcard tests/bpf_*.c))))

.PHONY: all
all: $(BUILD)/shunt compile_commands.json ## build the daemon: build/shunt

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# ---- the BPF side ----

$(BUILD)/shunt.bpf.o: bpf/shunt.bpf.c Makefile
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -Ivmlinux -MMD -MP -c $< -o $@

$(BUILD)/shunt.skel.h: $(BUILD)/shunt.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name shunt_bpf > $@

.PHONY: vmlinux-check
vmlinux-check: ## compile the BPF side against the running kernel's own types too
	@mkdir -p $(BUILD)/vmlinux-running
	$(Q)$(BPFTOOL) btf dump file /sys/kernel/btf/vmlinux format c > $(BUILD)/vmlinux-running/vmlinux.h
	$(Q)$(CLANG) $(BPF_CFLAGS) -I$(BUILD)/vmlinux-running -c bpf/shunt.bpf.c -o $(BUILD)/vmlinux-running/shunt.bpf.o
	@echo "vmlinux-check: the program compiles against this kernel's types"

# ---- the daemon ----

$(BUILD)/user/splice.o: $(BUILD)/shunt.skel.h
$(BUILD)/user/splice.o: ALL_CFLAGS += -I$(BUILD)

$(BUILD)/user/%.o: user/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/shunt: $(USER_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(BPF_LIBS) $(SECCOMP_LIBS) $(LIBS)

# ---- tools of the tests ----

.PHONY: tools
tools: $(TOOLS) ## build the tests' own clients and servers: build/exact, build/edges, build/changing, build/flood

$(BUILD)/tools/%.o: tests/tools/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/tools -MMD -MP -c $< -o $@

tool_objects = $(patsubst tests/tools/%.c,$(BUILD)/tools/%.o,$(sort $(wildcard tests/tools/$(1)*.c)))
$(BUILD)/exact: $(call tool_objects,exact)
$(BUILD)/edges: $(call tool_objects,edges)
$(BUILD)/flood: $(call tool_objects,flood)
$(BUILD)/changing: $(call tool_objects,changing) $(BUILD)/tools/exact_lib.o
# The daemon with other choices: dice, and those of a machine that is a hundred times as fast.
$(BUILD)/shunt-dice $(BUILD)/shunt-scaled: $(BUILD)/shunt-%: $(BUILD)/tools/%_choose.o $(filter-out %/choose.o,$(USER_OBJ))
# And one whose worker dies where a test wants it: it throws dice too, or short sessions would never see the kernel.
MORTAL := socket connect accept4 close shutdown setsockopt getsockopt recv send read splice epoll_ctl madvise sigtimedwait prctl \
	bpf_map_update_elem bpf_map_delete_elem
$(BUILD)/shunt-mortal: $(BUILD)/tools/mortal.o $(BUILD)/tools/dice_choose.o $(filter-out %/choose.o,$(USER_OBJ))
$(BUILD)/shunt-mortal: ALL_LDFLAGS += $(foreach f,$(MORTAL),-Wl,--wrap=$(f))
# And one whose clock is put forward and back.
$(BUILD)/shunt-jumpy: $(BUILD)/tools/jumpy.o $(USER_OBJ)
$(BUILD)/shunt-jumpy: ALL_LDFLAGS += -Wl,--wrap=clock_gettime -Wl,--wrap=time
# And one that takes the kernel for an older one, which does not count what is unread; it throws dice too.
$(BUILD)/older/qualify.o: user/qualify.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -DUNREAD_FIRST=SOCK_UNREAD_SHOWN -MMD -MP -c $< -o $@
$(BUILD)/shunt-older: $(BUILD)/older/qualify.o $(BUILD)/tools/dice_choose.o $(filter-out %/qualify.o %/choose.o,$(USER_OBJ))
# And one of a later version, with another program in the kernel: to upgrade to.
$(BUILD)/next/shunt.bpf.o: bpf/shunt.bpf.c Makefile
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -DLOOK_EVERY=8 -Ivmlinux -MMD -MP -c $< -o $@
$(BUILD)/next/shunt.skel.h: $(BUILD)/next/shunt.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name shunt_bpf > $@
$(BUILD)/next/%.o: user/%.c $(BUILD)/next/shunt.skel.h Makefile
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -USHUNT_VERSION -DSHUNT_VERSION='"$(VERSION)-next"' -I$(BUILD)/next -MMD -MP -c $< -o $@
NEXT := main splice $(notdir $(basename $(shell grep -l SHUNT_VERSION user/*.c)))
$(BUILD)/shunt-next: $(addprefix $(BUILD)/next/,$(addsuffix .o,$(sort $(NEXT)))) \
	$(filter-out $(addprefix %/user/,$(addsuffix .o,$(NEXT))),$(USER_OBJ))
$(BUILD)/shunt-dice $(BUILD)/shunt-scaled $(BUILD)/shunt-mortal $(BUILD)/shunt-next $(BUILD)/shunt-jumpy $(BUILD)/shunt-older: TOOL_LIBS = $(BPF_LIBS) $(SECCOMP_LIBS) $(LIBS)
$(TOOLS):
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(TOOL_LIBS)

# ---- the bench's load generator ----

BENCH_OBJ := $(patsubst tests/bench/%.c,$(BUILD)/bench/%.o,$(sort $(wildcard tests/bench/*.c)))

$(BUILD)/bench/%.o: tests/bench/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/load: $(BENCH_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ -lpthread

.PHONY: check-bench
check-bench: $(BUILD)/load ## would the bench notice a wrong byte? (no privileges, seconds)
	$(Q)$(BUILD)/load selftest

.PHONY: bench
bench: all $(BUILD)/load ## measure against HAProxy and nginx, write docs/BENCHMARKS.md (root, an hour and a half); BENCH="--rows download"
	$(Q)scripts/bench.sh $(BENCH)

.PHONY: bench-quick
bench-quick: all $(BUILD)/load ## the main rows of it, in two minutes, printed only (root)
	$(Q)scripts/bench.sh --quick $(BENCH)

# ---- tests ----

# The thread sanitizer knows only some places of memory: where the kernel randomizes more than it expects
# (vm.mmap_rnd_bits, 32 on newer systems), its programs end before they begin.
SAN_WRAP := $(if $(findstring thread,$(SAN)),setarch -R)
# Each test links only what its module may use, so that a forbidden call does not link.

USES_config := config config_% addr
USES_addr := addr
USES_log := log log_% addr
USES_tcplog := tcplog addr
USES_supervisor := supervisor fdtable shared handover log log_% addr
USES_privileges := privileges
USES_balance := balance
USES_choose := choose
USES_budget := budget
USES_loop := loop
USES_relay := relay sock addr
USES_stats := stats
USES_handover := handover fdtable shared
USES_ledger := ledger shared handover fdtable
USES_pool := pool shared handover fdtable balance stats log log_% addr
USES_listener := listener loop sock addr
USES_session := session session_% choose budget loop sock relay pool shared handover fdtable balance stats ledger log log_% addr tcplog listener
USES_session_connect := $(USES_session)
USES_lb_thread := lb_thread $(USES_session)
USES_session_splice := $(USES_session)
USES_session_adopt := $(USES_session)
USES_session_faults := $(USES_session)
USES_session_mover := $(filter-out choose,$(USES_session)) # it chooses itself
USES_admin := admin admin_% choose config config_% loop sock pool shared handover fdtable balance stats ledger log log_% addr
USES_take_over := lb lb_% admin admin_% config config_% $(USES_session)
USES_lb_build := lb lb_% admin admin_% config config_% $(USES_session)
USES_start_faults := lb lb_% admin admin_% config config_% $(USES_session)
# What a test stands on besides: tests/fake_splice.c takes the place of splice.
HELPS_loop := netpair run_loop threads
HELPS_relay := netpair
HELPS_listener := netpair run_loop
HELPS_session := fake_splice rig conf netpair run_loop
HELPS_session_connect := $(HELPS_session)
HELPS_session_splice := $(HELPS_session)
HELPS_session_adopt := $(HELPS_session)
HELPS_session_faults := $(HELPS_session)
HELPS_session_mover := $(HELPS_session)
HELPS_take_over := no_kernel_path fake_splice netpair run_loop
HELPS_start_faults := no_kernel_path fake_splice netpair
HELPS_lb_build := fake_splice netpair
HELPS_lb_thread := fake_splice conf netpair run_loop
HELPS_pool := conf threads
HELPS_stats := threads
HELPS_log := threads
HELPS_ledger := threads

$(BUILD)/tests/%.o: tests/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c $< -o $@

wrapped = $(foreach f,$(1),-Wl,--wrap=$(f))
$(BUILD)/tests/test_lb_build: ALL_LDFLAGS += $(call wrapped,pipe2)
$(BUILD)/tests/test_log: ALL_LDFLAGS += $(call wrapped,write pwritev2 writev send sendmmsg)
$(BUILD)/tests/test_session: ALL_LDFLAGS += $(call wrapped,sendmmsg splice)
$(BUILD)/tests/test_session_adopt: ALL_LDFLAGS += $(call wrapped,read)
$(BUILD)/tests/test_session_faults: ALL_LDFLAGS += $(call wrapped,malloc calloc reallocarray socket epoll_ctl loop_run)
$(BUILD)/tests/test_supervisor: ALL_LDFLAGS += $(call wrapped,syscall)
$(BUILD)/tests/test_start_faults: ALL_LDFLAGS += $(call wrapped,malloc calloc realloc reallocarray)

$(BUILD)/tests/test_privileges: TEST_LIBS = $(SECCOMP_LIBS)

.SECONDEXPANSION:
$(CHECK_TESTS): $(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o \
		$$(filter $$(addprefix $(BUILD)/user/,$$(addsuffix .o,$$(USES_$$*))),$(USER_OBJ)) \
		$$(addprefix $(BUILD)/tests/,$$(addsuffix .o,$$(HELPS_$$*)))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(TEST_LIBS) $(CMOCKA_LIBS)

# The second ring: with the real splice, which is the skeleton and libbpf.
BPF_USES_flow := splice qualify sock addr handover fdtable
BPF_USES_mover := splice sock addr handover fdtable
BPF_USES_overlap := splice sock addr handover fdtable
BPF_USES_pins := splice sock addr handover fdtable
BPF_USES_session := splice session session_% choose budget loop sock relay pool shared handover fdtable balance stats ledger log log_% addr tcplog
BPF_USES_window := splice sock addr handover fdtable
BPF_HELPS_flow := bpf_help
BPF_HELPS_mover := bpf_help
BPF_HELPS_pins := bpf_help
BPF_HELPS_session := bpf_help conf netpair run_loop
BPF_HELPS_window := bpf_help

$(BPF_TESTS): $(BUILD)/tests/bpf_%: $(BUILD)/tests/bpf_%.o \
		$$(filter $$(addprefix $(BUILD)/user/,$$(addsuffix .o,$$(BPF_USES_$$*))),$(USER_OBJ)) \
		$$(addprefix $(BUILD)/tests/,$$(addsuffix .o,$$(BPF_HELPS_$$*)))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(BPF_LIBS) $(CMOCKA_LIBS) -lpthread

.PHONY: check
check: $(CHECK_TESTS) ## tests that need no privileges (cmocka)
	$(Q)SHUNT_WRAP="$(SAN_WRAP) $$SHUNT_WRAP" scripts/run-cmocka.sh $(CHECK_TESTS)

# Left out: test_log counts its own system calls and watches its children, test_admin moves 24 MB against a deadline.
# valgrind does not know clone(2) with CLONE_FILES, which test_supervisor is about, and opens files, which test_privileges forbids.
.PHONY: check-valgrind
check-valgrind: $(CHECK_TESTS) ## the same under valgrind
	$(Q)SHUNT_JOBS=2 SHUNT_WRAP="valgrind -q --error-exitcode=9 --leak-check=full" scripts/run-cmocka.sh \
		$(filter-out %/test_log %/test_admin %/test_supervisor %/test_privileges,$(CHECK_TESTS))

.PHONY: check-bpf
check-bpf: $(BPF_TESTS) ## tests of the program in the running kernel (root)
	$(Q)SHUNT_WRAP="$(SAN_WRAP) $$SHUNT_WRAP" scripts/run-cmocka.sh $(BPF_TESTS)

RINGS_NET ?=
.PHONY: check-net
check-net: all tools ## whole daemon, real peers, private namespaces (root); RINGS_NET="edges limits" for some of it
	$(Q)SHUNT_BUILD=$(abspath $(BUILD)) scripts/check-net.sh $(RINGS_NET)

.PHONY: check-memcheck
check-memcheck: all tools ## whole daemon under valgrind (root)
	$(Q)SHUNT_BUILD=$(abspath $(BUILD)) scripts/net/memcheck.sh --quick

.PHONY: check-kernels
check-kernels: all tools $(CHECK_TESTS) $(BPF_TESTS) ## check, check-bpf and the daemon on Debian's kernels 6.1 and 6.12, emulated
	$(Q)scripts/kernels.sh

SOAK_SECONDS ?= 600
.PHONY: soak
soak: all tools ## everything at once for SOAK_SECONDS (600): every byte right, and nothing grows? (root; not in CI)
	$(Q)SHUNT_BUILD=$(abspath $(BUILD)) scripts/soak.sh --seconds $(SOAK_SECONDS)

KILLS ?= 1000
KILLS_SESSIONS ?= 50000
.PHONY: check-kills
check-kills: all tools ## KILLS workers (1000) are killed over KILLS_SESSIONS random sessions (50000): ten minutes (root; not in CI)
	$(Q)SHUNT_BUILD=$(abspath $(BUILD)) scripts/kills.sh --kills $(KILLS) --sessions $(KILLS_SESSIONS)

UPGRADES ?= 100
UPGRADES_SESSIONS ?= 20000
.PHONY: check-upgrades
check-upgrades: all tools ## another program takes the daemon's place UPGRADES (100) times over UPGRADES_SESSIONS random sessions (20000): some minutes (root; not in CI)
	$(Q)SHUNT_BUILD=$(abspath $(BUILD)) scripts/kills.sh --upgrades $(UPGRADES) --sessions $(UPGRADES_SESSIONS)

FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -g -O1 -std=gnu11 -D_GNU_SOURCE -DSHUNT_VERSION='"fuzz"' -Iuser -Iinclude -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

FUZZERS := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_USES_config := config config_% addr
FUZZ_USES_admin := admin admin_% choose config config_% loop sock pool shared handover fdtable balance stats ledger log log_% addr
FUZZ_USES_handover := handover fdtable
FUZZ_USES_ledger := lb lb_% admin admin_% config config_% $(USES_session)

$(addprefix $(BUILD)/,$(FUZZERS)): $(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h $(wildcard user/*.h) \
		$$(filter $$(addprefix user/,$$(addsuffix .c,$$(FUZZ_USES_$$*))),$(USER_SRC)) Makefile
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_FLAGS) $(FUZZ_EXTRA) $(filter %.c,$^) -lpthread -o $@

# One after the other, each for FUZZ_SECONDS; DONE says how much of the code it reached (cov: edges).
.PHONY: fuzz
fuzz: $(addprefix $(BUILD)/,$(FUZZERS)) ## feed parsers and take-over with mutations for FUZZ_SECONDS (60) each
	$(Q)for f in $(FUZZERS:fuzz_%=%); do \
		mkdir -p $(BUILD)/corpus/$$f; dict=tests/fuzz/$$f.dict; echo "== fuzz_$$f"; \
		$(BUILD)/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 \
			$$([ ! -e $$dict ] || echo -dict=$$dict) -artifact_prefix=$(BUILD)/ \
			$(BUILD)/corpus/$$f tests/fuzz/corpus/$$f || exit 1; \
	done

# What the inputs kept so far (build/corpus) and those of tests/fuzz/corpus reach: lines and branches of each file.
.PHONY: fuzz-coverage
fuzz-coverage: ## how much of the code the fuzzers reach (after "make fuzz")
	$(Q)for f in $(FUZZERS:fuzz_%=%); do \
		$(MAKE) -s BUILD=$(BUILD)/coverage FUZZ_EXTRA="-fprofile-instr-generate -fcoverage-mapping" $(BUILD)/coverage/fuzz_$$f && \
		mkdir -p $(BUILD)/corpus/$$f && \
		LLVM_PROFILE_FILE=$(BUILD)/coverage/$$f.raw $(BUILD)/coverage/fuzz_$$f -runs=0 $(BUILD)/corpus/$$f tests/fuzz/corpus/$$f \
			2> /dev/null && \
		llvm-profdata merge -o $(BUILD)/coverage/$$f.data $(BUILD)/coverage/$$f.raw && echo "== fuzz_$$f" && \
		llvm-cov report -show-functions=false -instr-profile=$(BUILD)/coverage/$$f.data $(BUILD)/coverage/fuzz_$$f user | \
			awk '$$10 ~ /%/ { print $$1, "lines", $$10, "branches", $$13 }' | sort | column -t || exit 1; \
	done

# ---- housekeeping ----

FORMATTED := $(wildcard user/*.[ch] include/*.h tests/*.[ch] tests/tools/*.[ch] tests/bench/*.[ch] tests/fuzz/*.[ch])
.PHONY: fmt
fmt: ## format the C code (clang-format 14)
	clang-format -i $(FORMATTED)

.PHONY: lint
lint: ## what the tools say: format, shellcheck, cppcheck
	clang-format --dry-run -Werror $(FORMATTED)
	shellcheck scripts/*.sh scripts/net/*.sh scripts/bench/*.sh
	cppcheck -q --enable=warning,portability --inline-suppr --error-exitcode=1 -Iuser -Iinclude user

compile_commands.json: Makefile
	@{ sep='['; for f in $(USER_SRC); do \
		printf '%s\n{"directory": "%s", "file": "%s", "command": "%s"}' "$$sep" "$(CURDIR)" "$$f" \
			'$(subst ",\\\",$(CC) $(ALL_CFLAGS) -I$(BUILD) -c) '"$$f"; sep=','; \
	done; printf '\n]\n'; } > $@

.PHONY: install
install: $(BUILD)/shunt ## install the daemon and its manual under DESTDIR and PREFIX
	install -D -m 755 $(BUILD)/shunt $(DESTDIR)$(PREFIX)/sbin/shunt
	install -D -m 644 docs/shunt.8 $(DESTDIR)$(PREFIX)/share/man/man8/shunt.8
	install -D -m 644 docs/shunt.cfg.5 $(DESTDIR)$(PREFIX)/share/man/man5/shunt.cfg.5

-include $(wildcard $(BUILD)/tools/*.d $(BUILD)/bench/*.d $(BUILD)/user/*.d $(BUILD)/tests/*.d $(BUILD)/*.d)

.PHONY: clean
clean: ## remove what was built
	rm -rf build build-* compile_commands.json
