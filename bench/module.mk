# What the benchmarks run inside the lab.
BENCH_BIN := $(BUILD)/bench/stopwatch $(BUILD)/bench/blockload

.PHONY: bench-programs
bench-programs: $(BENCH_BIN) ## build the programs that the benchmarks use

$(BENCH_BIN): $(BUILD)/bench/%: $(BUILD)/bench/%.o $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(STATIC) $(LDFLAGS) $< $(LIB) -luring -o $@
