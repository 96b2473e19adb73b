// Kernels of the conformance kit in OpenCL C; conformance.c says what each does.
// The position of a workgroup comes from the global id, which counts a global
// offset in. The first work-item of a workgroup does its work.
#define position(d) ((uint)(get_global_id(d) / get_local_size(d)))
#define linear()                                                               \
    (position(0) + (uint)get_num_groups(0) * (position(1) + (uint)get_num_groups(1) * position(2)))
#define first() (get_local_id(0) + get_local_id(1) + get_local_id(2) == 0)

void step_cell(__global uint *cells, uint w, uint seed)
{
    cells[w] = cells[w] * 33u + seed + w;
}

__kernel void mix(__global uint *cells, uint seed)
{
    if (first())
        step_cell(cells, linear(), seed);
}

__kernel void slow(__global uint *cells, uint seed, uint spin)
{
    if (!first())
        return;
    for (volatile uint i = 0; i < spin; i++)
        ;
    step_cell(cells, linear(), seed);
}

// A device may let a wild write pass: OpenCL C has nothing that surely faults.
__kernel void trap(__global uint *cells, uint seed, uint at)
{
    const uint w = linear();
    if (!first())
        return;
    if (w == at)
        *(volatile __global uint *)(ulong)8 = seed;
    step_cell(cells, w, seed);
}

__kernel void args(__global ulong *out, uint u, int i, float f, ulong v, long j, double g)
{
    if (!first())
        return;
    out[0] = u;
    out[1] = as_uint(i);
    out[2] = as_uint(f);
    out[3] = v;
    out[4] = as_ulong(j);
    out[5] = as_ulong(g);
    for (uint d = 0; d < 3; d++) {
        out[6 + d] = get_num_groups(d);
        out[9 + d] = get_local_size(d);
    }
}

__kernel void sum(__global const uint *cells, __global uint *out)
{
    if (first())
        out[linear()] += cells[linear()];
}
