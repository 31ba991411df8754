/* Numbers, and the operations that equations have, for one unit of one row.
 *
 * What stands before this text defines RNN_DOUBLE (1: real is double) and RNN_MODE: how operands of
 * matrix products are rounded (0: not at all, 1: to TF32, 2: to bf16). On a CPU shim.h stands there
 * too and defines RNN_HOST.
 */
#if RNN_DOUBLE
typedef double real;
#else
typedef float real;
#endif
#ifndef RNN_HOST
typedef long long int64_t;
#endif
#define RNN_DEVICE static __device__ __forceinline__
/* The text of equations is written in vectors of units, as a CPU has them. Here one has one unit. */
#define RNN_LANES 1
#define restrict
typedef real vec;
typedef bool mask;
#define rnn_load(p, n) (*(p))
#define rnn_load_bool(p, n) (*(p) != 0)
#define rnn_store(p, v, n) (*(p) = (v))
#define rnn_splat_bool(x) ((x) != 0)
#define rnn_from_mask(m) ((real)(m))
#define rnn_to_mask(v) ((v) != 0)
#define rnn_first(v) (v)
#define rnn_iota() 0
#define rnn_first_lanes(v, n, rest) (v)

/* a b + c of a product's sum. Nothing else is contracted: the compiler is told so, for kernels that
 * compute the same are to give the same bits. */
RNN_DEVICE real rnn_fma(real a, real b, real c) {
#if defined(RNN_HOST)
    return a * b + c;
#elif RNN_DOUBLE
    return fma(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

RNN_DEVICE real rnn_splat(double x) { return (real)x; }
RNN_DEVICE real rnn_where(bool m, real a, real b) { return m ? a : b; }
RNN_DEVICE bool rnn_less(real a, real b) { return a < b; }
RNN_DEVICE bool rnn_less_equal(real a, real b) { return a <= b; }
RNN_DEVICE bool rnn_equal(real a, real b) { return a == b; }

/* As NumPy's: NaN where one of them is. */
RNN_DEVICE real rnn_minimum(real a, real b) { return a < b || a != a ? a : b; }
RNN_DEVICE real rnn_maximum(real a, real b) { return a > b || a != a ? a : b; }
RNN_DEVICE real rnn_relu(real x) { return rnn_maximum(x, 0); }
RNN_DEVICE real rnn_sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

#if RNN_DOUBLE
RNN_DEVICE real rnn_abs(real x) { return fabs(x); }
RNN_DEVICE real rnn_sqrt(real x) { return sqrt(x); }
RNN_DEVICE real rnn_exp(real x) { return exp(x); }
RNN_DEVICE real rnn_log(real x) { return log(x); }
RNN_DEVICE real rnn_tanh(real x) { return tanh(x); }
RNN_DEVICE real rnn_log1p(real x) { return log1p(x); }
#else
RNN_DEVICE real rnn_abs(real x) { return fabsf(x); }
RNN_DEVICE real rnn_sqrt(real x) { return sqrtf(x); }
RNN_DEVICE real rnn_exp(real x) { return expf(x); }
RNN_DEVICE real rnn_log(real x) { return logf(x); }
RNN_DEVICE real rnn_tanh(real x) { return tanhf(x); }
RNN_DEVICE real rnn_log1p(real x) { return log1pf(x); }
#endif

/* exp overflows to infinity for very negative arguments, and 1 / infinity is right: 0. */
RNN_DEVICE real rnn_sigmoid(real x) { return (real)1 / ((real)1 + rnn_exp(-x)); }
RNN_DEVICE real rnn_softplus(real x) {
    return rnn_log1p(rnn_exp(-rnn_abs(x))) + rnn_maximum(x, 0);
}
