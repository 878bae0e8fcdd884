/* LayerNorm followed by a depth-wise convolution with zero padding (Omni-Shift, eq. 11 of arXiv
 * 2407.11087), and its gradients, on channels-last tokens.
 *
 * Rows of an image pass through a ring of as many rows as the kernel has, normalised, with their zero
 * padding, and with the pixels of each vector of channels side by side. Every task has a band of rows
 * and, in the backward pass, sums of its own, which are added in the order of the tasks: the result
 * does not depend on the number of threads.
 */
#ifndef DOUBLE

#include <math.h>

#include "shift.h"

/* Mean of a token and the inverse of its standard deviation. */
INLINE void moments(const shift_job *j, const float *x, vreal last, float *mean, float *inverse) {
  const int64_t c = j->channels, vectors = vectors_of(c);
  vreal sum = last * load(x + c - LANES), squares = {0};
  for (int64_t v = 0; v < vectors - 1; v++) sum += load(x + v * LANES);
  *mean = sum_lanes(sum) / (float)c;
  for (int64_t v = 0; v < vectors; v++) {
    const vreal d = load(x + channel_of(v, c)) - *mean;
    squares += v == vectors - 1 ? last * d * d : d * d;
  }
  *inverse = 1 / sqrtf(sum_lanes(squares) / (float)c + (float)j->epsilon);
}

/* Puts a row of normalised tokens into the ring. */
INLINE void normalise_row(const band *b, int64_t row) {
  const shift_job *j = b->job;
  const int64_t c = j->channels, vectors = vectors_of(c), line = line_of(j);
  const vreal last = new_lanes(vectors - 1, c);
  float *to = ring_row(b, row) + j->side / 2 * LANES;
  for (int64_t w = 0; w < j->columns; w++) {
    const int64_t at = pixel_of(b, row, w);
    float mean, inverse;
    moments(j, j->x + at, last, &mean, &inverse);
    if (j->mean) j->mean[at / c] = mean, j->inverse[at / c] = inverse;
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t n = channel_of(v, c);
      const vreal x = (load(j->x + at + n) - mean) * inverse;
      store(to + v * line + w * LANES, x * load(j->weight + n) + load(j->bias + n));
    }
  }
}

INLINE void shift_row(const band *b, const int64_t side) {
  const shift_job *j = b->job;
  const float *lines[MAX_SIDE];
  for (int64_t v = 0; v < vectors_of(j->channels); v++) {
    lines_around(b, v, lines, side);
    float *to = j->y + pixel_of(b, b->row, 0) + channel_of(v, j->channels);
    convolve_line(b, lines, j->work + v * taps_of(j) * LANES, to, j->channels, side);
  }
}

static void shift_here(const band *b) {
  if (b->job->side == 5)
    shift_row(b, 5);
  else
    shift_row(b, b->job->side);
}

static void shift_all(void *data) { each_row(data, normalise_row, shift_here); }

/* Number of floats of the workspace. */
int64_t shift_work(const shift_job *j, int64_t backward) {
  return taps_size(j) + j->threads * room_size(j) + (backward ? tasks_of(j) * sums_size(j) : 0);
}

/* Returns when the work is done; the caller owns all buffers of the job. */
void shift_forward(shift_job *j) {
  spread_taps(j, 0);
  run_on(j->launch, j->threads, shift_all, j);
}

#endif
