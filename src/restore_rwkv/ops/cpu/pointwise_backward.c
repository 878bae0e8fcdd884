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

/* Arrays from the first token of a block; rows of the workspace are `spaced`, others `channels`. */
typedef struct {
  int64_t channels, spaced, wide;
  const float *x, *gy, *gy2, *sigmoid, *product, *gamma;
  float *y, *gx, *gz, *work[4], *k, *gk;
} arrays;

INLINE arrays arrays_of(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, start = b->token * c;
  arrays a = {.channels = c, .spaced = spaced(c), .wide = spaced(j->hidden), .gamma = j->gamma};
  a.x = j->x + start;
  a.gy = j->gy + start;
  a.gx = j->gx + start;
  if (j->gy2) a.gy2 = j->gy2 + start, a.y = j->y + start;
  if (j->sigmoid) a.sigmoid = j->sigmoid + start, a.product = j->product + start;
  if (j->gz) a.gz = j->gz + start;
  for (int64_t i = 0; i < 4; i++) a.work[i] = b->room.narrow[i];
  a.k = b->room.wide[0];
  a.gk = b->room.wide[1];
  return a;
}

/* The second of two products whose sum is the gradient of x. */
INLINE void take_rest(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const vreal first = load(a->work[3] + s.row * a->spaced + s.channel);
  store(a->gx + s.row * a->channels + s.channel, first + sum);
}

INLINE void take_rest_and_gx(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->channels + s.channel;
  const vreal first = load(a->work[3] + s.row * a->spaced + s.channel);
  store(a->y + at, load(a->gx + at) + (first + sum));
}

/* y = gx + gy first + gy2 second */
static void project_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, count = b->count;
  const float *first = j->work, *second = first + c * spaced(c);
  const arrays a = arrays_of(b);
  const target half = {a.work[3], spaced(c)};
  multiply(rows_of(a.gy, c), count, c, first, spaced(c), c, put, &half);
  multiply(rows_of(a.gy2, c), count, c, second, spaced(c), c, take_rest_and_gx, &a);
  add_outer(b->sums, a.gy, c, c, a.x, c, c, count);
  add_outer(second_sums(b), a.gy2, c, c, a.x, c, c, count);
}

INLINE void scale_rows(const arrays a, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t v = 0; v < vectors_of(a.channels); v++) {
      const int64_t c = channel_of(v, a.channels);
      store(a.work[0] + i * a.spaced + c, load(a.gamma + c) * load(a.gy + i * a.channels + c));
    }
}

INLINE void take_gated(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->channels + s.channel;
  const vreal open = load(a->sigmoid + at), gated = load(a->product + at);
  store(a->gz + at, sum * open);
  store(a->work[1] + s.row * a->spaced + s.channel, sum * gated * (1 - open));
}

static void gate_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, count = b->count;
  const float *first = j->work, *second = first + c * spaced(c);
  const arrays a = arrays_of(b);
  const target gx = {a.gx, c};
  scale_rows(a, count);
  multiply(rows_of(a.work[0], spaced(c)), count, c, second, spaced(c), c, take_gated, &a);
  multiply(rows_of(a.work[1], spaced(c)), count, c, first, spaced(c), c, put, &gx);
  add_outer(b->sums, a.work[1], spaced(c), c, a.x, c, c, count);
  add_outer(second_sums(b), a.gy, c, c, a.product, c, c, count);
}

INLINE void take_hidden(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  store(a->k + s.row * a->wide + s.channel, relu(sum));
}

INLINE void take_hidden_gradient(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->wide + s.channel;
  const vreal k = load(a->k + at);
  store(a->gk + at, sum * (k + k));
}

/* Rows 0: gradient of the gated values without gamma; 1: of the values; 2: of the receptance. */
INLINE void open_gates(const arrays a, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t v = 0; v < vectors_of(a.channels); v++) {
      const int64_t c = channel_of(v, a.channels), at = i * a.channels + c, to = i * a.spaced + c;
      const vreal open = load(a.sigmoid + at), gy = load(a.gy + at), gamma = load(a.gamma + c);
      const vreal unscaled = gy * open;
      store(a.work[0] + to, unscaled);
      store(a.work[1] + to, gamma * unscaled);
      store(a.work[2] + to, gamma * gy * load(a.product + at) * (1 - open));
    }
}

INLINE void square_rows(const arrays a, int64_t count, int64_t hidden) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t n = 0; n < padded(hidden); n += LANES) {
      float *at = a.k + i * a.wide + n;
      store(at, load(at) * load(at));
    }
}

static void mix_channels_back(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, h = j->hidden, near = spaced(c), wide = spaced(h), count = b->count;
  const float *turned = j->work, *first = turned + c * wide, *second = first + h * near;
  const float *third = second + c * near;
  const arrays a = arrays_of(b);
  const target half = {a.work[3], near};
  open_gates(a, count);
  multiply(rows_of(a.x, c), count, c, turned, wide, h, take_hidden, &a);
  multiply(rows_of(a.work[1], near), count, c, third, wide, h, take_hidden_gradient, &a);
  square_rows(a, count, h);
  multiply(rows_of(a.gk, wide), count, h, first, near, c, put, &half);
  multiply(rows_of(a.work[2], near), count, c, second, near, c, take_rest, &a);
  add_outer(b->sums, a.gk, wide, h, a.x, c, c, count);
  add_outer(second_sums(b), a.work[2], near, c, a.x, c, c, count);
  add_outer(third_sums(b), a.work[0], near, c, a.k, wide, h, count);
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
