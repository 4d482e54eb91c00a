# shunt - `make help` lists the targets. Variables: V=1 (commands), SAN=address,undefined, DESTDIR, PREFIX, CC, CLANG.
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
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ALL_LDFLAGS := $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
BPF_LIBS = $(shell $(PKG_CONFIG) --libs libbpf)
CMOCKA_LIBS = $(shell $(PKG_CONFIG) --libs cmocka)
BPF_ARCH := $(shell uname -m | sed 's/x86_64/x86/;s/aarch64/arm64/')
BPF_CFLAGS := -g -O2 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Wextra -Werror -Iinclude

USER_SRC := $(sort $(wildcard user/*.c))
USER_OBJ := $(USER_SRC:user/%.c=$(BUILD)/user/%.o)
TOOLS := $(BUILD)/exact $(BUILD)/edges
CHECK_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/test_*.c)))
BPF_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/bpf_*.c)))

.PHONY: all
all: $(BUILD)/shunt ## build the daemon: build/shunt

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
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(BPF_LIBS) $(LIBS)

# ---- tools of the tests ----

.PHONY: tools
tools: $(TOOLS) ## build the tests' own clients and servers: build/exact, build/edges

$(BUILD)/tools/%.o: tests/tools/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/tools -MMD -MP -c $< -o $@

tool_objects = $(patsubst tests/tools/%.c,$(BUILD)/tools/%.o,$(sort $(wildcard tests/tools/$(1)*.c)))
$(BUILD)/exact: $(call tool_objects,exact)
$(BUILD)/edges: $(call tool_objects,edges)
$(TOOLS):
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@

# ---- tests ----
# Each test links only what its module may use, so that a forbidden call does not link.

USES_config := config config_% addr
USES_addr := addr
USES_log := log addr
USES_tcplog := tcplog addr
USES_balance := balance
USES_loop := loop
USES_relay := relay
USES_stats := stats
USES_ledger := ledger
USES_pool := pool balance stats log addr
USES_listener := listener loop sock
USES_session := session loop sock relay pool balance stats ledger log addr tcplog listener
USES_admin := admin admin_% session loop sock relay pool balance stats ledger log addr tcplog listener config config_%
# What a test stands on besides: tests/fake_splice.c takes the place of splice.
HELPS_session := fake_splice
HELPS_admin := fake_splice

$(BUILD)/tests/%.o: tests/%.c Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c $< -o $@

.SECONDEXPANSION:
$(CHECK_TESTS): $(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o \
		$$(filter $$(addprefix $(BUILD)/user/,$$(addsuffix .o,$$(USES_$$*))),$(USER_OBJ)) \
		$$(patsubst %,$(BUILD)/tests/%.o,$$(HELPS_$$*))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(CMOCKA_LIBS)

.PHONY: check
check: $(CHECK_TESTS) ## tests that need no privileges (cmocka)
	$(Q)scripts/run-cmocka.sh $(CHECK_TESTS)

-include $(wildcard $(BUILD)/tools/*.d) $(USER_OBJ:.o=.d) $(BUILD)/shunt.bpf.d $(wildcard $(BUILD)/tests/*.d $(BUILD)/*.d)

.PHONY: clean
clean: ## remove what was built
	rm -rf build build-* compile_commands.json
