// A kernel with a memory of its own: it works, on one core.
#include "gpuwm.h"

static uint32_t order; // counts calls: only one core makes it meaningful

GPUWM_KERNEL(ordered, "buffer")
{
    uint32_t *out = gpuwm_buffer(args, 0);
    out[group_x] = group_x * 3 + 1;
    order++;
}
