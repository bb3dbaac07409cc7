# Every test/unit/test_NAME.c is a criterion program of its own (criterion cannot be linked statically).
UNIT_BIN := $(patsubst test/unit/%.c,$(BUILD)/test/unit/%,$(wildcard test/unit/test_*.c))

.PHONY: units asan
units: $(UNIT_BIN) ## build the unit tests

# Criterion finds its tests in a section that nothing refers to, so the linker must not collect it; its new
# assertions assign an int to a one-bit field inside their macro.
$(UNIT_BIN:%=%.o): WARNINGS += -Wno-conversion

$(UNIT_BIN): $(BUILD)/test/unit/%: $(BUILD)/test/unit/%.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) -pie $(LDFLAGS) -Wl,--no-gc-sections $< $(LIB) $(LIBS) -lcriterion -lseccomp -o $@

# What a disk asks of the ring is written down.
$(BUILD)/test/unit/test_disk_cas: LDFLAGS += -Wl,--wrap=loop_fdatasync,--wrap=loop_write
$(BUILD)/test/unit/test_blk: LDFLAGS += -Wl,--wrap=loop_fdatasync

asan: ## build the VMM and the unit tests with ASan and UBSan, every report fatal
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/asan STATIC=-pie WARNINGS=-Wall OPTIMIZE='-O1 -g -fno-omit-frame-pointer' \
	    SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all' all units
