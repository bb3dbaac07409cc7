# volt-kernel, and `make kernel`: the guest's kernel.
KERNEL_DIR := guest/kernel
KERNEL_SRC := $(wildcard $(KERNEL_DIR)/*.c)
KERNEL_OBJ := $(KERNEL_SRC:%.c=$(BUILD)/%.o)

PROGRAMS += $(BUILD)/volt-kernel

$(BUILD)/volt-kernel: $(KERNEL_OBJ) $(LIB)
	$(SAY) LD $@
	$(Q)$(CC) -pie -Wl,--as-needed $(LDFLAGS) $(KERNEL_OBJ) $(LIB) $(LIBS) -o $@

.PHONY: kernel
kernel: $(BUILD)/volt-kernel ## build our own guest kernel from Debian's linux-source (ten minutes)
	VOLT_KERNEL_SCRIPT=$(KERNEL_DIR)/build.sh $(BUILD)/volt-kernel build
