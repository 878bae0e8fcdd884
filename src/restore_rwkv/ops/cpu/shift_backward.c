/* Gradients of the norm and shift of shift.c. The ring holds gradients of the outputs; normalised tokens
 * are computed again.
 */
#ifndef DOUBLE

#include "shift.h"

void shift_spread_taps(const shift_job *j, int64_t turn); /* in shift.c */

INLINE void copy_row(const band *b, int64_t row) {
  const shift_job *j = b->job;
  const int64_t c = j->channels, vectors = vectors_of(c), line = line_of(j), pixels = j->columns;
  const float *gy = j->gy + token_of(b, row) * c;
  float *to = ring_row(b, row) + j->side / 2 * LANES;
  for (int64_t w = 0; w < pixels; w++, gy += c, to += LANES)
    for (int64_t v = 0; v < vectors; v++) store(to + v * line, load(gy + channel_of(v, c)));
}

/* Adds, for each tap, the products of the values with the pixels that the tap meets. */
INLINE void correlate_line(const band *b, const float *const *lines, const float *values,
                           float *sums, const int64_t side, const int64_t together) {
  for (int64_t first = 0; first < side; first += together) {
    vreal taps[25] = {{0}};
    float *at = sums + first * side * LANES;
#pragma GCC unroll 25
    for (int64_t n = 0; n < together * side; n++) taps[n] = load(at + n * LANES);
    for (int64_t w = 0; w < b->job->columns; w++) {
      const vreal value = load(values + w * LANES);
#pragma GCC unroll 25
      for (int64_t n = 0; n < together * side; n++)
        taps[n] += value * load(lines[first + n / side] + (w + n % side) * LANES);
    }
#pragma GCC unroll 25
    for (int64_t n = 0; n < together * side; n++) store(at + n * LANES, taps[n]);
  }
}

INLINE void shift_row_back(const band *b, const int64_t side, const int64_t together) {
  const shift_job *j = b->job;
  const int64_t taps = taps_of(j) * LANES, line = line_of(j);
  const float *lines[MAX_SIDE];
  for (int64_t v = 0; v < vectors_of(j->channels); v++) {
    lines_around(b, v, lines, side);
    convolve_line(b, lines, j->work + v * taps, b->gradients + v * line, LANES, side);
    correlate_line(b, lines, b->values + v * line, b->sums + v * taps, side, together);
  }
}

/* Computes the normalised tokens of the current row again. */
INLINE void recompute_row(const band *b) {
  const shift_job *j = b->job;
  const int64_t c = j->channels, vectors = vectors_of(c), line = line_of(j), pixels = j->columns;
  const int64_t token = token_of(b, b->row);
  const float *x = j->x + token * c, *weight = j->weight, *bias = j->bias;
  const float *means = j->mean + token, *inverses = j->inverse + token;
  for (int64_t v = 0; v < vectors; v++) {
    const int64_t n = channel_of(v, c);
    const vreal scale = load(weight + n), offset = load(bias + n);
    float *to = b->values + v * line;
    for (int64_t w = 0; w < pixels; w++)
      store(to + w * LANES, (load(x + w * c + n) - means[w]) * inverses[w] * scale + offset);
  }
}

/* Adds the gradients of weight and bias of the norm from the current row. */
INLINE void add_norm_gradients(const band *b) {
  const shift_job *j = b->job;
  const int64_t c = j->channels, pixels = j->columns, token = token_of(b, b->row);
  const float *means = j->mean + token, *inverses = j->inverse + token;
  for (int64_t v = 0; v < vectors_of(c); v++) {
    const float *x = j->x + token * c + channel_of(v, c), *gy = b->gradients + v * line_of(j);
    float *gweight = b->sums + taps_size(j) + v * LANES, *gbias = gweight + padded(c);
    vreal weights = load(gweight), biases = load(gbias);
    for (int64_t w = 0; w < pixels; w++) {
      const vreal g = load(gy + w * LANES);
      weights += g * ((load(x + w * c) - means[w]) * inverses[w]);
      biases += g;
    }
    store(gweight, weights);
    store(gbias, biases);
  }
}

/* From gradients of the normalised tokens of the current row to those of x. */
INLINE void normalise_row_back(const band *b) {
  const shift_job *j = b->job;
  const int64_t c = j->channels, vectors = vectors_of(c), line = line_of(j), pixels = j->columns;
  const int64_t token = token_of(b, b->row);
  const float *x = j->x + token * c, *weight = j->weight, *gradients = b->gradients;
  const float *means = j->mean + token, *inverses = j->inverse + token;
  const vreal last = new_lanes(vectors - 1, c);
  const float share = 1 / (float)c;
  float *gx = j->gx + token * c;
  for (int64_t w = 0; w < pixels; w++, x += c, gx += c, gradients += LANES) {
    const float mean = means[w], inverse = inverses[w];
    vreal sum = {0}, products = {0};
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t n = channel_of(v, c);
      const vreal g = load(gradients + v * line) * load(weight + n), unit = load(x + n) - mean;
      const vreal own = v == vectors - 1 ? last * g : g;
      sum += own;
      products += own * unit;
    }
    const float mean_g = sum_lanes(sum) * share;
    const float slope = sum_lanes(products) * share * inverse * inverse;
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t n = channel_of(v, c);
      const vreal g = load(gradients + v * line) * load(weight + n), unit = load(x + n) - mean;
      store(gx + n, inverse * (g - mean_g - unit * slope));
    }
  }
}

static void shift_here_back(const band *b) {
  recompute_row(b);
  if (b->job->side == 5)
    shift_row_back(b, 5, VECTOR == 64 ? 5 : 1);
  else
    shift_row_back(b, b->job->side, 1);
  add_norm_gradients(b);
  normalise_row_back(b);
}

static void shift_all_back(void *data) { each_row(data, copy_row, shift_here_back); }

/* Adds up the sums of all tasks, in their order, for one vector of a gradient. */
INLINE vreal add_tasks(const shift_job *j, int64_t offset) {
  vreal sum = {0};
  for (int64_t task = 0; task < tasks_of(j); task++) sum += load(sums_of(j, task) + offset);
  return sum;
}

/* Gradients of one branch and its factor from those of the kernel, (channels, side, side). */
static void divide_kernel(const shift_job *j, const float *gkernel, int64_t branch) {
  const int64_t taps = (2 * branch + 1) * (2 * branch + 1), inset = j->side / 2 - branch;
  double sum = 0;
  for (int64_t c = 0; c < j->channels; c++)
    for (int64_t n = 0; n < taps; n++) {
      const int64_t y = inset + n / (2 * branch + 1), x = inset + n % (2 * branch + 1);
      const float g = gkernel[c * taps_of(j) + y * j->side + x];
      sum += g * j->branches[branch][c * taps + n];
      j->gbranches[branch][c * taps + n] = j->alpha ? j->alpha[1 + branch] * g : g;
    }
  if (j->alpha) j->galpha[1 + branch] = (float)sum;
}

static void divide_gradients(const shift_job *j) {
  const int64_t c = j->channels, taps = taps_of(j);
  float *gkernel = j->work; /* the taps are not needed any more */
  double sum = 0;
  for (int64_t v = 0; v < vectors_of(c); v++)
    for (int64_t n = 0; n < taps; n++) {
      const vreal g = add_tasks(j, (v * taps + n) * LANES);
      for (int64_t i = 0; i < LANES; i++)
        gkernel[(channel_of(v, c) + i) * taps + taps - 1 - n] = g[i];
    }
  for (int64_t i = 0; i <= j->side / 2; i++)
    if (j->branches[i]) divide_kernel(j, gkernel, i);
  for (int64_t i = 0; i < c; i++) sum += gkernel[i * taps + taps / 2];
  if (j->alpha) j->galpha[0] = (float)sum;
}

/* As shift_forward. */
void shift_backward(shift_job *j) {
  const int64_t c = j->channels;
  shift_spread_taps(j, -1);
  memset(sums_of(j, 0), 0, (size_t)(tasks_of(j) * sums_size(j)) * sizeof(float));
  run_on(j->launch, j->threads, shift_all_back, j);
  divide_gradients(j);
  for (int64_t v = 0; v < vectors_of(c); v++) {
    const int64_t first = channel_of(v, c);
    store(j->gweight + first, add_tasks(j, taps_size(j) + v * LANES));
    store(j->gbias + first, add_tasks(j, taps_size(j) + padded(c) + v * LANES));
  }
}

#endif
