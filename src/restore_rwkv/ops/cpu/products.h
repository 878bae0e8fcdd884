/* Matrix products of few columns, whose sums stay in registers and are handed on from there.
 *
 * Rows are cut into vectors; the last one of a row may repeat channels of the one before it, so that
 * any width from LANES upwards needs no special case. Arrays that are added to in place hold whole
 * vectors one after another instead (`padded`), so that no channel is added twice.
 */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "vectors.h"

#define TILE (VECTOR == 64 ? 8 : 4) /* rows; their accumulators, two vectors each, fit registers */
#define MAX_TILE 8

INLINE int64_t vectors_of(int64_t width) { return (width + LANES - 1) / LANES; }
INLINE int64_t padded(int64_t width) { return vectors_of(width) * LANES; }

/* Distance of rows in workspaces: whole vectors, and one more, since rows at a distance of a power of
 * two would share few lines of the cache. */
INLINE int64_t spaced(int64_t width) { return padded(width) + LANES; }

/* First channel of a vector. */
INLINE int64_t channel_of(int64_t vector, int64_t width) {
  return (vector + 1) * LANES > width ? width - LANES : vector * LANES;
}

/* The sum of the lanes of a row's vector that are not in the vector before it. */
INLINE float sum_of_new_lanes(vreal x, int64_t vector, int64_t width) {
  float sum = 0;
  for (int64_t c = vector * LANES - channel_of(vector, width); c < LANES; c++) sum += x[c];
  return sum;
}

/* The left side: element (i, k) is at[i * row + k * deep]. */
typedef struct {
  const float *at;
  int64_t row, deep;
} matrix;

INLINE matrix rows_of(const float *at, int64_t row) { return (matrix){at, row, 1}; }
INLINE matrix columns_of(const float *at, int64_t row) { return (matrix){at, 1, row}; }

/* What happens to each vector of a product. */
typedef struct {
  int64_t row, vector, channel; /* the first channel of the vector */
} spot;
typedef void (*taker)(const void *context, spot at, vreal sum);

/* Two columns of vectors of the right side, whose rows are `distance` apart; or one, twice. */
typedef struct {
  const float *left, *right;
  int64_t distance, vector, channels[2];
} columns;

INLINE void product(const matrix a, int64_t first, const int64_t rows, int64_t depth,
                    const columns b, const int64_t vectors, taker take, const void *context) {
  vreal sums[MAX_TILE][2];
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; i++)
    for (int64_t n = 0; n < vectors; n++) sums[i][n] = (vreal){0};
  const float *at = a.at + first * a.row;
  for (int64_t k = 0; k < depth; k++) {
    const vreal b0 = load(b.left + k * b.distance), b1 = load(b.right + k * b.distance);
#pragma GCC unroll 8
    for (int64_t i = 0; i < rows; i++) {
      const float factor = at[i * a.row + k * a.deep];
      sums[i][0] += factor * b0;
      if (vectors == 2) sums[i][1] += factor * b1;
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; i++)
    for (int64_t n = 0; n < vectors; n++)
      take(context, (spot){first + i, b.vector + n, b.channels[n]}, sums[i][n]);
}

INLINE void product_columns(const matrix a, int64_t rows, int64_t depth, const columns b,
                            const int64_t vectors, taker take, const void *context) {
  int64_t i = 0;
  for (; i + TILE <= rows; i += TILE) product(a, i, TILE, depth, b, vectors, take, context);
  for (; TILE > 4 && i + 4 <= rows; i += 4) product(a, i, 4, depth, b, vectors, take, context);
  for (; i < rows; i++) product(a, i, 1, depth, b, vectors, take, context);
}

/* Hands on each vector of (rows, depth) times (depth, width); `distance`: of the rows of b. */
INLINE void multiply(const matrix a, int64_t rows, int64_t depth, const float *b, int64_t distance,
                     int64_t width, taker take, const void *context) {
  int64_t j = 0;
  for (; j + 2 <= vectors_of(width); j += 2) {
    const int64_t c0 = channel_of(j, width), c1 = channel_of(j + 1, width);
    const columns pair = {b + c0, b + c1, distance, j, {c0, c1}};
    product_columns(a, rows, depth, pair, 2, take, context);
  }
  if (j < vectors_of(width)) {
    const int64_t c = channel_of(j, width);
    product_columns(a, rows, depth, (columns){b + c, b + c, distance, j, {c, c}}, 1, take, context);
  }
}

/* Takers have contexts of their own on the stack, which compilers keep in registers: a store to an
 * array cannot change them. */
typedef struct {
  float *to;
  int64_t distance;
} target;

INLINE void put(const void *context, spot at, vreal sum) {
  const target *t = context;
  store(t->to + at.row * t->distance + at.channel, sum);
}

INLINE void add_sum(const void *context, spot at, vreal sum) {
  const target *t = context;
  float *to = t->to + at.row * t->distance + at.vector * LANES;
  store(to, load(to) + sum);
}

/* Adds a^T b over `depth` tokens to `sums`, (rows, padded(width)). */
static inline void add_outer(float *sums, const float *a, int64_t a_row, int64_t rows,
                             const float *b, int64_t b_row, int64_t width, int64_t depth) {
  const target to = {sums, padded(width)};
  multiply(columns_of(a, a_row), rows, depth, b, b_row, width, add_sum, &to);
}

/* Copies (rows, width), or with `transposed` its (width, rows), to rows `spaced` apart. */
static inline void copy_weight(float *to, const float *from, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = 0; c < width; c++) to[i * spaced(width) + c] = from[i * width + c];
}

static inline void transpose_weight(float *to, const float *from, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i += LANES)
    for (int64_t c = 0; c < width; c++)
      for (int64_t n = i; n < i + LANES && n < rows; n++)
        to[c * spaced(rows) + n] = from[n * width + c];
}

#endif
