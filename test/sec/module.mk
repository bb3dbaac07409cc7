# evil-vmm: volt-vmm itself, but each confined thread first does what the environment says (evil.c).
EVIL := $(BUILD)/test/sec/evil-vmm

.PHONY: sec-tests
sec-tests: $(EVIL)

$(EVIL): $(BUILD)/test/sec/evil.o $(BUILD)/test/sec/acts.o $(VMM_OBJ) $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(STATIC) $(LDFLAGS) -Wl,--wrap=confine_loop,--wrap=confine_vcpu,--wrap=confine_opener,--wrap=loop_new $^ $(LIBS) -o $@
