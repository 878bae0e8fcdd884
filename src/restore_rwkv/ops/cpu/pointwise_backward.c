/* Gradients of the products of pointwise.c. Hidden activations are computed again, so that only
 * arrays of `channels` are kept from the forward pass. Gradients of weights are summed for each group
 * of blocks, then over the groups in their order: the result depends only on the number of groups.
 */
#ifndef DOUBLE

#include <string.h>

#include "pointwise.h"

/* Sums of a group: first (hidden, channels), second (channels, channels), third (channels, hidden);
 * the products of `channels` alone have two of the second kind instead. */
INLINE float *second_sums(const block *b) {
  return b->sums + b->job->hidden * padded(b->job->channels);
}

INLINE float *third_sums(const block *b) {
  return second_sums(b) + b->job->channels * padded(b->job->channels);
}

INLINE float *scratch(const block *b, int64_t which, int64_t row, int64_t vector) {
  const int64_t c = b->job->channels;
  return b->room.narrow[which] + row * spaced(c) + channel_of(vector, c);
}

/* Stores sums over the groups, each row with a factor (or NULL for 1). */
INLINE void add_groups(const pointwise_job *j, int64_t offset, int64_t rows, int64_t width,
                       const float *factors, float *gradient) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t v = 0; v < vectors_of(width); v++) {
      vreal sum = {0};
      for (int64_t group = 0; group < j->groups; group++)
        sum += load(sums_of(j, group) + offset + i * padded(width) + v * LANES);
      if (factors) sum *= factors[i];
      store(gradient + i * width + channel_of(v, width), sum);
    }
}

/* With y = residual + gamma * (a w): the sums are those of gy^T a, from which the gradients of both
 * gamma and w (channels, width) follow. */
static void add_scaled_groups(const pointwise_job *j, int64_t offset, int64_t width, const float *w,
                              float *gradient) {
  for (int64_t i = 0; i < j->channels; i++) {
    float sum = 0, *row = gradient + i * width;
    add_groups(j, offset + i * padded(width), 1, width, NULL, row);
    for (int64_t v = 0; v < vectors_of(width); v++) {
      const int64_t at = channel_of(v, width);
      sum += sum_of_new_lanes(load(row + at) * load(w + i * width + at), v, width);
    }
    j->ggamma[i] = sum;
    add_groups(j, offset + i * padded(width), 1, width, j->gamma + i, row);
  }
}

/* A product whose result goes to, or is added to, rows of the workspace. */
INLINE void take_part(const void *context, int64_t row, int64_t vector, vreal sum) {
  store(scratch(context, 3, row, vector), sum);
}

INLINE void take_rest(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  store(b->job->gx + place(b, row, vector), load(scratch(b, 3, row, vector)) + sum);
}

INLINE void take_rest_and_gx(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const int64_t at = place(b, row, vector);
  store(b->job->y + at, load(b->job->gx + at) + (load(scratch(b, 3, row, vector)) + sum));
}

INLINE void take_gx(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  store(b->job->gx + place(b, row, vector), sum);
}

/* y = gx + gy first + gy2 second */
static void project_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, start = b->token * c;
  const float *first = j->work, *second = first + c * spaced(c);
  multiply(tokens_of(b, j->gy), b->count, c, first, spaced(c), c, take_part, b);
  multiply(tokens_of(b, j->gy2), b->count, c, second, spaced(c), c, take_rest_and_gx, b);
  add_outer(b->sums, j->gy + start, c, c, j->x + start, c, c, b->count);
  add_outer(second_sums(b), j->gy2 + start, c, c, j->x + start, c, c, b->count);
}

INLINE void scale_rows(const block *b, int64_t which) {
  const pointwise_job *j = b->job;
  for (int64_t i = 0; i < b->count; i++)
    for (int64_t v = 0; v < vectors_of(j->channels); v++)
      store(scratch(b, which, i, v),
            load(j->gamma + channel_of(v, j->channels)) * load(j->gy + place(b, i, v)));
}

INLINE void take_gated(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const pointwise_job *j = b->job;
  const int64_t at = place(b, row, vector);
  const vreal open = load(j->sigmoid + at), gated = load(j->product + at);
  store(j->gz + at, sum * open);
  store(scratch(b, 1, row, vector), sum * gated * (1 - open));
}

static void gate_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, start = b->token * c;
  const float *first = j->work, *second = first + c * spaced(c);
  const float *scaled = b->room.narrow[0], *opening = b->room.narrow[1];
  scale_rows(b, 0);
  multiply(rows_of(scaled, spaced(c)), b->count, c, second, spaced(c), c, take_gated, b);
  multiply(rows_of(opening, spaced(c)), b->count, c, first, spaced(c), c, take_gx, b);
  add_outer(b->sums, opening, spaced(c), c, j->x + start, c, c, b->count);
  add_outer(second_sums(b), j->gy + start, c, c, j->product + start, c, c, b->count);
}

INLINE void take_hidden(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const int64_t h = b->job->hidden;
  store(b->room.wide[0] + row * spaced(h) + channel_of(vector, h), relu(sum));
}

INLINE void take_hidden_gradient(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const int64_t h = b->job->hidden, at = row * spaced(h) + channel_of(vector, h);
  const vreal k = load(b->room.wide[0] + at);
  store(b->room.wide[1] + at, sum * (k + k));
}

/* Rows 0: gradient of the gated values without gamma; 1: of the values; 2: of the receptance. */
INLINE void open_gates(const block *b) {
  const pointwise_job *j = b->job;
  for (int64_t i = 0; i < b->count; i++)
    for (int64_t v = 0; v < vectors_of(j->channels); v++) {
      const int64_t at = place(b, i, v);
      const vreal open = load(j->sigmoid + at), gy = load(j->gy + at);
      const vreal gamma = load(j->gamma + channel_of(v, j->channels)), unscaled = gy * open;
      store(scratch(b, 0, i, v), unscaled);
      store(scratch(b, 1, i, v), gamma * unscaled);
      store(scratch(b, 2, i, v), gamma * gy * load(j->product + at) * (1 - open));
    }
}

INLINE void square(const block *b) {
  const int64_t h = b->job->hidden;
  for (int64_t i = 0; i < b->count; i++) {
    float *row = b->room.wide[0] + i * spaced(h);
    for (int64_t n = 0; n < h; n++) row[n] *= row[n];
  }
}

static void mix_channels_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, h = j->hidden, start = b->token * c;
  const float *turned = j->work, *first = turned + c * spaced(h), *second = first + h * spaced(c);
  const float *third = second + c * spaced(c), *k = b->room.wide[0], *gk = b->room.wide[1];
  const float *unscaled = b->room.narrow[0], *values = b->room.narrow[1];
  const float *receptance = b->room.narrow[2];
  open_gates(b);
  multiply(tokens_of(b, j->x), b->count, c, turned, spaced(h), h, take_hidden, b);
  multiply(rows_of(values, spaced(c)), b->count, c, third, spaced(h), h, take_hidden_gradient, b);
  square(b);
  multiply(rows_of(gk, spaced(h)), b->count, h, first, spaced(c), c, take_part, b);
  multiply(rows_of(receptance, spaced(c)), b->count, c, second, spaced(c), c, take_rest, b);
  add_outer(b->sums, gk, spaced(h), h, j->x + start, c, c, b->count);
  add_outer(second_sums(b), receptance, spaced(c), c, j->x + start, c, c, b->count);
  add_outer(third_sums(b), unscaled, spaced(c), c, k, spaced(h), h, b->count);
}

static void project_back_all(void *data) { each_block(data, project_back); }
static void gate_back_all(void *data) { each_block(data, gate_back); }
static void mix_channels_back_all(void *data) { each_block(data, mix_channels_back); }

static void run_back(pointwise_job *j, void (*body)(void *)) {
  memset(sums_of(j, 0), 0, (size_t)(j->groups * sums_size(j)) * sizeof(float));
  run_on(j->launch, j->threads, body, j);
}

/* As those of pointwise.c. y is the sum of gx and this gradient of x. */
void pointwise_project_backward(pointwise_job *j) {
  const int64_t c = j->channels;
  copy_weight(j->work, j->first, c, c);
  copy_weight(j->work + c * spaced(c), j->second, c, c);
  run_back(j, project_back_all);
  add_groups(j, 0, c, c, NULL, j->gfirst);
  add_groups(j, j->hidden * padded(c), c, c, NULL, j->gsecond);
}

void pointwise_gate_backward(pointwise_job *j) {
  const int64_t c = j->channels;
  copy_weight(j->work, j->first, c, c);
  copy_weight(j->work + c * spaced(c), j->second, c, c);
  run_back(j, gate_back_all);
  add_groups(j, 0, c, c, NULL, j->gfirst);
  add_scaled_groups(j, j->hidden * padded(c), c, j->second, j->gsecond);
}

void pointwise_mix_channels_backward(pointwise_job *j) {
  const int64_t c = j->channels, h = j->hidden;
  float *at = j->work;
  transpose_weight(at, j->first, h, c);
  copy_weight(at += c * spaced(h), j->first, h, c);
  copy_weight(at += h * spaced(c), j->second, c, c);
  copy_weight(at += c * spaced(c), j->third, c, h);
  run_back(j, mix_channels_back_all);
  add_groups(j, 0, h, c, NULL, j->gfirst);
  add_groups(j, h * padded(c), c, c, NULL, j->gsecond);
  add_scaled_groups(j, (h + c) * padded(c), h, j->third, j->gthird);
}

#endif
