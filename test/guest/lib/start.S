/* Entry of every tiny guest: PVH (32-bit protected mode, flat segments, no paging, EBX = hvm_start_info). First in the
 * image, so that its address is the image's own. */
    .section .text.start, "ax"
    .code32
    .globl _start
_start:
    mov $stack_end, %esp
    xor %ebp, %ebp
    push %ebp               /* 16-byte alignment at the call, as the ABI wants it */
    push %ebp
    push %ebp
    push %ebx
    call guest_start
1:  hlt
    jmp 1b

    .section .bss
    .balign 16
    .skip 16384
stack_end:

    .section .note.GNU-stack, "", @progbits
