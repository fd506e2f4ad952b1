/* Parts of a training step on a CPU that would otherwise pass over memory several times (davae.networks.fused).

   Compiled on the machine that runs it, by davae.networks.native. Vectors are GCC's and Clang's, which become
   AVX-512, AVX2 or NEON, whatever the processor has. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define LANES 16
#define TILE 64    /* rows summed in registers before they are added to a sum in memory */
#define PIECES 32  /* at most so many pieces of a map are summed apart */
#define GREY 0.5f  /* behind the hand; MID_GREY of davae.config */
#define API __attribute__((visibility("default")))

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t naturals __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

#ifdef _OPENMP
#include <omp.h>
static inline int64_t thread_number(void) { return omp_get_thread_num(); }
#else
static inline int64_t thread_number(void) { return 0; }
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline vector read_float(const float *p) {
    vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void write_float(float *p, vector v) { memcpy(p, &v, sizeof v); }

/* The first `count` of LANES numbers; the others are 0, or are not written. */
static inline vector read_some(const float *p, int64_t count) {
    vector v = {0};
    if (count == LANES) return read_float(p);
    memcpy(&v, p, count * sizeof *p);
    return v;
}

static inline void write_some(float *p, vector v, int64_t count) {
    if (count == LANES)
        write_float(p, v);
    else
        memcpy(p, &v, count * sizeof *p);
}

static inline vector read_bfloat(const uint16_t *p) {
    halves h;
    memcpy(&h, p, sizeof h);
    return (vector)(__builtin_convertvector(h, naturals) << 16);
}

/* Round to the nearest bfloat16, ties to even; what is not a number stays none. */
static inline vector round_bfloat(vector v) {
    const naturals bits = (naturals)v, odd = v != v;
    const naturals rounded = ((bits + 0x7fff + ((bits >> 16) & 1)) & ~odd) | ((bits | 0x400000) & odd);
    return (vector)(rounded & 0xffff0000);
}

static inline void write_bfloat(uint16_t *p, vector v) {
#ifdef __AVX512BF16__ /* one instruction instead of eight */
    const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
    const halves h = __builtin_convertvector((naturals)round_bfloat(v) >> 16, halves);
#endif
    memcpy(p, &h, sizeof h);
}

static inline vector round_float(vector v) { return v; }

/* By way of 16 bits: GCC 12 converts 8 bits to 32 lane by lane. */
static inline integers read_bytes(const uint8_t *p) {
    bytes b;
    memcpy(&b, p, sizeof b);
    return (integers)__builtin_convertvector(__builtin_convertvector(b, halves), naturals);
}

static inline void write_bytes(uint8_t *p, integers v) {
    const bytes b = __builtin_convertvector(__builtin_convertvector((naturals)v, halves), bytes);
    memcpy(p, &b, sizeof b);
}

/* Zero where `chosen` is 0; a comparison of vectors gives all bits or none. */
static inline vector keep(vector v, integers chosen) { return (vector)((integers)v & chosen); }

/* As torch's ReLU: what is not a number stays none. */
static inline vector rectify(vector v) { return keep(v, ~(v <= 0)); }

/* exp(x) to a few units in the last place, for |x| <= 87 (beyond, that of 87): 2^n times a polynomial. */
static inline vector raise_e(vector x) {
    const vector limit = (vector){0} + 87;
    x = keep(x, x < limit) + keep(limit, ~(x < limit));
    x = keep(x, x > -limit) + keep(-limit, ~(x > -limit));
    const vector scaled = x * 1.44269504f, shifted = scaled + 12582912.0f; /* rounds to an integer, 1.5 x 2^23 */
    const vector n = shifted - 12582912.0f, r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vector sum = r * 1.98756915e-4f + 1.39819995e-3f;
    sum = sum * r + 8.33345190e-3f;
    sum = sum * r + 4.16657960e-2f;
    sum = sum * r + 1.66666655e-1f;
    sum = sum * r + 5.00000012e-1f;
    sum = sum * r * r + r + 1;
    return (vector)((integers)sum + (__builtin_convertvector(n, integers) << 23));
}

/* The logistic sigmoid; what is not a number stays none. */
static inline vector squash(vector x) {
    const vector y = 1 / (1 + raise_e(-x));
    const integers odd = x != x;
    return (vector)(((integers)y & ~odd) | ((integers)x & odd));
}

static inline float add_lanes(vector v) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += v[lane];
    return sum;
}

static inline int64_t clamp(int64_t place, int64_t size) { return place < 0 ? 0 : least(place, size - 1); }

/* The weight of pixel `from` of `size` in pixel `to` of a picture twice as large; beyond its border, its last one. */
static inline float share(int64_t to, int64_t from, int64_t size) {
    const float own = to / 2 == from ? 0.75f : 0.25f;
    return (to == 0 && from == 0) || (to == 2 * size - 1 && from == size - 1) ? 1 : own;
}

/* How many rows of a map are joined to one, so that it has a multiple of LANES columns. */
static inline int64_t joined_rows(int64_t channels) {
    int64_t rows = 1;
    while (channels * rows % LANES) rows++;
    return rows;
}

static inline int64_t count_pieces(int64_t rows) {
    const int64_t pieces = rows / (2 * TILE);
    return pieces < 1 ? 1 : least(pieces, PIECES);
}

#define JOIN(a, b) a##_##b
#define EXPAND(a, b) JOIN(a, b)
#define NAME(function) EXPAND(function, TYPE_NAME)

#define TYPE float
#define TYPE_NAME float32
#define load read_float
#define store write_float
#define round_to round_float
#include "maps.h"
#undef TYPE
#undef TYPE_NAME
#undef load
#undef store
#undef round_to

#define TYPE uint16_t
#define TYPE_NAME bfloat16
#define load read_bfloat
#define store write_bfloat
#define round_to round_bfloat
#include "maps.h"

#include "pictures.h"
#include "points.h"
