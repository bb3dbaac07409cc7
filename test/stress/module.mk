# Every test/stress/stress_NAME.c is a plain main() (criterion does not start under TSan) that runs threads against
# each other for some seconds and exits with 0, or 1 with words. TSan ends it at the first race.
STRESS_BIN := $(patsubst test/stress/%.c,$(BUILD)/test/stress/%,$(wildcard test/stress/stress_*.c))

.PHONY: stress stress-link
stress: ## build the stress programs with TSan
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan STATIC=-pie WARNINGS=-Wall OPTIMIZE='-O1 -g -fno-omit-frame-pointer' \
	    SANITIZE='-fsanitize=thread -Wno-tsan' stress-link

stress-link: $(STRESS_BIN)

$(STRESS_BIN): $(BUILD)/test/stress/%: $(BUILD)/test/stress/%.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) -pie $(LDFLAGS) $< $(LIB) $(LIBS) -o $@
