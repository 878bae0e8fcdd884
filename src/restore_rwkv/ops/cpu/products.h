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

/* What happens to each vector of a product: row, vector in it, sum. */
typedef void (*taker)(const void *context, int64_t row, int64_t vector, vreal sum);

INLINE void product(const matrix a, int64_t first, const int64_t rows, int64_t depth,
                    const float *left, const float *right, int64_t distance, int64_t vector,
                    const int64_t vectors, taker take, const void *context) {
  vreal sums[MAX_TILE][2];
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; i++)
    for (int64_t n = 0; n < vectors; n++) sums[i][n] = (vreal){0};
  const float *at = a.at + first * a.row;
  for (int64_t k = 0; k < depth; k++) {
    const vreal b0 = load(left + k * distance), b1 = load(right + k * distance);
#pragma GCC unroll 8
    for (int64_t i = 0; i < rows; i++) {
      const float factor = at[i * a.row + k * a.deep];
      sums[i][0] += factor * b0;
      if (vectors == 2) sums[i][1] += factor * b1;
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; i++)
    for (int64_t n = 0; n < vectors; n++) take(context, first + i, vector + n, sums[i][n]);
}

INLINE void product_columns(const matrix a, int64_t rows, int64_t depth, const float *left,
                            const float *right, int64_t distance, int64_t vector,
                            const int64_t vectors, taker take, const void *context) {
  int64_t i = 0;
  for (; i + TILE <= rows; i += TILE)
    product(a, i, TILE, depth, left, right, distance, vector, vectors, take, context);
  for (; TILE > 4 && i + 4 <= rows; i += 4)
    product(a, i, 4, depth, left, right, distance, vector, vectors, take, context);
  for (; i < rows; i++)
    product(a, i, 1, depth, left, right, distance, vector, vectors, take, context);
}

/* Hands on each vector of (rows, depth) times (depth, width); `distance`: of the rows of b. */
INLINE void multiply(const matrix a, int64_t rows, int64_t depth, const float *b, int64_t distance,
                     int64_t width, taker take, const void *context) {
  int64_t j = 0;
  for (; j + 2 <= vectors_of(width); j += 2)
    product_columns(a, rows, depth, b + channel_of(j, width), b + channel_of(j + 1, width),
                    distance, j, 2, take, context);
  if (j < vectors_of(width)) {
    const float *last = b + channel_of(j, width);
    product_columns(a, rows, depth, last, last, distance, j, 1, take, context);
  }
}

/* Adds a^T b to `sums`, (rows, padded(width)), over `depth` tokens. */
typedef struct {
  float *sums;
  int64_t distance;
} running;

INLINE void add_sum(const void *context, int64_t row, int64_t vector, vreal sum) {
  const running *to = context;
  float *at = to->sums + row * to->distance + vector * LANES;
  store(at, load(at) + sum);
}

static inline void add_outer(float *sums, const float *a, int64_t a_row, int64_t rows,
                             const float *b, int64_t b_row, int64_t width, int64_t depth) {
  const running to = {sums, padded(width)};
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
