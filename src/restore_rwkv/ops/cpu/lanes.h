/* Vectors as wide as a register, for the kernels beside this file. */
#ifndef LANES_H
#define LANES_H

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

#ifndef DOUBLE
/* e^x = 2^n e^r for x <= 0, |r| <= ln2 / 2; 0 below e^-87. The polynomial (weighted least squares,
 * relative error 4e-9) has its first two terms exact. Adding 1.5 * 2^23 + 127 rounds to whole numbers
 * and leaves the exponent field of 2^n in the low bits. */
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

/* OpenMP's GOMP_parallel. */
typedef void (*launcher)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/* Runs `body` on threads; on this one alone where there is no launcher. */
INLINE void run_on(launcher launch, int64_t threads, void (*body)(void *), void *data) {
  if (launch && threads > 1)
    launch(body, data, (unsigned)threads, 0);
  else
    body(data);
}

#endif
