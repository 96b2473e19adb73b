// Kernels of the engine's tests that misbehave. Their memory ends at 4 MiB.
#include "gpuwm.h"

static void count(const void *args) { gpuwm_add64(gpuwm_buffer(args, 0), 1); }

// trap hits unreachable code in workgroup number N.
GPUWM_KERNEL(trap, "buffer u32")
{
    if (group_x == gpuwm_u32(args, 1))
        __builtin_trap();
    count(args);
}

// wild writes beyond the end of the memory in workgroup number N.
GPUWM_KERNEL(wild, "buffer u32")
{
    if (group_x == gpuwm_u32(args, 1))
        *(volatile uint32_t *)0x7fff0000 = 1;
    count(args);
}

// divide divides by its argument.
GPUWM_KERNEL(divide, "buffer u32")
{
    volatile uint32_t x = 1000;
    x = x / gpuwm_u32(args, 1);
    count(args);
}

// overflow recurses without end; the stack is in memory and in the engine.
__attribute__((noinline)) static uint32_t recurse(volatile uint32_t *p)
{
    volatile uint32_t frame[4] = {*p + 1};
    if (frame[0] == 0)
        return 0; // after 2^32 calls: the stack ends before
    return recurse(frame) + frame[0];
}

GPUWM_KERNEL(overflow, "buffer")
{
    uint32_t zero = 0;
    recurse(&zero);
}

// hungry takes memory until there is none, as a failing allocator does.
GPUWM_KERNEL(hungry, "buffer")
{
    count(args);
    while (__builtin_wasm_memory_grow(0, 4) != (__SIZE_TYPE__)-1)
        ;
    __builtin_trap();
}

// endless never ends workgroup number N.
GPUWM_KERNEL(endless, "buffer u32")
{
    if (group_x == gpuwm_u32(args, 1))
        for (volatile int forever = 1; forever;)
            ;
    count(args);
}
