# What a guest boots from: Debian's kernel with an initramfs for it, and a root file system. Only these targets use
# the network, and nothing that `make` alone builds needs them.
IMAGE_DIR  := guest/image
IMAGE_OUT  := $(BUILD)/guest
IMAGE_INIT := $(BUILD)/guest/volt-init
# Debian's packages are kept over `make clean` and shared by checkouts.
VOLT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/volt
IMAGE_KERNEL := $(VOLT_CACHE)/debian-cloud

.PHONY: images image-tools
images: $(IMAGE_OUT)/rootfs.ext4 $(IMAGE_OUT)/vmlinuz $(IMAGE_OUT)/initrd.cpio ## Debian's kernel and a small root file system (fetches the kernel)

image-tools:
	@test/need busybox-static cpio e2fsprogs kmod

$(IMAGE_OUT)/rootfs.ext4: $(IMAGE_INIT) $(IMAGE_DIR)/make-image.sh $(IMAGE_DIR)/make-ext4.sh $(shell find $(IMAGE_DIR)/root -type f) | image-tools
	$(SAY) IMAGE $@
	$(Q)$(IMAGE_DIR)/make-image.sh --init $(IMAGE_INIT) $@

$(IMAGE_KERNEL)/kver: | image-tools
	$(SAY) FETCH "Debian's cloud kernel to $(IMAGE_KERNEL)"
	$(Q)$(IMAGE_DIR)/get-debian-kernel.sh $(IMAGE_KERNEL) cloud

$(IMAGE_OUT)/vmlinuz: $(IMAGE_KERNEL)/kver
	@mkdir -p $(@D)
	$(Q)cp $(IMAGE_KERNEL)/vmlinuz $@.new && mv $@.new $@

$(IMAGE_OUT)/initrd.cpio: $(IMAGE_INIT) $(IMAGE_DIR)/make-initrd.sh $(IMAGE_KERNEL)/kver | image-tools
	$(SAY) INITRD $@
	$(Q)$(IMAGE_DIR)/make-initrd.sh --init $(IMAGE_INIT) $(IMAGE_KERNEL)/modules "$$(cat $(IMAGE_KERNEL)/kver)" $@
