//! What the compiler calls to copy and to fill memory, small: 110 bytes in place of the 3.4 KB that the compiler's own
//! library has for it, unrolled for speed. A word at a time; the Cortex-M3 takes words from, and puts them to, any address.
//!
//! Names and arguments: *Run-time ABI for the Arm Architecture*, §4.3.4, and the C standard. Only `r0` to `r3` and `ip` are
//! used, which a called function may change. Reading goes before writing, and in the direction in which nothing is
//! written that is still to be read, so that pieces of memory may overlap.

#![expect(
    unsafe_code,
    reason = "these functions cannot be written in Rust, which would call them for their own loops"
)]

core::arch::global_asm!(
    ".section .text.copy, \"ax\", %progbits",
    ".syntax unified",
    ".macro function names:vararg",
    "    .irp name, \\names",
    "    .global \\name",
    "    .type \\name, %function",
    "    .thumb_func",
    "    \\name:",
    "    .endr",
    ".endm",
    // (to, from, length): returns `to`.
    "function memcpy, memmove, __aeabi_memcpy, __aeabi_memcpy4, __aeabi_memcpy8",
    "function __aeabi_memmove, __aeabi_memmove4, __aeabi_memmove8",
    "    subs r3, r0, r1",
    "    cmp r3, r2",
    "    blo 3f",
    "    mov ip, r0",
    "0:  subs r2, #4",
    "    blo 1f",
    "    ldr r3, [r1], #4",
    "    str r3, [ip], #4",
    "    b 0b",
    "1:  adds r2, #4",
    "2:  subs r2, #1",
    "    it lo",
    "    bxlo lr",
    "    ldrb r3, [r1], #1",
    "    strb r3, [ip], #1",
    "    b 2b",
    // The end of `from` is where `to` begins: from the end to the beginning.
    "3:  add r1, r2",
    "    add ip, r0, r2",
    "4:  subs r2, #4",
    "    blo 5f",
    "    ldr r3, [r1, #-4]!",
    "    str r3, [ip, #-4]!",
    "    b 4b",
    "5:  adds r2, #4",
    "6:  subs r2, #1",
    "    it lo",
    "    bxlo lr",
    "    ldrb r3, [r1, #-1]!",
    "    strb r3, [ip, #-1]!",
    "    b 6b",
    ".section .text.fill, \"ax\", %progbits",
    // (to, byte, length): returns `to`.
    "function memset",
    "    mov r3, r1",
    "    mov r1, r2",
    "    mov r2, r3",
    // (to, length, byte)
    "function __aeabi_memset, __aeabi_memset4, __aeabi_memset8",
    "    uxtb r2, r2",
    "    orr r2, r2, r2, lsl #8",
    "    orr r2, r2, r2, lsl #16",
    "    b 0f",
    // (to, length)
    "function __aeabi_memclr, __aeabi_memclr4, __aeabi_memclr8",
    "    movs r2, #0",
    "0:  mov ip, r0",
    "1:  subs r1, #4",
    "    blo 2f",
    "    str r2, [ip], #4",
    "    b 1b",
    "2:  adds r1, #4",
    "3:  subs r1, #1",
    "    it lo",
    "    bxlo lr",
    "    strb r2, [ip], #1",
    "    b 3b",
    ".purgem function",
    ".section .text",
);
