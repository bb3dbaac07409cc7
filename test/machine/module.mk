# A program of the machine tests that runs on both sides of a vsock device. Static: a guest has no libraries.
MACHINE_TEST_BIN := $(BUILD)/test/machine/peer

.PHONY: machine-tests
machine-tests: $(MACHINE_TEST_BIN) ## build what the machine tests run

$(MACHINE_TEST_BIN): $(BUILD)/test/machine/%: $(BUILD)/test/machine/%.o
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS) -static $< -o $@
