# Tiny PVH guests: test/guest/NAME.c becomes $(BUILD)/test/guest/NAME, a 64-bit ELF around 32-bit code. The compiler gets
# flags of its own: no library, no SSE (a KVM that emulates its guests does not know it), no compiler's idea of a stack
# protector.
GUEST_LIB  := $(wildcard test/guest/lib/*.c)
GUEST_SRC  := $(wildcard test/guest/*.c)
GUEST_BIN  := $(GUEST_SRC:%.c=$(BUILD)/%)
GUEST_OBJ  := $(BUILD)/test/guest/lib/start.o $(GUEST_LIB:%.c=$(BUILD)/%.o)
GUEST_FLAGS := -std=gnu11 -O2 -m32 -march=i686 -mgeneral-regs-only -ffreestanding -fno-pic -fno-pie \
    -fno-stack-protector -fcf-protection=none -fno-tree-loop-distribute-patterns -fno-asynchronous-unwind-tables \
    $(WARNINGS) -Itest/guest

.PHONY: guests
guests: $(GUEST_BIN) ## build the tiny test guests

$(GUEST_SRC:%.c=$(BUILD)/%.o) $(GUEST_LIB:%.c=$(BUILD)/%.o): $(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)gcc $(GUEST_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/test/guest/lib/start.o: test/guest/lib/start.S
	@mkdir -p $(@D)
	$(Q)gcc -m32 -c $< -o $@

$(GUEST_BIN): $(BUILD)/test/guest/%: $(BUILD)/test/guest/%.o $(GUEST_OBJ) $(wildcard test/guest/*.S test/guest/*.ld)
	$(SAY) LD $@
	$(Q)ld --no-warn-rwx-segments -m elf_i386 -T test/guest/guest.ld -o $@.elf32 $(GUEST_OBJ) $<
	$(Q)objcopy -O binary $@.elf32 $@.image
	$(Q)gcc -DIMAGE='"$@.image"' -c test/guest/image.S -o $@.image.o
	$(Q)ld --no-warn-rwx-segments -T test/guest/image.ld -o $@ $@.image.o
