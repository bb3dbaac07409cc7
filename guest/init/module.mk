# volt-init: one static program for the guest. musl's start-up and size are a fraction of glibc's (README.md has the
# figures); without musl-gcc (package musl-tools) the host's compiler and libc do.
INIT_CC      ?= $(or $(shell command -v musl-gcc),$(CC))
INIT_SRC     := $(wildcard guest/init/*.c) src/agent/frame.c src/base/fail.c src/base/io.c
INIT_CFLAGS  := -std=gnu11 -Os -Isrc -D_GNU_SOURCE $(WARNINGS) -fno-pie -fstack-protector-strong -fno-asynchronous-unwind-tables \
                -ffunction-sections -fdata-sections
# The kernel's headers, which musl-gcc leaves out.
INIT_CFLAGS  += $(patsubst %,-idirafter %,/usr/include /usr/include/x86_64-linux-gnu)
# musl's ioctl() takes its request, and sigaction its flags, as an int.
INIT_CFLAGS  += -Wno-sign-conversion
# Few pages and few segments: each costs the guest a page fault or a disk read on the way to its first line.
INIT_LDFLAGS := -static -no-pie -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,--build-id=none -Wl,--fatal-warnings -s

PROGRAMS += $(BUILD)/guest/volt-init

$(BUILD)/guest/volt-init: $(INIT_SRC) $(wildcard guest/init/*.h) $(wildcard src/agent/*.h) src/base/base.h guest/init/module.mk | $(PACKAGES)
	@mkdir -p $(@D)
	$(SAY) INIT $@
	$(Q)$(INIT_CC) $(INIT_CFLAGS) $(INIT_SRC) $(INIT_LDFLAGS) -o $@
