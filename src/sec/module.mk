# The seccomp filters are made when the monitor is built, by a program of the builder's own that links libseccomp. A
# start only hands them to the kernel.
FILTERS  := $(BUILD)/src/sec/filters.h
SEC_LIBS := -lseccomp

$(BUILD)/src/sec/make-filters: src/sec/generate/filters.c src/sec/roles.h | $(PACKAGES)
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) -Isrc -D_GNU_SOURCE -std=gnu11 -O1 $(WARNINGS) $< $(SEC_LIBS) -o $@

$(FILTERS): $(BUILD)/src/sec/make-filters
	$(SAY) GEN $@
	$(Q)$< >$@.new && mv $@.new $@

$(BUILD)/src/sec/seccomp.o: $(FILTERS)
$(BUILD)/src/sec/seccomp.o: CPPFLAGS += -I$(BUILD)/src
