// mersenne: trial factoring of Mersenne numbers 2^p - 1.
//
// Every factor of 2^p - 1 with p prime has the form q = 2kp + 1 and is 1 or 7
// modulo 8. A workgroup takes one exponent and one block of k, strikes out the
// q that small primes divide, and tests 2^p mod q = 1 for the rest.
//
//   args    0 exponents  buffer of u64: the exponents p, odd primes
//           1 found      buffer of rows {u64 p, u64 factor}: `slots` rows for each exponent
//           2 first      u32: index of the exponent of the workgroups with y = 0
//           3 slots      u32: rows for each exponent
//           4 k_start    u64: k of the first block
//           5 k_block    u32: how many k a workgroup tries
//   grid    x blocks of k, y exponents
//
// The rows of an exponent hold its smallest factors found, in rising order, and
// zeros after them. That is the same whatever the order of the workgroups:
// each slot keeps the minimum of what arrives and hands on the rest.
//
// Only prime factors are reported: the product of two of them passes the test
// as well, and is then refused by a test of primality. Candidates of 2^63 and
// more are left out.
#include "gpuwm.h"

#define SIEVE 5000             // small primes end here
#define BLOCK (1u << 17)       // how many k are sieved at once
#define CLASS (BLOCK / 4)      // how many of them are equal modulo 4
#define LIMIT (1ull << 63)     // candidates are below

// high returns the upper 64 bits of a product.
static inline uint64_t high(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    uint64_t carry = a0 * b1 + (uint32_t)middle;
    return a1 * b1 + (middle >> 32) + (carry >> 32);
}

// square returns x² / 2^64 mod q for x < q; inverse is 1/q mod 2^64.
static inline uint64_t square(uint64_t x, uint64_t q, uint64_t inverse)
{
    uint64_t x0 = (uint32_t)x, x1 = x >> 32, cross = x0 * x1;
    uint64_t low = x * x;
    uint64_t up = x1 * x1 + (cross >> 31) + ((x0 * x0 + (cross << 33)) < (cross << 33));
    uint64_t m = high(low * inverse, q);
    return up - m + (up < m ? q : 0);
}

static inline uint64_t twice(uint64_t x, uint64_t q)
{
    x += x;
    return x >= q ? x - q : x;
}

// divides reports whether 2^p = 1 mod q, for odd q < 2^63, q > 1. It works
// with Montgomery's representation: x stands for x / 2^64.
static int divides(uint64_t p, uint64_t q)
{
    uint64_t inverse = q * 3 ^ 2; // right in 5 bits; each step doubles that
    for (int i = 0; i < 4; i++)
        inverse *= 2 - q * inverse;
    uint64_t one = -q % q, x = one;
    int bit = 63 - __builtin_clzll(p);
    // The leading bits of p as doublings: they cost less than squarings.
    int lead = bit < 2 ? 0 : bit - 2;
    for (uint64_t n = p >> lead; n > 0; n--)
        x = twice(x, q);
    for (bit = lead - 1; bit >= 0; bit--) {
        x = square(x, q, inverse);
        if (p >> bit & 1)
            x = twice(x, q);
    }
    return x == one;
}

// times returns a b mod q by doubling; slow, for the few that pass.
static uint64_t times(uint64_t a, uint64_t b, uint64_t q)
{
    uint64_t sum = 0;
    for (; b > 0; b >>= 1) {
        if (b & 1)
            sum = sum + a >= q ? sum + a - q : sum + a;
        a = twice(a, q);
    }
    return sum;
}

// prime is the test of Miller and Rabin; these bases decide below 2^64. A
// factor of 2^p - 1 passes the test to base 2 even when it is composite.
static int prime(uint64_t q)
{
    static const uint64_t bases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
    int twos = __builtin_ctzll(q - 1);
    for (uint32_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        if (q == bases[i])
            return 1;
        uint64_t x = 1, base = bases[i] % q;
        for (int bit = 63; bit >= twos; bit--) {
            x = times(x, x, q);
            if ((q - 1) >> bit & 1)
                x = times(x, base, q);
        }
        int passes = x == 1 || x == q - 1;
        for (int t = 1; t < twos && !passes; t++) {
            x = times(x, x, q);
            passes = x == q - 1;
        }
        if (!passes)
            return 0;
    }
    return 1;
}

// inverse_of returns 1/a mod prime r, 0 < a < r < 2^15.
static uint32_t inverse_of(uint32_t a, uint32_t r)
{
    int32_t x = 1, y = 0;
    uint32_t b = r;
    while (b != 0) {
        uint32_t quotient = a / b, rest = a - quotient * b;
        int32_t next = x - (int32_t)quotient * y;
        a = b, b = rest;
        x = y, y = next;
    }
    return x < 0 ? (uint32_t)(x + (int32_t)r) : (uint32_t)x;
}

// report enters a factor into the rows of its exponent.
static void report(uint64_t *rows, uint32_t slots, uint64_t p, uint64_t factor)
{
    for (uint32_t s = 0; s < slots; s++) {
        uint64_t *slot = rows + 2 * (uint64_t)s + 1;
        uint64_t have = gpuwm_load64(slot);
        for (;;) {
            if (have == factor)
                return;
            if (have != 0 && have < factor)
                break; // the next slot
            if (!gpuwm_swap64(slot, &have, factor))
                continue;
            __atomic_store_n(slot - 1, p, __ATOMIC_SEQ_CST);
            if (have == 0)
                return;
            factor = have; // pushed out by a smaller one
            break;
        }
    }
}

// sieve strikes out the j for which a small prime divides 2 (k + 4j) p + 1.
// composite has one byte for each odd number below SIEVE.
static void sieve(uint8_t *struck, uint32_t n, uint64_t k, uint64_t p, const uint8_t *composite)
{
    for (uint32_t r = 3; r < SIEVE; r += 2) {
        uint32_t pr = (uint32_t)(p % r);
        if (composite[r / 2] || pr == 0)
            continue; // r divides p: it divides no candidate
        // 2kp = -1 at k = -1/(2p); then j = (that - k) / 4, all modulo r.
        uint32_t root = r - inverse_of(2 * pr % r, r);
        uint32_t quarter = (r + 1) / 2;
        quarter = quarter * quarter % r;
        uint32_t j = (root + r - (uint32_t)(k % r)) % r * quarter % r;
        if (j < n && 2 * (k + 4 * (uint64_t)j) * p + 1 == r)
            j += r; // the prime itself may be the factor
        for (; j < n; j += r)
            struck[j] = 1;
    }
}

GPUWM_KERNEL(factor, "buffer buffer u32 u32 u64 u32")
{
    uint32_t slots = gpuwm_u32(args, 3), size = gpuwm_u32(args, 5);
    uint64_t index = (uint64_t)gpuwm_u32(args, 2) + group_y;
    uint64_t p = ((const uint64_t *)gpuwm_buffer(args, 0))[index];
    uint64_t *rows = (uint64_t *)gpuwm_buffer(args, 1) + 2 * index * slots;
    if (p < 3 || p >= LIMIT / 2)
        return;

    uint8_t composite[SIEVE / 2] = {0}, struck[CLASS];
    for (uint32_t r = 3; r * r < SIEVE; r += 2)
        for (uint32_t m = r * r; m < SIEVE; m += 2 * r)
            composite[m / 2] = 1;

    uint64_t from = gpuwm_u64(args, 4) + (uint64_t)group_x * size, to = from + size;
    uint64_t last = (LIMIT - 2) / 2 / p; // 2kp + 1 < LIMIT
    if (to > last + 1)
        to = last + 1;
    for (uint64_t start = from; start < to; start += BLOCK) {
        uint64_t end = to - start < BLOCK ? to : start + BLOCK;
        for (uint32_t class = 0; class < 4; class++) {
            uint64_t k = start + ((class - start) & 3), residue = (2 * class * p + 1) & 7;
            if (k >= end || (residue != 1 && residue != 7))
                continue;
            uint32_t n = (uint32_t)((end - k + 3) / 4);
            __builtin_memset(struck, 0, n);
            sieve(struck, n, k, p, composite);
            for (uint32_t j = 0; j < n; j++) {
                uint64_t q = 2 * (k + 4 * (uint64_t)j) * p + 1;
                if (!struck[j] && q > 1 && divides(p, q) && prime(q))
                    report(rows, slots, p, q);
            }
        }
    }
}
