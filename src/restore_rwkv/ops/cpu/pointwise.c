/* Matrix products of a block, fused with its element-wise operations (eq. 1-7 of arXiv 2407.11087).
 * General libraries reach only half of the processor's speed on narrow matrices, and intermediate
 * results go through memory; here the tokens of a block pass through all operations in registers
 * and the nearer caches.
 */
#ifndef DOUBLE

#include <stddef.h>

#include "pointwise.h"

/* y = x first, y2 = x second */
static void project(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, start = b->token * c;
  const float *first = j->work, *second = first + c * spaced(c);
  const target y = {j->y + start, c}, y2 = {j->y2 + start, c};
  multiply(tokens_of(b, j->x), b->count, c, first, spaced(c), c, put, &y);
  multiply(tokens_of(b, j->x), b->count, c, second, spaced(c), c, put, &y2);
}

/* Arrays from the first token of a block; rows of the workspace are `spaced`, others `channels`. */
typedef struct {
  int64_t channels, spaced;
  const float *z, *residual, *gamma;
  float *y, *sigmoid, *product, *work;
} arrays;

INLINE arrays arrays_of(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, start = b->token * c;
  return (arrays){c,
                  spaced(c),
                  j->z ? j->z + start : NULL,
                  j->residual + start,
                  j->gamma,
                  j->y + start,
                  j->sigmoid ? j->sigmoid + start : NULL,
                  j->product ? j->product + start : NULL,
                  b->room.narrow[0]};
}

INLINE void take_gate(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->channels + s.channel;
  const vreal open = sigmoid(sum), gated = open * load(a->z + at);
  store(a->work + s.row * a->spaced + s.channel, gated);
  if (a->sigmoid) store(a->sigmoid + at, open), store(a->product + at, gated);
}

INLINE void take_output(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->channels + s.channel;
  store(a->y + at, load(a->residual + at) + load(a->gamma + s.channel) * sum);
}

/* y = residual + gamma * ((sigmoid(x first) * z) second) */
static void gate(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels;
  const float *first = j->work, *second = first + c * spaced(c);
  const arrays a = arrays_of(b);
  multiply(tokens_of(b, j->x), b->count, c, first, spaced(c), c, take_gate, &a);
  multiply(rows_of(a.work, spaced(c)), b->count, c, second, spaced(c), c, take_output, &a);
}

INLINE void take_hidden(const void *context, spot s, vreal sum) {
  const target *t = context;
  const vreal k = relu(sum);
  store(t->to + s.row * t->distance + s.channel, k * k);
}

INLINE void take_receptance(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const vreal open = sigmoid(sum);
  store(a->work + s.row * a->spaced + s.channel, open);
  if (a->sigmoid) store(a->sigmoid + s.row * a->channels + s.channel, open);
}

INLINE void take_value(const void *context, spot s, vreal sum) {
  const arrays *a = context;
  const int64_t at = s.row * a->channels + s.channel;
  const vreal mixed = load(a->work + s.row * a->spaced + s.channel) * sum;
  store(a->y + at, load(a->residual + at) + load(a->gamma + s.channel) * mixed);
  if (a->product) store(a->product + at, mixed);
}

/* y = residual + gamma * sigmoid(x second) * (relu(x first)^2 third) */
static void mix_channels(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, h = j->hidden;
  const float *first = j->work, *second = first + c * spaced(h), *third = second + c * spaced(c);
  const arrays a = arrays_of(b);
  const target k = {b->room.wide[0], spaced(h)};
  multiply(tokens_of(b, j->x), b->count, c, first, spaced(h), h, take_hidden, &k);
  multiply(tokens_of(b, j->x), b->count, c, second, spaced(c), c, take_receptance, &a);
  multiply(rows_of(k.to, spaced(h)), b->count, h, third, spaced(c), c, take_value, &a);
}

static void project_all(void *data) { each_block(data, project); }
static void gate_all(void *data) { each_block(data, gate); }
static void mix_channels_all(void *data) { each_block(data, mix_channels); }

/* Returns whether the kernels support layers of these widths. With 16 registers of four numbers
 * general libraries are always faster. */
int64_t pointwise_takes(int64_t channels) { return VECTOR > 16 && channels >= LANES; }

/* Number of floats of the workspace. */
int64_t pointwise_work(const pointwise_job *j, int64_t backward) {
  return weights_size(j) + j->threads * room_size(j) + (backward ? j->groups * sums_size(j) : 0);
}

/* Each returns when the work is done; the caller owns all buffers of the job. */
void pointwise_project(pointwise_job *j) {
  const int64_t c = j->channels;
  transpose_weight(j->work, j->first, c, c);
  transpose_weight(j->work + c * spaced(c), j->second, c, c);
  run_on(j->launch, j->threads, project_all, j);
}

void pointwise_gate(pointwise_job *j) {
  const int64_t c = j->channels;
  transpose_weight(j->work, j->first, c, c);
  transpose_weight(j->work + c * spaced(c), j->second, c, c);
  run_on(j->launch, j->threads, gate_all, j);
}

void pointwise_mix_channels(pointwise_job *j) {
  const int64_t c = j->channels, h = j->hidden;
  float *at = j->work;
  transpose_weight(at, j->first, h, c);
  transpose_weight(at += c * spaced(h), j->second, c, c);
  transpose_weight(at += c * spaced(c), j->third, c, h);
  run_on(j->launch, j->threads, mix_channels_all, j);
}

#endif
