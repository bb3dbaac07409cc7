# Stardust. `make help` lists the targets; CONTRIBUTING.md says how the tree is built.
.DEFAULT_GOAL := all
VERSION := 0.1.0
PREFIX  ?= /usr/local
BUILD   ?= build

# make V=1 shows the commands.
Q   := $(if $(V),,@)
SAY := @$(if $(V),:,printf '  %-3s %s\n')

CC       ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough -Werror
HARDEN   := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fcf-protection
OPTIMIZE ?= -O2 -g $(HARDEN)
CPPFLAGS += -Isrc -isystem /usr/include/libnl3 -D_GNU_SOURCE -DVOLT_VERSION='"$(VERSION)"'
CFLAGS   += -std=gnu11 $(OPTIMIZE) $(WARNINGS) $(SANITIZE) -pthread -ffunction-sections -fdata-sections
# Static and position independent: an exec of volt-vmm maps one file and binds nothing (loading shared libraries was
# a millisecond of a boot that has few), and every address is still randomised.
# Warnings of the linker are errors: one that matters here says that a function would load shared libraries all the same
# (getaddrinfo() and other users of NSS).
# libnl refers to such functions, to print names that nothing here asks for.
STATIC   ?= -static-pie -Wl,--fatal-warnings \
            $(foreach name,getaddrinfo getprotobyname getprotobynumber,-Wl,--defsym=$(name)=abort)
LDFLAGS  += -pthread $(SANITIZE) -Wl,--gc-sections -Wl,-z,relro,-z,now
LIBS     := -lcap -lnl-3 -luring -lev -ljansson -lhttp_parser -lcrypto -lxxhash -lzstd -llz4 -llzma -lbz2 -lz -lm

# One library of everything that is not a main(); each program takes from it what it needs.
VMM_SRC  := src/main.c
LIB_SRC  := $(filter-out $(VMM_SRC),$(wildcard src/*.c)) \
            $(wildcard src/base/*.c src/loop/*.c src/vcpu/*.c src/boot/*.c src/dev/*.c src/net/*.c src/store/*.c src/sec/*.c src/ctl/*.c \
            src/agent/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
VMM_OBJ  := $(VMM_SRC:%.c=$(BUILD)/%.o)
LIB      := $(BUILD)/libvolt.a

PROGRAMS := $(BUILD)/volt-vmm
include $(wildcard src/*/module.mk guest/*/module.mk test/*/module.mk bench/module.mk)

.PHONY: all run check format install clean help
all: $(PROGRAMS) ## build every program (no network needed)

# Looked at once, and again when the list has changed. Without it, the first word of what is missing would be a header's name.
PACKAGES := $(BUILD)/packages-found
$(PACKAGES): test/packages.build test/builds-here
	@mkdir -p $(@D)
	@test/builds-here $(CC)
	@touch $@

$(BUILD)/%.o: %.c | $(PACKAGES)
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIE -MMD -MP -c $< -o $@

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(SAY) AR $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/volt-vmm: $(VMM_OBJ) $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(STATIC) $(LDFLAGS) $(VMM_OBJ) $(LIB) $(LIBS) -o $@

run: ## boot a guest to a shell on this terminal, in the lab if this machine's KVM cannot (NET=1: with a network)
	@BUILD='$(BUILD)' NET='$(NET)' test/lab/run-anywhere

check: ## the whole test suite; installs packages that are missing when run by root
	@BUILD='$(BUILD)' test/check

format: ## format every C file
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

# Where Debian has such things. The guest's own program and what volt-kernel builds a kernel from are no commands.
INSTALL_TO := $(DESTDIR)$(PREFIX)
install: all ## to PREFIX (/usr/local), below DESTDIR if set
	install -D -t '$(INSTALL_TO)/bin' $(filter-out $(BUILD)/guest/volt-init,$(PROGRAMS))
	ln -sf volt-vmm '$(INSTALL_TO)/bin/firecracker'
	install -D -t '$(INSTALL_TO)/lib/volt' $(BUILD)/guest/volt-init
	$(foreach page,$(wildcard docs/man/*.1),install -D -m 644 -t '$(INSTALL_TO)/share/man/man1' $(page) &&) true
	$(foreach file,$(wildcard completion/*),install -D -m 644 -t '$(INSTALL_TO)/share/bash-completion/completions' $(file) &&) true
	install -D -m 644 -t '$(INSTALL_TO)/lib/systemd/system' $(wildcard systemd/*)
	sed -i 's|/usr/local/|$(PREFIX)/|g' '$(INSTALL_TO)/lib/systemd/system/volt@.service'
	install -D -m 644 -t '$(INSTALL_TO)/share/volt/kernel' guest/kernel/config
	install -D -m 644 -t '$(INSTALL_TO)/share/volt/kernel/patches' $(wildcard guest/kernel/patches/*.patch)
	$(foreach script,$(wildcard guest/kernel/*.sh),install -D -t '$(INSTALL_TO)/share/volt/kernel' $(script) &&) true

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
