/* Job of the norm and shift, its workspace, and the ring of rows that images pass through. */
#ifndef SHIFT_H
#define SHIFT_H

#include <string.h>

#include "products.h"
#include "schedule.h"

#define PIXELS 8   /* outputs side by side in registers */
#define BAND 32    /* rows of a task */
#define MAX_SIDE 9 /* of the kernel */
#define BRANCHES 5 /* of kernels up to that side */

typedef struct {
  int64_t batch, rows, columns, channels, side;
  int64_t threads;
  launcher launch;            /* NULL: this thread does all the work */
  double epsilon;             /* added to the variance */
  const float *x;             /* (batch, rows, columns, channels), as all images */
  const float *weight, *bias; /* (channels), of the norm */
  /* Depth-wise kernels of side 1, 3, ..., side, (channels, side, side); NULL where there is none. The
   * kernel is their sum, each times its factor, and the identity times the first factor. */
  const float *branches[BRANCHES];
  const float *alpha;         /* (1 + branches), or NULL: only the largest branch, as it is */
  float *y;                   /* forward only */
  float *mean, *inverse;      /* (batch, rows, columns), of x and its deviation, or NULL */
  const float *gy;            /* backward only, as all that follow */
  float *gx;
  float *gweight, *gbias;     /* (channels) */
  float *gbranches[BRANCHES], *galpha; /* as branches and alpha */
  float *work;                /* shift_work floats: workspace */
  int64_t next, workers;      /* 0 */
} shift_job;

INLINE int64_t bands_of(const shift_job *j) { return (j->rows + BAND - 1) / BAND; }
INLINE int64_t tasks_of(const shift_job *j) { return j->batch * bands_of(j); }
INLINE int64_t taps_of(const shift_job *j) { return j->side * j->side; }

/* Floats of one vector of channels of a row, with its padding. */
INLINE int64_t line_of(const shift_job *j) { return (j->columns + j->side - 1 + PIXELS) * LANES; }
INLINE int64_t row_size(const shift_job *j) { return vectors_of(j->channels) * line_of(j); }
INLINE int64_t taps_size(const shift_job *j) { return padded(j->channels) * taps_of(j); }
INLINE int64_t room_size(const shift_job *j) { return (j->side + 2) * row_size(j); }

/* Sums of a task: of the taps, of the weight and bias of the norm. */
INLINE int64_t sums_size(const shift_job *j) { return taps_size(j) + 2 * padded(j->channels); }

INLINE float *sums_of(const shift_job *j, int64_t task) {
  return j->work + taps_size(j) + j->threads * room_size(j) + task * sums_size(j);
}

/* What a thread works with: the ring, rows of values and of gradients. */
typedef struct {
  const shift_job *job;
  float *ring, *values, *gradients, *sums;
  int64_t image, row; /* current place */
} band;

INLINE float *ring_row(const band *b, int64_t row) {
  return b->ring + (row + MAX_SIDE * b->job->side) % b->job->side * row_size(b->job);
}

/* Index of the first token of a row of the current image. */
INLINE int64_t token_of(const band *b, int64_t row) {
  return (b->image * b->job->rows + row) * b->job->columns;
}

INLINE float sum_lanes(vreal x) {
  typedef float quad __attribute__((vector_size(16)));
  quad quads[VECTOR / 16], sum = {0};
  memcpy(quads, &x, sizeof x);
  for (int64_t i = 0; i < VECTOR / 16; i++) sum += quads[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* 1 for the lanes of a vector that are not in the one before, else 0. */
INLINE vreal new_lanes(int64_t vector, int64_t width) {
  vreal lanes;
  for (int64_t c = 0; c < LANES; c++)
    lanes[c] = c < vector * LANES - channel_of(vector, width) ? 0 : 1;
  return lanes;
}

/* Fills the ring with a row; those above and below the image are 0. */
INLINE void enter_row(const band *b, int64_t row, void (*fill)(const band *, int64_t)) {
  if (row >= 0 && row < b->job->rows)
    fill(b, row);
  else
    memset(ring_row(b, row), 0, (size_t)row_size(b->job) * sizeof(float));
}

/* The lines of one vector of channels of the rows around the current one. */
INLINE void lines_around(const band *b, int64_t vector, const float **lines, const int64_t side) {
  for (int64_t dy = 0; dy < side; dy++)
    lines[dy] = ring_row(b, b->row + dy - side / 2) + vector * line_of(b->job);
}

/* Convolves the current row; results go to rows of pixels `distance` apart. */
INLINE void convolve_line(const band *b, const float *const *lines, const float *taps, float *to,
                          int64_t distance, const int64_t side) {
  const int64_t pixels = b->job->columns;
  for (int64_t w = 0; w < pixels; w += PIXELS) {
    vreal sums[PIXELS] = {{0}};
    for (int64_t dy = 0; dy < side; dy++)
#pragma GCC unroll 9
      for (int64_t dx = 0; dx < side; dx++) {
        const vreal tap = load(taps + (dy * side + dx) * LANES);
#pragma GCC unroll 8
        for (int64_t i = 0; i < PIXELS; i++)
          sums[i] += tap * load(lines[dy] + (w + i + dx) * LANES);
      }
    const int64_t count = pixels - w;
#pragma GCC unroll 8
    for (int64_t i = 0; i < PIXELS; i++)
      if (i < count) store(to + (w + i) * distance, sums[i]);
  }
}

INLINE void each_row(shift_job *j, void (*fill)(const band *, int64_t),
                     void (*act)(const band *)) {
  const int64_t worker = __atomic_fetch_add(&j->workers, 1, __ATOMIC_RELAXED);
  const int64_t half = j->side / 2;
  band b = {.job = j, .ring = j->work + taps_size(j) + worker * room_size(j)};
  memset(b.ring, 0, (size_t)room_size(j) * sizeof(float));
  b.values = b.ring + j->side * row_size(j);
  b.gradients = b.values + row_size(j);
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks_of(j);) {
    const int64_t first = task % bands_of(j) * BAND;
    const int64_t end = first + BAND < j->rows ? first + BAND : j->rows;
    b.image = task / bands_of(j);
    b.sums = sums_of(j, task);
    for (int64_t row = first - half; row < first + half; row++) enter_row(&b, row, fill);
    for (b.row = first; b.row < end; b.row++) {
      enter_row(&b, b.row + half, fill);
      act(&b);
    }
  }
}

/* Index in a branch of a tap of the kernel, (dy, dx) from its middle; -1 outside the branch. */
INLINE int64_t tap_in_branch(int64_t branch, int64_t dy, int64_t dx) {
  const int64_t inside = dy >= -branch && dy <= branch && dx >= -branch && dx <= branch;
  return inside ? (dy + branch) * (2 * branch + 1) + dx + branch : -1;
}

#endif
