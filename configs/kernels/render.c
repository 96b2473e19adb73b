// render: a path tracer. Marbles without end on a floor, three large spheres
// among them, under an evening sky. Every pixel is computed by itself from its
// coordinates, with + - * / and square roots only, so that the picture has the same
// bits on every machine.
//
//   args    0 image    buffer of rgba8 pixels, row by row
//           1 width    u32: pixels in a row
//           2 height   u32: rows
//           3 samples  u32: n, for n × n paths per pixel
//   grid    x, y tiles of the picture
//   group   the size of a tile in pixels
#include "gpuwm.h"

typedef struct { float x, y, z; } vec;

static inline vec v3(float x, float y, float z) { return (vec){x, y, z}; }
static inline vec add(vec a, vec b) { return v3(a.x + b.x, a.y + b.y, a.z + b.z); }
static inline vec sub(vec a, vec b) { return v3(a.x - b.x, a.y - b.y, a.z - b.z); }
static inline vec mul(vec a, vec b) { return v3(a.x * b.x, a.y * b.y, a.z * b.z); }
static inline vec scale(vec a, float s) { return v3(a.x * s, a.y * s, a.z * s); }
static inline float dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static inline vec cross(vec a, vec b) { return v3(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x); }
static inline vec unit(vec a) { return scale(a, 1.0f / __builtin_sqrtf(dot(a, a))); }
static inline vec lerp(vec a, vec b, float t) { return add(scale(a, 1 - t), scale(b, t)); }
static inline vec reflect(vec d, vec n) { return sub(d, scale(n, 2 * dot(d, n))); }
static inline float clamp01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// Random numbers: PCG with a hash of the pixel and the sample as its seed.
static inline uint32_t hash(uint32_t x)
{
    x ^= x >> 16, x *= 0x7feb352du;
    x ^= x >> 15, x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static inline float uniform(uint32_t *state)
{
    *state = *state * 747796405u + 2891336453u;
    uint32_t w = (*state >> ((*state >> 28) + 4) ^ *state) * 277803737u;
    return (float)((w >> 22 ^ w) >> 8) * (1.0f / 16777216.0f);
}

// in_ball returns a random point of the unit ball.
static vec in_ball(uint32_t *state)
{
    for (;;) {
        float x = 2 * uniform(state) - 1, y = 2 * uniform(state) - 1, z = 2 * uniform(state) - 1;
        if (x * x + y * y + z * z < 1)
            return v3(x, y, z);
    }
}

enum material { MATTE, METAL, GLASS, LACQUER };

typedef struct {
    float distance;
    vec normal, colour;
    enum material material;
    float rough;
} hit;

#define FAR 1e9f
#define NEAR 1e-3f
#define REACH 60.0f // marbles further away are not drawn

// sphere returns the distance to the sphere along the ray, or FAR.
static inline float sphere(vec origin, vec direction, vec centre, float radius)
{
    vec o = sub(origin, centre);
    float b = dot(o, direction), c = dot(o, o) - radius * radius, root = b * b - c;
    if (root < 0)
        return FAR;
    root = __builtin_sqrtf(root);
    if (-b - root > NEAR)
        return -b - root;
    return -b + root > NEAR ? -b + root : FAR;
}

// The three large spheres.
static const struct { vec centre; float radius; vec colour; enum material material; float rough; } large[] = {
    {{0.0f, 1.0f, 0.0f}, 1.0f, {1.0f, 1.0f, 1.0f}, GLASS, 0},
    {{-2.6f, 1.0f, -1.4f}, 1.0f, {0.80f, 0.16f, 0.09f}, LACQUER, 0},
    {{2.5f, 1.0f, -0.9f}, 1.0f, {0.96f, 0.78f, 0.50f}, METAL, 0.03f},
};
#define LARGE 3

// palette returns one of the colours of the marbles.
static vec palette(uint32_t h)
{
    static const vec colours[] = {
        {0.02f, 0.17f, 0.33f}, {0.04f, 0.36f, 0.45f}, {0.86f, 0.78f, 0.62f}, {0.90f, 0.42f, 0.10f},
        {0.62f, 0.10f, 0.12f}, {0.95f, 0.66f, 0.18f}, {0.30f, 0.46f, 0.24f}, {0.80f, 0.80f, 0.80f},
    };
    return colours[h & 7];
}

// marble gives the marble of a cell of the floor: 0 when the cell has none.
static int marble(int i, int j, vec *centre, float *radius, uint32_t *h)
{
    *h = hash((uint32_t)i * 0x9e3779b9u ^ hash((uint32_t)j + 0x51ed27u));
    if ((*h & 15) == 0)
        return 0;
    *radius = 0.11f + 0.15f * (float)(*h >> 8 & 255) * (1.0f / 255);
    float room = 0.5f - *radius;
    *centre = v3((float)i + 0.5f + room * ((float)(*h >> 16 & 255) * (2.0f / 255) - 1), *radius,
                 (float)j + 0.5f + room * ((float)(*h >> 24) * (2.0f / 255) - 1));
    for (int s = 0; s < LARGE; s++) {
        float dx = centre->x - large[s].centre.x, dz = centre->z - large[s].centre.z;
        float touch = 2 * __builtin_sqrtf(large[s].radius * *radius) + 0.02f; // two spheres on one floor
        if (dx * dx + dz * dz < touch * touch)
            return 0;
    }
    return 1;
}

// marbles walks the cells under the ray as far as it is low enough, and
// returns the distance to the nearest marble before limit, with its normal.
static float marbles(vec o, vec d, float limit, hit *h)
{
    const float top = 0.53f; // above the highest marble
    float from = NEAR, to = limit < REACH ? limit : REACH;
    if (o.y > top) {
        if (d.y >= 0)
            return FAR;
        from = (top - o.y) / d.y;
    } else if (d.y > 0) {
        float leave = (top - o.y) / d.y;
        to = leave < to ? leave : to;
    }
    if (from >= to)
        return FAR;
    float x = o.x + d.x * from, z = o.z + d.z * from;
    int i = (int)__builtin_floorf(x), j = (int)__builtin_floorf(z);
    int si = d.x > 0 ? 1 : -1, sj = d.z > 0 ? 1 : -1;
    float dx = d.x == 0 ? FAR : (float)si / d.x, dz = d.z == 0 ? FAR : (float)sj / d.z;
    float nx = d.x == 0 ? FAR : from + ((float)(i + (si > 0)) - x) / d.x;
    float nz = d.z == 0 ? FAR : from + ((float)(j + (sj > 0)) - z) / d.z;
    for (float at = from; at < to;) {
        vec centre;
        float radius;
        uint32_t seed;
        if (marble(i, j, &centre, &radius, &seed)) {
            float t = sphere(o, d, centre, radius);
            if (t < limit) { // marbles do not leave their cells: no other one is nearer
                if (h) {
                    h->normal = scale(sub(add(o, scale(d, t)), centre), 1 / radius);
                    uint32_t kind = seed >> 4 & 15;
                    h->colour = palette(hash(seed));
                    h->material = kind < 6 ? MATTE : kind < 11 ? LACQUER : kind < 14 ? METAL : GLASS;
                    h->rough = kind < 12 ? 0.02f : 0.15f;
                    if (h->material == METAL)
                        h->colour = lerp(h->colour, v3(0.95f, 0.93f, 0.88f), 0.6f);
                    if (h->material == GLASS)
                        h->colour = lerp(h->colour, v3(1, 1, 1), 0.8f);
                }
                return t;
            }
        }
        if (nx < nz)
            at = nx, nx += dx, i += si;
        else
            at = nz, nz += dz, j += sj;
    }
    return FAR;
}

// trace finds what the ray meets first; distance is FAR for the sky.
static hit trace(vec o, vec d)
{
    hit h = {FAR, {0, 1, 0}, {0, 0, 0}, MATTE, 0};
    if (d.y < 0) {
        h.distance = -o.y / d.y;
        float x = o.x + d.x * h.distance, z = o.z + d.z * h.distance;
        int odd = ((int)__builtin_floorf(x * 0.5f) + (int)__builtin_floorf(z * 0.5f)) & 1;
        h.colour = odd ? v3(0.36f, 0.34f, 0.33f) : v3(0.46f, 0.44f, 0.42f);
        h.material = LACQUER;
        h.rough = 0.08f;
    }
    for (int s = 0; s < LARGE; s++) {
        float t = sphere(o, d, large[s].centre, large[s].radius);
        if (t >= h.distance)
            continue;
        h.distance = t;
        h.normal = scale(sub(add(o, scale(d, t)), large[s].centre), 1 / large[s].radius);
        h.colour = large[s].colour, h.material = large[s].material, h.rough = large[s].rough;
    }
    float t = marbles(o, d, h.distance, &h);
    if (t < h.distance)
        h.distance = t;
    return h;
}

// blocked reports whether anything stands between the point and the sun. Glass
// lets most of the light through; that is left out.
static int blocked(vec o, vec d)
{
    for (int s = 0; s < LARGE; s++)
        if (sphere(o, d, large[s].centre, large[s].radius) < FAR)
            return 1;
    return marbles(o, d, FAR, 0) < FAR;
}

#define SUN v3(-0.62f, 0.36f, -0.70f) // direction to the sun, of length 1 within a percent

static vec sky(vec d)
{
    float up = clamp01(d.y), low = 1 - up, near = clamp01(dot(d, SUN));
    float horizon = low * low * low * low * low;
    vec c = lerp(v3(0.07f, 0.19f, 0.48f), v3(0.95f, 0.52f, 0.30f), horizon);
    float n2 = near * near, n8 = n2 * n2 * n2 * n2, n64 = n8 * n8 * n8 * n8 * n8 * n8 * n8 * n8;
    c = add(c, scale(v3(1.0f, 0.45f, 0.18f), 0.45f * n8));
    return add(c, scale(v3(1.0f, 0.82f, 0.55f), 2.0f * n64));
}

// bend refracts or reflects at glass, by Schlick's approximation of Fresnel's law.
static vec bend(vec d, vec n, uint32_t *state)
{
    float cosine = -dot(d, n), ratio = 1 / 1.5f;
    if (cosine < 0)
        n = scale(n, -1), cosine = -cosine, ratio = 1.5f;
    float k = 1 - ratio * ratio * (1 - cosine * cosine);
    float m = 1 - cosine, m2 = m * m, fresnel = 0.04f + 0.96f * m2 * m2 * m;
    if (k < 0 || uniform(state) < fresnel)
        return reflect(d, n);
    return unit(add(scale(d, ratio), scale(n, ratio * cosine - __builtin_sqrtf(k))));
}

// path follows one path of light backwards and returns what it brings.
static vec path(vec o, vec d, uint32_t *state)
{
    vec light = v3(0, 0, 0), through = v3(1, 1, 1);
    for (int bounce = 0; bounce < 8; bounce++) {
        hit h = trace(o, d);
        if (h.distance >= FAR)
            return add(light, mul(through, sky(d)));
        if (bounce == 0 || h.distance > 30) { // haze towards the horizon
            float fog = clamp01((h.distance - 10) / (REACH - 12));
            if (fog * fog > uniform(state))
                return add(light, mul(through, sky(v3(d.x, d.y < 0 ? 0 : d.y, d.z))));
        }
        o = add(o, scale(d, h.distance));
        float m = 1 + dot(d, h.normal), m2 = m * m;
        if (h.material == GLASS) {
            d = bend(d, h.normal, state);
            through = mul(through, h.colour);
            continue;
        }
        if (h.material == METAL ||
            (h.material == LACQUER && uniform(state) < 0.04f + 0.96f * clamp01(m2 * m2 * m))) {
            d = unit(add(reflect(d, h.normal), scale(in_ball(state), h.rough)));
            if (dot(d, h.normal) <= 0)
                return light;
            if (h.material == METAL)
                through = mul(through, h.colour);
            continue;
        }
        through = mul(through, h.colour);
        vec sun = unit(add(SUN, scale(in_ball(state), 0.045f)));
        float facing = dot(sun, h.normal);
        if (facing > 0 && !blocked(o, sun))
            light = add(light, scale(mul(through, v3(2.6f, 1.95f, 1.35f)), facing));
        d = unit(add(h.normal, scale(unit(in_ball(state)), 0.999f)));
        if (bounce > 2) { // end dark paths early, without bias
            float keep = clamp01(through.x > through.y ? through.x : through.y);
            if (keep < 0.02f || uniform(state) > keep)
                return light;
            through = scale(through, 1 / keep);
        }
    }
    return light;
}

// tone maps light to a byte: a filmic curve, then gamma 2.
static uint32_t tone(float x)
{
    x = x * 0.8f;
    x = x * (2.51f * x + 0.03f) / (x * (2.43f * x + 0.59f) + 0.14f);
    return (uint32_t)(__builtin_sqrtf(clamp01(x)) * 255 + 0.5f);
}

GPUWM_KERNEL(render, "buffer u32 u32 u32")
{
    uint32_t *image = gpuwm_buffer(args, 0);
    uint32_t width = gpuwm_u32(args, 1), height = gpuwm_u32(args, 2), n = gpuwm_u32(args, 3);
    uint32_t tile_x = gpuwm_group(args, 4, 0), tile_y = gpuwm_group(args, 4, 1);
    const vec eye = v3(0.9f, 2.1f, 9.2f), target = v3(-0.1f, 0.62f, 0.0f);
    const float focus = 8.6f, aperture = 0.04f, zoom = 0.40f;
    vec ahead = unit(sub(target, eye)), right = unit(cross(ahead, v3(0, 1, 0))), up = cross(right, ahead);
    for (uint32_t y = group_y * tile_y; y < (group_y + 1) * tile_y && y < height; y++)
        for (uint32_t x = group_x * tile_x; x < (group_x + 1) * tile_x && x < width; x++) {
            vec sum = v3(0, 0, 0);
            for (uint32_t s = 0; s < n * n; s++) {
                uint32_t state = hash(hash(y * width + x) + s);
                float sx = ((float)x + ((float)(s % n) + uniform(&state)) / (float)n) / (float)width * 2 - 1;
                float sy = 1 - ((float)y + ((float)(s / n) + uniform(&state)) / (float)n) / (float)height * 2;
                sy *= (float)height / (float)width;
                vec d = add(ahead, add(scale(right, sx * zoom), scale(up, sy * zoom)));
                vec lens = in_ball(&state);
                vec from = add(eye, add(scale(right, lens.x * aperture), scale(up, lens.y * aperture)));
                d = unit(sub(add(eye, scale(d, focus)), from));
                vec c = path(from, d, &state);
                float top = c.x > c.y ? (c.x > c.z ? c.x : c.z) : (c.y > c.z ? c.y : c.z);
                sum = add(sum, top > 6 ? scale(c, 6 / top) : c); // no single path may make a spark
            }
            float share = 1 / (float)(n * n);
            image[y * width + x] = 0xff000000u | tone(sum.z * share) << 16 | tone(sum.y * share) << 8 | tone(sum.x * share);
        }
}
