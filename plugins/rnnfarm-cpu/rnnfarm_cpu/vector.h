/* Vectors of reals, and the operations that equations have, on the compiler's own vector types.
 *
 * What stands before this text defines RNN_DOUBLE (0: real is float, 1: real is double) and
 * RNN_LANES. The text needs no intrinsics of any processor but for fused multiply-adds.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if RNN_DOUBLE
typedef double real;
typedef int64_t rnn_int;
typedef uint64_t rnn_uint;
#else
typedef float real;
typedef int32_t rnn_int;
typedef uint32_t rnn_uint;
#endif

/* A compiler warns that functions pass wide vectors otherwise on other processors: none does,
 * since all of these are inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"
/* gcc would write out a loop over the lanes before it could turn it into vector operations. */
#ifdef __clang__
#define RNN_LANE_LOOP
#else
#define RNN_LANE_LOOP _Pragma("GCC unroll 1")
#endif
#define RNN_INLINE static inline __attribute__((always_inline, unused))
#define RNN_BYTES (RNN_LANES * (RNN_DOUBLE ? 8 : 4))

typedef real vec __attribute__((vector_size(RNN_BYTES)));
/* A comparison's result: 0 or -1 in every lane. */
typedef rnn_int mask __attribute__((vector_size(RNN_BYTES)));
/* The bits of a vector, whose right shifts bring in zeros. */
typedef rnn_uint rnn_bits __attribute__((vector_size(RNN_BYTES)));
/* A vector in memory, wherever a real may be. */
typedef vec rnn_unaligned __attribute__((aligned(RNN_DOUBLE ? 8 : 4), may_alias));

/* RNN_EACH(F, k): F(lane, k) for every lane. */
#define RNN_EACH2(F, k) F(0, k), F(1, k)
#define RNN_EACH4(F, k) RNN_EACH2(F, k), F(2, k), F(3, k)
#define RNN_EACH8(F, k) RNN_EACH4(F, k), F(4, k), F(5, k), F(6, k), F(7, k)
#define RNN_EACH16(F, k) \
    RNN_EACH8(F, k), F(8, k), F(9, k), F(10, k), F(11, k), F(12, k), F(13, k), F(14, k), F(15, k)
#if RNN_LANES == 2
#define RNN_EACH RNN_EACH2
#elif RNN_LANES == 4
#define RNN_EACH RNN_EACH4
#elif RNN_LANES == 8
#define RNN_EACH RNN_EACH8
#elif RNN_LANES == 16
#define RNN_EACH RNN_EACH16
#else
#error "RNN_LANES is 2, 4, 8 or 16"
#endif

/* ---- Constants, selections, memory ---- */

/* Subtracting zero is folded away and, unlike adding it, keeps -0. */
RNN_INLINE vec rnn_splat(real x) { return x - (vec){0}; }

RNN_INLINE real rnn_first(vec v) { return v[0]; }

RNN_INLINE mask rnn_splat_bool(unsigned char x) { return (rnn_int)(x ? -1 : 0) - (mask){0}; }

/* gcc makes one blend of the loop but three operations of the bits; clang the other way round. */
RNN_INLINE vec rnn_where(mask m, vec a, vec b) {
#ifdef __clang__
    return (vec)((m & (mask)a) | (~m & (mask)b));
#else
    vec r;
    RNN_LANE_LOOP
    for (int l = 0; l < RNN_LANES; ++l) r[l] = m[l] ? a[l] : b[l];
    return r;
#endif
}

RNN_INLINE mask rnn_less(vec a, vec b) { return (mask)(a < b); }
RNN_INLINE mask rnn_less_equal(vec a, vec b) { return (mask)(a <= b); }
RNN_INLINE mask rnn_equal(vec a, vec b) { return (mask)(a == b); }
RNN_INLINE vec rnn_from_mask(mask m) { return (vec)(m & (mask)rnn_splat(1)); }
RNN_INLINE mask rnn_to_mask(vec v) { return (mask)(v != (vec){0}); }

#define RNN_LANE(l, k) l
RNN_INLINE mask rnn_lane_numbers(void) { return (mask){RNN_EACH(RNN_LANE, 0)}; }
RNN_INLINE vec rnn_iota(void) { return (vec){RNN_EACH(RNN_LANE, 0)}; }

RNN_INLINE vec rnn_first_lanes(vec v, long n, real other) {
    if (n >= RNN_LANES) return v;
    const mask inside = rnn_lane_numbers() < (rnn_int)(n < 0 ? 0 : n) - (mask){0};
    return rnn_where(inside, v, rnn_splat(other));
}

/* The first n lanes, zeros in the others; no memory past them is touched. The loop becomes a
 * masked load where the processor has one: hence the counters as wide as a lane. */
RNN_INLINE vec rnn_load(const real *p, long n) {
    if (n >= RNN_LANES) return *(const rnn_unaligned *)p;
    const rnn_int count = n < 0 ? 0 : n;
    vec v;
    RNN_LANE_LOOP
    for (rnn_int l = 0; l < RNN_LANES; ++l) v[l] = l < count ? p[l] : 0;
    return v;
}

RNN_INLINE void rnn_store(real *p, vec v, long n) {
    if (n >= RNN_LANES) {
        *(rnn_unaligned *)p = v;
        return;
    }
    const rnn_int count = n < 0 ? 0 : n;
    RNN_LANE_LOOP
    for (rnn_int l = 0; l < RNN_LANES; ++l)
        if (l < count) p[l] = v[l];
}

/* Every lane picks its own byte of the word that holds it. Widening the bytes, which is plainer,
 * costs gcc a detour over memory. */
#define RNN_WORD_BYTES (RNN_DOUBLE ? 8 : 4)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define RNN_BYTE_SHIFT(l) (8 * (RNN_WORD_BYTES - 1 - (l) % RNN_WORD_BYTES))
#else
#define RNN_BYTE_SHIFT(l) (8 * ((l) % RNN_WORD_BYTES))
#endif
#define RNN_BYTE(l, k) \
    ((l) / RNN_WORD_BYTES == (k) ? (rnn_int)((rnn_uint)255 << RNN_BYTE_SHIFT(l)) : 0)
#define RNN_PICKED(k) ((words[k] - (mask){0}) & (mask){RNN_EACH(RNN_BYTE, k)})

RNN_INLINE mask rnn_load_bool(const unsigned char *p, long n) {
    rnn_int words[4] = {0};
    if (n >= RNN_LANES)
        memcpy(words, p, RNN_LANES);
    else
        for (long l = 0; l < n; ++l) ((unsigned char *)words)[l] = p[l];
    mask bytes = RNN_PICKED(0);
    if (RNN_LANES > RNN_WORD_BYTES) bytes |= RNN_PICKED(1);
    if (RNN_LANES > 2 * RNN_WORD_BYTES) bytes |= RNN_PICKED(2) | RNN_PICKED(3);
    return (mask)(bytes != (mask){0});
}

/* The greater and the lesser of x and y; where one is NaN, x. gcc finds the one operation for it
 * if the comparison is in the loop. */
RNN_INLINE vec rnn_greater_or_first(vec x, vec y) {
#ifdef __clang__
    return rnn_where((mask)(x < y), y, x);
#else
    vec r;
    RNN_LANE_LOOP
    for (int l = 0; l < RNN_LANES; ++l) r[l] = x[l] < y[l] ? y[l] : x[l];
    return r;
#endif
}
RNN_INLINE vec rnn_lesser_or_first(vec x, vec y) {
#ifdef __clang__
    return rnn_where((mask)(y < x), y, x);
#else
    vec r;
    RNN_LANE_LOOP
    for (int l = 0; l < RNN_LANES; ++l) r[l] = y[l] < x[l] ? y[l] : x[l];
    return r;
#endif
}
/* gcc loads a constant that it knows once for the comparison and once as the result, and then no
 * longer sees the one operation: a comparison, a mask and a blend stay, which costs a sigmoid a
 * fifth of its time. The empty statement keeps it from knowing the constant. */
#if defined(__x86_64__) && !defined(__clang__)
#define RNN_HIDE(x) __asm__("" : "+x"(x))
#else
#define RNN_HIDE(x) (void)0
#endif
RNN_INLINE vec rnn_at_least(vec x, real low) {
    RNN_HIDE(low);
    return rnn_greater_or_first(x, rnn_splat(low));
}
RNN_INLINE vec rnn_at_most(vec x, real high) {
    RNN_HIDE(high);
    return rnn_lesser_or_first(x, rnn_splat(high));
}

RNN_INLINE vec rnn_minimum(vec a, vec b) {
    return rnn_where((mask)(b != b), b, rnn_lesser_or_first(a, b));
}
RNN_INLINE vec rnn_maximum(vec a, vec b) {
    return rnn_where((mask)(b != b), b, rnn_greater_or_first(a, b));
}

/* Halves meet, then quarters, and so on: one order always, and every lane gets the result. */
#define RNN_PARTNER(l, k) v[((l) ^ (k)) % RNN_LANES]
#define RNN_SWAPPED(k) ((vec){RNN_EACH(RNN_PARTNER, k)})

RNN_INLINE vec rnn_sum_lanes(vec v) {
    if (RNN_LANES > 8) v += RNN_SWAPPED(8);
    if (RNN_LANES > 4) v += RNN_SWAPPED(4);
    if (RNN_LANES > 2) v += RNN_SWAPPED(2);
    return v + RNN_SWAPPED(1);
}

RNN_INLINE vec rnn_max_lanes(vec v) {
    if (RNN_LANES > 8) v = rnn_maximum(v, RNN_SWAPPED(8));
    if (RNN_LANES > 4) v = rnn_maximum(v, RNN_SWAPPED(4));
    if (RNN_LANES > 2) v = rnn_maximum(v, RNN_SWAPPED(2));
    return rnn_maximum(v, RNN_SWAPPED(1));
}

/* a * b + c with one rounding, where the processor has that. Compilers are told to make no such
 * operation of their own: they would in one copy of a loop and not in another, and then bits would
 * depend on how many rows a thread has. gcc does not keep a loop over lanes of it in registers. */
RNN_INLINE vec rnn_fma(vec a, vec b, vec c) {
#if defined(__clang__) && __has_builtin(__builtin_elementwise_fma)
    return __builtin_elementwise_fma(a, b, c);
#elif defined(__FMA__) && RNN_BYTES == 32 && RNN_DOUBLE
    return __builtin_ia32_vfmaddpd256(a, b, c);
#elif defined(__FMA__) && RNN_BYTES == 32
    return __builtin_ia32_vfmaddps256(a, b, c);
#elif defined(__AVX512F__) && RNN_BYTES == 64 && RNN_DOUBLE
    return __builtin_ia32_vfmaddpd512_mask(a, b, c, (unsigned char)-1, 4);
#elif defined(__AVX512F__) && RNN_BYTES == 64
    return __builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4);
#elif defined(__FP_FAST_FMAF) && defined(__FP_FAST_FMA)
    vec r;
    RNN_LANE_LOOP
    for (int l = 0; l < RNN_LANES; ++l)
        r[l] = RNN_DOUBLE ? __builtin_fma(a[l], b[l], c[l]) : __builtin_fmaf(a[l], b[l], c[l]);
    return r;
#else
    return a * b + c;
#endif
}
/* A step of Horner's rule, p * x + c. */
RNN_INLINE vec rnn_horner(vec p, vec x, real c) { return rnn_fma(p, x, rnn_splat(c)); }

/* ---- Elementwise operations: NaN gives NaN in all of them ---- */

#define RNN_SIGN_BIT ((rnn_int)((rnn_uint)1 << (8 * sizeof(real) - 1)))

RNN_INLINE vec rnn_abs(vec x) { return (vec)((mask)x & ~RNN_SIGN_BIT); }

RNN_INLINE vec rnn_relu(vec x) { return rnn_at_least(x, 0); }

RNN_INLINE vec rnn_sign(vec x) {
    const vec zero = {0};
    const vec sign = rnn_where((mask)(x < zero), rnn_splat(-1), rnn_from_mask((mask)(zero < x)));
    return rnn_where((mask)(x != x), x, sign);
}

RNN_INLINE vec rnn_sqrt(vec x) {
    vec r;
    RNN_LANE_LOOP
    for (int l = 0; l < RNN_LANES; ++l)
        r[l] = RNN_DOUBLE ? __builtin_sqrt(x[l]) : __builtin_sqrtf(x[l]);
    return r;
}

/* exp(x) = 2^n exp(r) with |r| <= ln(2) / 2. Adding the number ROUND rounds to a whole number,
 * which is then found in the low bits. LN2_HIGH is short, so that n times it is exact. */
#if RNN_DOUBLE
#define RNN_MANTISSA 52
#define RNN_BIAS 1023
#define RNN_ROUND 0x1.8p52
#define RNN_LOG2E 0x1.71547652b82fep+0
#define RNN_LN2_HIGH 0x1.62e42fefa2p-1
#define RNN_LN2_LOW 0x1.9ef35793c7673p-41
/* exp is 0 from the first on down, and infinity from the second on up. */
#define RNN_EXP_LOW -746.0
#define RNN_EXP_HIGH 710.0
#else
#define RNN_MANTISSA 23
#define RNN_BIAS 127
#define RNN_ROUND 0x1.8p23f
#define RNN_LOG2E 0x1.715476p+0f
#define RNN_LN2_HIGH 0x1.62e4p-1f
#define RNN_LN2_LOW 0x1.7f7d1cp-20f
#define RNN_EXP_LOW -104.0f
#define RNN_EXP_HIGH 89.0f
#endif

/* r from n and x. */
RNN_INLINE vec rnn_exp_rest(vec x, vec n) {
    return rnn_fma(n, rnn_splat(-RNN_LN2_LOW), rnn_fma(n, rnn_splat(-RNN_LN2_HIGH), x));
}

/* (exp(r) - 1 - r) / r^2: a least-squares fit that was weighted until its errors were level. */
RNN_INLINE vec rnn_exp_series(vec r) {
#if RNN_DOUBLE
    vec p = rnn_horner(rnn_splat(0x1.ada93c68de69ap-26), r, 0x1.28ae17e00acb5p-22);
    p = rnn_horner(p, r, 0x1.71df0a4eab2dap-19);
    p = rnn_horner(p, r, 0x1.a01999459cb56p-16);
    p = rnn_horner(p, r, 0x1.a01a0136d1321p-13);
    p = rnn_horner(p, r, 0x1.6c16c1847e859p-10);
    p = rnn_horner(p, r, 0x1.111111112556ap-7);
    p = rnn_horner(p, r, 0x1.55555555506a6p-5);
    p = rnn_horner(p, r, 0x1.5555555555504p-3);
    return rnn_horner(p, r, 0x1.000000000000ap-1);
#else
    vec p = rnn_horner(rnn_splat(0x1.6a4d34p-10f), r, 0x1.12398ep-7f);
    p = rnn_horner(p, r, 0x1.5558b0p-5f);
    p = rnn_horner(p, r, 0x1.555492p-3f);
    return rnn_horner(p, r, 0x1.fffffcp-2f);
#endif
}

/* Exact at r = 0, and a last rounding that is far larger than those before it. */
RNN_INLINE vec rnn_exp_small(vec r) {
    return rnn_horner(rnn_horner(rnn_exp_series(r), r, 1), r, 1);
}

/* Two powers of two whose product is 2^n: 2^n itself may not be a normal number. The sum's low
 * bits are n plus both biases. */
RNN_INLINE vec rnn_exp(vec x) {
    const real round = RNN_ROUND + 2 * RNN_BIAS;
    x = rnn_at_most(rnn_at_least(x, RNN_EXP_LOW), RNN_EXP_HIGH);
    const vec sum = rnn_horner(rnn_splat(RNN_LOG2E), x, round);
    const vec p = rnn_exp_small(rnn_exp_rest(x, sum - round));
    const rnn_bits both = (rnn_bits)sum, half = both >> 1;
    return p * (vec)(half << RNN_MANTISSA) * (vec)((both - half) << RNN_MANTISSA);
}

/* 2^64 exp(x) for x <= 40: normal down to where exp(x) rounds to 0, at the price of one factor.
 * So a quotient that is subnormal is rounded once. */
#define RNN_SCALE ((real)0x1p64)
RNN_INLINE vec rnn_scaled_exp(vec x) {
    const real round = RNN_ROUND + RNN_BIAS + 64;
    x = rnn_at_least(x, RNN_EXP_LOW);
    const vec sum = rnn_horner(rnn_splat(RNN_LOG2E), x, round);
    const vec p = rnn_exp_small(rnn_exp_rest(x, sum - round));
    return p * (vec)((rnn_bits)sum << RNN_MANTISSA);
}

/* Above 40 the sigmoid is 1 to the last bit. */
RNN_INLINE vec rnn_sigmoid(vec x) {
    const vec e = rnn_scaled_exp(rnn_at_most(x, 40));
    return e / (e + RNN_SCALE);
}

/* expm1(y) / (expm1(y) + 2) for y = 2|x|, which for y above 40 is 1 to the last bit. expm1(y) is
 * 2^n expm1(r) + (2^n - 1): nothing cancels, and where n is 0 small x keep their relative accuracy.
 * The quotient of two short polynomials takes hardly less time, as the division takes most of it,
 * and has twice the error. */
RNN_INLINE vec rnn_tanh(vec x) {
    const real round = RNN_ROUND + RNN_BIAS;
    const vec y = rnn_at_most(rnn_abs(x) * 2, 40);
    const vec sum = rnn_horner(rnn_splat(RNN_LOG2E), y, round);
    const vec r = rnn_exp_rest(y, sum - round);
    const vec power = (vec)((rnn_bits)sum << RNN_MANTISSA);
    const vec small = rnn_fma(r * r, rnn_exp_series(r), r);
    const vec e = rnn_fma(power, small, power - 1);
    return (vec)((mask)(e / (e + 2)) | ((mask)x & RNN_SIGN_BIT));
}

/* log(2^k m) for m in [sqrt(1/2), sqrt(2)): k ln(2) + 2 atanh(s) with s = (m - 1) / (m + 1), the
 * series being (2 atanh(s) - 2 s) / s^3. */
RNN_INLINE vec rnn_log(vec x) {
#if RNN_DOUBLE
    const real least = 0x1p-1022, lift = 0x1p54, lifted = 54;
    const rnn_uint root = 0x3fe6a09e667f3bcdull, whole = 0x4338000000000000ull;
#else
    const real least = 0x1p-126f, lift = 0x1p25f, lifted = 25;
    const rnn_uint root = 0x3f3504f3u, whole = 0x4b400000u;
#endif
    const mask subnormal = (mask)(x < rnn_splat(least));
    const rnn_bits bits = (rnn_bits)rnn_where(subnormal, x * lift, x);
    /* The bits' sum with what lies between root and 1 carries into the exponent from root on. */
    const rnn_bits moved = bits + (((rnn_uint)RNN_BIAS << RNN_MANTISSA) - root);
    const rnn_uint low = ((rnn_uint)1 << RNN_MANTISSA) - 1;
    const vec m = (vec)((moved & low) + root);
    /* A whole number added to the bits of ROUND is added to ROUND. */
    vec k = (vec)((moved >> RNN_MANTISSA) + whole) - (RNN_ROUND + RNN_BIAS);
    k -= (vec)(subnormal & (mask)rnn_splat(lifted));
    const vec f = m - 1;
    const vec s = f / (f + 2);
    const vec z = s * s;
#if RNN_DOUBLE
    vec p = rnn_horner(rnn_splat(0x1.2f093903aaa09p-3), z, 0x1.39a15281ea0efp-3);
    p = rnn_horner(p, z, 0x1.7466434b2575fp-3);
    p = rnn_horner(p, z, 0x1.c71c51f1b0b2ap-3);
    p = rnn_horner(p, z, 0x1.2492494212474p-2);
    p = rnn_horner(p, z, 0x1.999999997faf4p-2);
    p = rnn_horner(p, z, 0x1.5555555555593p-1);
#else
    vec p = rnn_horner(rnn_splat(0x1.31e086p-2f), z, 0x1.995ed6p-2f);
    p = rnn_horner(p, z, 0x1.55557ap-1f);
#endif
    const vec low_part = rnn_fma(s * z, p, k * RNN_LN2_LOW);
    const vec log = rnn_fma(k, rnn_splat(RNN_LN2_HIGH), rnn_fma(s, rnn_splat(2), low_part));
    const real infinity = (real)__builtin_inff();
    const vec odd = rnn_where((mask)(x < (vec){0}), rnn_splat((real)__builtin_nanf("")),
                              rnn_splat(-infinity));
    const vec high = rnn_where((mask)(x < rnn_splat(infinity)), log, x);
    return rnn_where((mask)(x <= (vec){0}), odd, high);
}

/* max(x, 0) + log1p(e) for e = exp(-|x|), log1p(e) being 2 atanh(e / (2 + e)). */
RNN_INLINE vec rnn_softplus(vec x) {
    const vec e = rnn_scaled_exp((vec)((mask)x | RNN_SIGN_BIT));
    const vec w = e / rnn_horner(e, rnn_splat((real)0.5), RNN_SCALE);
    const vec z = w * w * (real)0.25;
#if RNN_DOUBLE
    vec p = rnn_horner(rnn_splat(0x1.5c810cb21630cp-4), z, 0x1.55a730e6436c9p-5);
    p = rnn_horner(p, z, 0x1.efdacb54c423cp-5);
    p = rnn_horner(p, z, 0x1.106799027dea8p-4);
    p = rnn_horner(p, z, 0x1.3b1ddf09be9f0p-4);
    p = rnn_horner(p, z, 0x1.745cb3d3226dfp-4);
    p = rnn_horner(p, z, 0x1.c71c741db8a7bp-4);
    p = rnn_horner(p, z, 0x1.2492492089f5ap-3);
    p = rnn_horner(p, z, 0x1.99999999a0788p-3);
    p = rnn_horner(p, z, 0x1.5555555555535p-2);
#else
    vec p = rnn_horner(rnn_splat(0x1.1efeaep-3f), z, 0x1.1eb49ep-3f);
    p = rnn_horner(p, z, 0x1.99d296p-3f);
    p = rnn_horner(p, z, 0x1.5555p-2f);
#endif
    return rnn_relu(x) + rnn_fma(w * z, p, w);
}
