/* Runs an SSE instruction, as every unmodified Linux does at its start. A KVM that emulates its guests ends
 * it there, so this tells in milliseconds that booting is of no use. */
#include "lib/guest.h"

#define CR0_MP     0x2u
#define CR0_EM     0x4u
#define CR4_OSFXSR 0x200u

void guest_main(const struct start_info *info)
{
    (void)info;
    uint32_t cr0, cr4, value = 21;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr0" : : "r"((cr0 & ~CR0_EM) | CR0_MP));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_OSFXSR));
    __asm__ volatile("movd %0, %%xmm0\n\t"
                     "paddd %%xmm0, %%xmm0\n\t"
                     "movd %%xmm0, %0"
                     : "+r"(value));
    EXPECT(value == 42);
}
