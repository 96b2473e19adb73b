// Kernels of the conformance kit. Workgroup w = x + gx*(y + gy*z) works on a
// place of its own; what comes out is exact, so that the kit can compute it too.
#include "gpuwm.h"

// linear returns the number of the workgroup; N is the number of arguments.
#define linear(N)                                                              \
    (group_x + gpuwm_grid(args, N, 0) * (group_y + gpuwm_grid(args, N, 1) * group_z))

// step is what a job does to the cell of a workgroup. Two jobs with other seeds
// give another result in the other order, so that order, loss and doubling show.
static inline void step(uint32_t *cells, uint32_t w, uint32_t seed)
{
    cells[w] = cells[w] * 33 + seed + w;
}

// mix: cells, seed.
GPUWM_KERNEL(mix, "buffer u32")
{
    step(gpuwm_buffer(args, 0), linear(2), gpuwm_u32(args, 1));
}

// slow: cells, seed, spin; mix after so many rounds of work.
GPUWM_KERNEL(slow, "buffer u32 u32")
{
    const uint32_t spin = gpuwm_u32(args, 2);
    for (volatile uint32_t i = 0; i < spin; i++)
        ;
    step(gpuwm_buffer(args, 0), linear(3), gpuwm_u32(args, 1));
}

// trap: cells, seed, at; mix, but workgroup `at` faults.
GPUWM_KERNEL(trap, "buffer u32 u32")
{
    const uint32_t w = linear(3);
    if (w == gpuwm_u32(args, 2))
        __builtin_trap();
    step(gpuwm_buffer(args, 0), w, gpuwm_u32(args, 1));
}

// args: out, u32, i32, f32, u64, i64, f64. out gets twelve u64: the bits of the
// six scalars in the low bytes, the grid, the group.
GPUWM_KERNEL(args, "buffer u32 i32 f32 u64 i64 f64")
{
    uint64_t *out = gpuwm_buffer(args, 0);
    for (int i = 0; i < 3; i++) {
        out[i] = gpuwm_u32(args, 1 + i);
        out[3 + i] = gpuwm_u64(args, 4 + i);
        out[6 + i] = gpuwm_grid(args, 7, i);
        out[9 + i] = gpuwm_group(args, 7, i);
    }
}

// sum: cells, out; out[w] += cells[w].
GPUWM_KERNEL(sum, "buffer buffer")
{
    const uint32_t w = linear(2);
    const uint32_t *cells = gpuwm_buffer(args, 0);
    uint32_t *out = gpuwm_buffer(args, 1);
    out[w] += cells[w];
}
