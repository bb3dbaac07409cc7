/* The 64-bit ELF around a guest's 32-bit image: monitors take no other kind of vmlinux. */
    .data
    .incbin IMAGE

/* XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h): where PVH enters. */
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long 0x100000

    .section .note.GNU-stack, "", @progbits
