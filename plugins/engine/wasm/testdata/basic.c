// Kernels of the engine's tests that behave.
#include "gpuwm.h"

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

// linear number of the workgroup, of a kernel with n arguments.
#define LINEAR(n) (group_x + (uint64_t)gpuwm_grid(args, n, 0) * (group_y + (uint64_t)gpuwm_grid(args, n, 1) * group_z))

// table is initialised data: it must survive the instances of several workers.
static uint32_t table[4] = {3, 5, 7, 11};

// deep uses the stack: a frame of 8 KiB whose content a neighbour must not touch.
__attribute__((noinline)) static uint64_t deep(uint64_t seed)
{
    volatile uint64_t frame[1024];
    for (int i = 0; i < 1024; i++)
        frame[i] = mix(seed + i);
    uint64_t sum = 0;
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 1024; i++)
            sum += frame[i] * table[i & 3];
    return sum;
}

// fill writes one word per workgroup and counts it.
GPUWM_KERNEL(fill, "buffer buffer u64")
{
    uint64_t *out = gpuwm_buffer(args, 0), *count = gpuwm_buffer(args, 1);
    uint64_t i = LINEAR(3);
    out[i] = deep(gpuwm_u64(args, 2) + i);
    gpuwm_add64(count, 1);
}

// step reads what an earlier job left: out[i] = mix(out[i] + k). A workgroup must run exactly once.
GPUWM_KERNEL(step, "buffer u64")
{
    uint64_t *out = gpuwm_buffer(args, 0);
    uint64_t i = LINEAR(2);
    out[i] = mix(out[i] + gpuwm_u64(args, 1));
}

// echo stores what the engine passed: arguments, grid, group and coordinates of the last workgroup.
GPUWM_KERNEL(echo, "buffer u32 i32 f32 u64 i64 f64")
{
    uint64_t *out = gpuwm_buffer(args, 0);
    if (LINEAR(7) + 1 != (uint64_t)gpuwm_grid(args, 7, 0) * gpuwm_grid(args, 7, 1) * gpuwm_grid(args, 7, 2))
        return;
    out[0] = gpuwm_u32(args, 1);
    out[1] = (uint64_t)(int64_t)gpuwm_i32(args, 2);
    out[2] = (uint64_t)(gpuwm_f32(args, 3) * 1000);
    out[3] = gpuwm_u64(args, 4);
    out[4] = (uint64_t)gpuwm_i64(args, 5);
    out[5] = (uint64_t)(gpuwm_f64(args, 6) * 1000);
    for (int d = 0; d < 3; d++) {
        out[6 + d] = gpuwm_grid(args, 7, d);
        out[9 + d] = gpuwm_group(args, 7, d);
    }
    out[12] = group_x, out[13] = group_y, out[14] = group_z;
}

// spin burns rounds of arithmetic per workgroup: the benchmarks' load.
GPUWM_KERNEL(spin, "buffer u32")
{
    uint64_t *out = gpuwm_buffer(args, 0);
    uint64_t x = group_x;
    for (uint32_t i = gpuwm_u32(args, 1); i > 0; i--)
        x = mix(x + i);
    out[group_x & 4095] = x;
}
