# The stellarium command.
STORE_CMD_SRC := $(wildcard src/store/cmd/*.c)
STORE_CMD_OBJ := $(STORE_CMD_SRC:%.c=$(BUILD)/%.o)

STORE_CMD_LIBS := -larchive

PROGRAMS += $(BUILD)/stellarium

$(BUILD)/stellarium: $(STORE_CMD_OBJ) $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) $(STATIC) $(LDFLAGS) $(STORE_CMD_OBJ) $(LIB) $(STORE_CMD_LIBS) $(LIBS) -o $@
