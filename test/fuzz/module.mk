# Every test/fuzz/fuzz_NAME.c is a libFuzzer program; its first inputs lie in test/fuzz/corpus/NAME/. Needs clang,
# and the library once more with clang's coverage in it, so it builds in a folder of its own.
FUZZ_BIN := $(patsubst test/fuzz/%.c,$(BUILD)/test/fuzz/%,$(wildcard test/fuzz/fuzz_*.c))

.PHONY: fuzzers fuzzers-link
fuzzers: ## build the fuzzers
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=clang WARNINGS=-Wall OPTIMIZE='-O1 -g -fno-omit-frame-pointer' \
	    SANITIZE='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' fuzzers-link

fuzzers-link: $(FUZZ_BIN)

$(FUZZ_BIN): $(BUILD)/test/fuzz/%: $(BUILD)/test/fuzz/%.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) -pie $(LDFLAGS) -fsanitize=fuzzer $< $(LIB) $(LIBS) -o $@
