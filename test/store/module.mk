# Tests of the store: programs with the library, one with a fault at every step, one that judges a volume.
STORE_TEST_BIN := $(BUILD)/test/store/crash $(BUILD)/test/store/flushed $(BUILD)/test/store/scribbled

.PHONY: store-tests
store-tests: $(STORE_TEST_BIN) $(BUILD)/stellarium ## build the store's crash tests

$(STORE_TEST_BIN): $(BUILD)/test/store/%: $(BUILD)/test/store/%.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS) -pie $< $(LIB) $(LIBS) -o $@
