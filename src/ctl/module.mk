# The voltctl command.
VOLTCTL_SRC := $(wildcard src/ctl/voltctl/*.c)
VOLTCTL_OBJ := $(VOLTCTL_SRC:%.c=$(BUILD)/%.o)

PROGRAMS += $(BUILD)/voltctl

$(BUILD)/voltctl: $(VOLTCTL_OBJ) $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(STATIC) $(LDFLAGS) $(VOLTCTL_OBJ) $(LIB) $(LIBS) -o $@
