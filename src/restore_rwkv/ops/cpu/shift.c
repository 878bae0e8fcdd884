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

#define TOKENS 16 /* whose roots are taken together */

/* Mean and variance of a token of c channels. */
INLINE void moments(const float *x, int64_t c, vreal last, float *mean, float *variance) {
  const int64_t vectors = vectors_of(c);
  const float share = 1 / (float)c;
  vreal sum = last * load(x + c - LANES), squares = {0};
  for (int64_t v = 0; v < vectors - 1; v++) sum += load(x + v * LANES);
  *mean = sum_lanes(sum) * share;
  for (int64_t v = 0; v < vectors - 1; v++) {
    const vreal d = load(x + v * LANES) - *mean;
    squares += d * d;
  }
  const vreal d = load(x + c - LANES) - *mean;
  squares += last * d * d;
  *variance = sum_lanes(squares) * share;
}

/* Puts up to TOKENS tokens, normalised, into lines of the ring, and keeps their moments. */
INLINE void normalise_tokens(const shift_job *j, int64_t token, int64_t count, float *to) {
  const int64_t c = j->channels, vectors = vectors_of(c), line = line_of(j);
  const float *x = j->x + token * c, *weight = j->weight, *bias = j->bias;
  const vreal last = new_lanes(vectors - 1, c);
  float means[TOKENS] = {0}, inverses[TOKENS] = {0};
  for (int64_t w = 0; w < count; w++) moments(x + w * c, c, last, means + w, inverses + w);
  for (int64_t w = 0; w < TOKENS; w++) inverses[w] = 1 / sqrtf(inverses[w] + (float)j->epsilon);
  for (int64_t v = 0; v < vectors; v++) {
    const int64_t n = channel_of(v, c);
    const vreal scale = load(weight + n), offset = load(bias + n);
    for (int64_t w = 0; w < count; w++)
      store(to + v * line + w * LANES,
            (load(x + w * c + n) - means[w]) * inverses[w] * scale + offset);
  }
  if (!j->mean) return;
  memcpy(j->mean + token, means, (size_t)count * sizeof(float));
  memcpy(j->inverse + token, inverses, (size_t)count * sizeof(float));
}

INLINE void normalise_row(const band *b, int64_t row) {
  const int64_t pixels = b->job->columns;
  float *to = ring_row(b, row) + b->job->side / 2 * LANES;
  for (int64_t w = 0; w < pixels; w += TOKENS)
    normalise_tokens(b->job, token_of(b, row) + w, pixels - w < TOKENS ? pixels - w : TOKENS,
                     to + w * LANES);
}

INLINE void shift_row(const band *b, const int64_t side) {
  const shift_job *j = b->job;
  const float *lines[MAX_SIDE];
  for (int64_t v = 0; v < vectors_of(j->channels); v++) {
    lines_around(b, v, lines, side);
    float *to = j->y + token_of(b, b->row) * j->channels + channel_of(v, j->channels);
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

/* Tap of the kernel of one channel. */
INLINE float merged_tap(const shift_job *j, int64_t channel, int64_t dy, int64_t dx) {
  float tap = 0;
  for (int64_t i = j->side / 2; i >= 0; i--) {
    const int64_t n = tap_in_branch(i, dy, dx), taps = (2 * i + 1) * (2 * i + 1);
    if (n < 0 || !j->branches[i]) continue;
    tap += (j->alpha ? j->alpha[1 + i] : 1) * j->branches[i][channel * taps + n];
  }
  return j->alpha && dy == 0 && dx == 0 ? tap + j->alpha[0] : tap;
}

/* Computes the taps of each vector of channels; with `turn` 1 those of the kernel, with -1 those of
 * the kernel turned by 180 degrees. */
void shift_spread_taps(const shift_job *j, int64_t turn) {
  const int64_t half = j->side / 2;
  float *to = j->work;
  for (int64_t v = 0; v < vectors_of(j->channels); v++)
    for (int64_t dy = -half; dy <= half; dy++)
      for (int64_t dx = -half; dx <= half; dx++)
        for (int64_t c = 0; c < LANES; c++)
          *to++ = merged_tap(j, channel_of(v, j->channels) + c, turn * dy, turn * dx);
}

/* Number of floats of the workspace. */
int64_t shift_work(const shift_job *j, int64_t backward) {
  return taps_size(j) + j->threads * room_size(j) + (backward ? tasks_of(j) * sums_size(j) : 0);
}

/* Returns when the work is done; the caller owns all buffers of the job. */
void shift_forward(shift_job *j) {
  shift_spread_taps(j, 1);
  run_on(j->launch, j->threads, shift_all, j);
}

#endif
