/* Vectors as wide as a register, their exponentials, and the same in double. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef DOUBLE
typedef double real;
typedef int64_t whole;
#else
typedef float real;
typedef int32_t whole;
#endif

#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX2__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#define LANES ((int64_t)(VECTOR / sizeof(real)))

typedef real vreal __attribute__((vector_size(VECTOR)));
typedef whole vmask __attribute__((vector_size(VECTOR)));
typedef vreal unaligned __attribute__((aligned(sizeof(real)), may_alias));

INLINE vreal load(const real *p) { return *(const unaligned *)p; }
INLINE void store(real *p, vreal x) { *(unaligned *)p = x; }

INLINE vreal maximum(vreal a, vreal b) {
  for (int64_t c = 0; c < LANES; c++) a[c] = a[c] > b[c] ? a[c] : b[c];
  return a;
}

INLINE vreal magnitude(vreal x) { return maximum(x, -x); }

/* A register of doubles, and as many numbers of type real: the unit of computations in double. */
#define WIDE ((int64_t)(VECTOR / sizeof(double)))

typedef double vdouble __attribute__((vector_size(VECTOR)));
typedef int64_t vlong __attribute__((vector_size(VECTOR)));
typedef vdouble unaligned_double __attribute__((aligned(sizeof(double)), may_alias));
typedef real part __attribute__((vector_size(VECTOR * sizeof(real) / sizeof(double))));
typedef part unaligned_part __attribute__((aligned(sizeof(real)), may_alias));

INLINE vdouble load_wide(const double *p) { return *(const unaligned_double *)p; }
INLINE void store_wide(double *p, vdouble x) { *(unaligned_double *)p = x; }
INLINE part rounded(vdouble x) { return __builtin_convertvector(x, part); }
INLINE vdouble widen(part x) { return __builtin_convertvector(x, vdouble); }
INLINE part load_part(const real *p) { return *(const unaligned_part *)p; }
INLINE void store_part(real *p, part x) { *(unaligned_part *)p = x; }

/* Lane by lane, mask ? a : b (C has no ?: for vectors). */
INLINE vdouble choose(vlong mask, vdouble a, vdouble b) {
  return (vdouble)((mask & (vlong)a) | (~mask & (vlong)b));
}

INLINE vdouble at_most(vdouble x, double limit) {
  for (int64_t c = 0; c < WIDE; c++) x[c] = x[c] > limit ? limit : x[c];
  return x;
}

INLINE vdouble clamp(vdouble x, double limit) { return -at_most(-at_most(x, limit), limit); }

/* e^x = 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor series; 0 below e^-708. Adding
 * 1.5 * 2^52 + 1023 rounds to whole numbers and leaves the exponent field of 2^n in the low bits.
 * Clipped at e^64: larger values occur only where sums cancel, and never in exact arithmetic. */
INLINE vdouble exp_wide(vdouble x) {
  const double round = 6755399441055744.0 + 1023;
  const vlong normal = x >= -708.0;
  x = at_most(x, 64);
  const vdouble shifted = x * 1.4426950408889634 + round, n = shifted - round;
  const vdouble r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  vdouble p = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0);
  p = p * r + (1.0 / 39916800.0);
  p = p * r + (1.0 / 3628800.0);
  p = p * r + (1.0 / 362880.0);
  p = p * r + (1.0 / 40320.0);
  p = p * r + (1.0 / 5040.0);
  p = p * r + (1.0 / 720.0);
  p = p * r + (1.0 / 120.0);
  p = p * r + (1.0 / 24.0);
  p = p * r + (1.0 / 6.0);
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return (vdouble)((vlong)(p * (vdouble)((vlong)shifted << 52)) & normal);
}

#ifdef DOUBLE
INLINE vreal exp_lanes(vreal x) { return exp_wide(x); }
#else
/* e^x = 2^n e^r for x <= 0, |r| <= ln2 / 2; 0 below e^-87. The first two terms of the polynomial
 * (weighted least squares, relative error 4e-9) are exact. Adding 1.5 * 2^23 + 127 rounds to whole
 * numbers and leaves the exponent field of 2^n in the low bits. */
INLINE vreal exp_lanes(vreal x) {
  const float round = 12582912.0f + 127;
  const vmask normal = x >= -87.0f;
  const vreal shifted = x * 1.44269504f + round;
  const vreal n = shifted - round;
  const vreal r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vreal p = r * 1.38145984e-3f + 8.3687169e-3f;
  p = p * r + 4.16683881e-2f;
  p = p * r + 1.66665206e-1f;
  p = p * r + 4.99999934e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return (vreal)((vmask)(p * (vreal)((vmask)shifted << 23)) & normal);
}
#endif

#endif
