# Crash tests of the store: a program with the library and a fault at every step, and the command killed at random.
STORE_TEST_BIN := $(BUILD)/test/store/crash

.PHONY: store-tests
store-tests: $(STORE_TEST_BIN) $(BUILD)/stellarium ## build the store's crash tests

$(STORE_TEST_BIN): $(BUILD)/test/store/crash.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS) -pie $< $(LIB) $(LIBS) -o $@
