// gpuwm.h: what a kernel in C or C++ needs. Freestanding: no library.
//
//     #include "gpuwm.h"
//
//     GPUWM_KERNEL(scale, "buffer u32 f32")
//     {
//         float *v = gpuwm_buffer(args, 0);
//         uint32_t per_group = gpuwm_u32(args, 1);
//         for (uint32_t i = 0; i < per_group; i++)
//             v[group_x * per_group + i] *= gpuwm_f32(args, 2);
//     }
//
// Build it as the script `build` beside this file does.
//
// The contract: an entry point is called once per workgroup, on any core, in
// any order, several at once. A workgroup that was running when the machine
// died runs again from the last image. So keep state in buffers only (globals and
// statics may be reset between any two workgroups), keep no addresses in
// buffers (they differ from run to run), and write results where the order of
// workgroups does not matter: each workgroup its own place, or atomics that
// commute. Pauses happen between workgroups: a few milliseconds per workgroup
// is a good size, and one that never ends is ended together with its process.
#ifndef GPUWM_H
#define GPUWM_H

#include <stdint.h>

#ifdef __cplusplus
#define GPUWM_LINKAGE extern "C"
#else
#define GPUWM_LINKAGE
#endif

// GPUWM_KERNEL begins the entry point NAME. KINDS declares its arguments in
// order, separated by spaces: buffer u32 i32 f32 u64 i64 f64. The declaration is
// stored in the module, and jobs with other arguments are refused at submit. In
// the body, args is for the functions below; group_x, group_y, group_z are the
// coordinates of the workgroup.
#define GPUWM_KERNEL(NAME, KINDS)                                              \
    __asm__(".section .custom_section.gpuwm,\"\",@\n"                          \
            ".ascii \"" #NAME " " KINDS "\\n\"\n"                              \
            ".text\n");                                                        \
    GPUWM_LINKAGE __attribute__((export_name(#NAME))) void NAME(               \
        const void *args, uint32_t group_x, uint32_t group_y, uint32_t group_z)

// gpuwm_slot returns the 8 bytes of argument I, counted from 0.
static inline uint64_t gpuwm_slot(const void *args, int i) { return ((const uint64_t *)args)[i]; }

// gpuwm_buffer returns the address of buffer argument I, a multiple of 64 KiB
// when the argument names the buffer from its start.
static inline void *gpuwm_buffer(const void *args, int i) { return (void *)(uintptr_t)gpuwm_slot(args, i); }

// Scalars.
static inline uint32_t gpuwm_u32(const void *args, int i) { return (uint32_t)gpuwm_slot(args, i); }
static inline int32_t gpuwm_i32(const void *args, int i) { return (int32_t)gpuwm_slot(args, i); }
static inline uint64_t gpuwm_u64(const void *args, int i) { return gpuwm_slot(args, i); }
static inline int64_t gpuwm_i64(const void *args, int i) { return (int64_t)gpuwm_slot(args, i); }
static inline float gpuwm_f32(const void *args, int i) { return *(const float *)((const uint64_t *)args + i); }
static inline double gpuwm_f64(const void *args, int i) { return *(const double *)((const uint64_t *)args + i); }

// gpuwm_grid and gpuwm_group return the number of workgroups, and the
// workgroup's size, in dimension D (0, 1, 2). N is the number of arguments.
static inline uint32_t gpuwm_grid(const void *args, int n, int d)
{
    return ((const uint32_t *)((const uint64_t *)args + n))[d];
}
static inline uint32_t gpuwm_group(const void *args, int n, int d)
{
    return ((const uint32_t *)((const uint64_t *)args + n))[3 + d];
}

// Atomics on buffers, sequentially consistent; addresses are multiples of the size.
static inline uint32_t gpuwm_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline uint64_t gpuwm_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline uint32_t gpuwm_add32(uint32_t *p, uint32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static inline uint64_t gpuwm_add64(uint64_t *p, uint64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }

// gpuwm_swap64 puts WANT where *HAVE stands and returns 1, or returns 0 and
// stores what stands there in *HAVE.
static inline int gpuwm_swap64(uint64_t *p, uint64_t *have, uint64_t want)
{
    return __atomic_compare_exchange_n(p, have, want, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

#endif
