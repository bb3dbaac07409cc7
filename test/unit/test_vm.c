/* The part of vm.c that needs no KVM: the ring of coalesced writes, as KVM fills it, and the register
 * pages. */
#include "vcpu/vcpu.h"

#include <criterion/criterion.h>
#include <linux/kvm.h>
#include <string.h>

#define ENTRIES 170u /* of a page: (4096 - 8) / 24 */

static union {
    struct kvm_coalesced_mmio_ring ring;
    uint8_t page[GUEST_PAGE];
} kept;
static struct vm vm = {.coalesced = &kept.ring};

/* KVM's part (virt/kvm/coalesced_mmio.c, coalesced_mmio_write). */
static void kvm_keeps(uint64_t address, uint64_t value)
{
    struct kvm_coalesced_mmio *entry = &kept.ring.coalesced_mmio[kept.ring.last];
    *entry = (struct kvm_coalesced_mmio){.phys_addr = address, .len = 4};
    memcpy(entry->data, &value, sizeof(value));
    kept.ring.last = (kept.ring.last + 1) % ENTRIES;
}

Test(vm, coalesced_writes_come_out_in_order, .timeout = 10)
{
    struct vcpu_access write;
    uint64_t in = 0, out = 0;
    cr_assert(!vm_pop_coalesced(&vm, &write), "something in an empty ring");
    for (unsigned round = 0; round < 7; round++) { /* several times around */
        for (unsigned i = 0; i < 100; i++, in++)
            kvm_keeps(0xc0001000 + in, in * 3);
        for (; vm_pop_coalesced(&vm, &write); out++) {
            cr_assert(write.space == VCPU_MMIO && write.is_write && write.length == 4,
                      "not a write of four bytes");
            cr_assert(write.address == 0xc0001000 + out && write.value == out * 3, "not write %lu", out);
        }
        cr_assert(out == in, "%lu of %lu writes", out, in);
    }
}

Test(vm, nothing_is_coalesced_where_kvm_cannot)
{
    struct vm without = {.fd = -1};
    struct vcpu_access write;
    cr_assert(vm_coalesce_mmio(&without, gpa(0xc0001000), 4) == 0, "an error");
    cr_assert(!vm_pop_coalesced(&without, &write), "a write from nowhere");
}

Test(vm, register_pages_are_those_of_the_layout)
{
    static uint8_t host[2 * GUEST_PAGE];
    const struct vm with_pages = {.reg_pages = {.first = gpa(0x2000), .stride = 0x2000, .count = 2},
                                  .reg_pages_host = host};
    cr_assert(vm_reg_page(&with_pages, gpa(0x2000)) == host, "the first");
    cr_assert(vm_reg_page(&with_pages, gpa(0x4000)) == host + GUEST_PAGE, "the second");
    cr_assert(!vm_reg_page(&with_pages, gpa(0x6000)), "one too many");
    cr_assert(!vm_reg_page(&with_pages, gpa(0x3000)), "one between");
    cr_assert(!vm_reg_page(&with_pages, gpa(0)), "one before");
    cr_assert(!vm_reg_page(&(struct vm){.reg_pages = with_pages.reg_pages}, gpa(0x2000)),
              "one of a KVM without");
}
