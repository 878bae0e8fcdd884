/* Matrix products of a block, fused with its element-wise operations (eq. 1-7 of arXiv 2407.11087).
 * General libraries reach only half of the processor's speed on narrow matrices, and intermediate
 * results go through memory; here the tokens of a block pass through all operations in registers
 * and the nearer caches.
 */
#ifndef DOUBLE

#include "pointwise.h"

INLINE void take_first(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  store(b->job->y + place(b, row, vector), sum);
}

INLINE void take_second(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  store(b->job->y2 + place(b, row, vector), sum);
}

/* y = x first, y2 = x second */
static void project(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels;
  const float *first = j->work, *second = first + c * spaced(c);
  multiply(tokens_of(b, j->x), b->count, c, first, spaced(c), c, take_first, b);
  multiply(tokens_of(b, j->x), b->count, c, second, spaced(c), c, take_second, b);
}

INLINE void take_gate(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const pointwise_job *j = b->job;
  const int64_t at = place(b, row, vector), c = j->channels;
  const vreal open = sigmoid(sum), gated = open * load(j->z + at);
  store(b->room.narrow[0] + row * spaced(c) + channel_of(vector, c), gated);
  if (j->sigmoid) store(j->sigmoid + at, open), store(j->product + at, gated);
}

INLINE void take_output(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const pointwise_job *j = b->job;
  const int64_t at = place(b, row, vector);
  store(j->y + at, load(j->residual + at) + load(j->gamma + channel_of(vector, j->channels)) * sum);
}

/* y = residual + gamma * ((sigmoid(x first) * z) second) */
static void gate(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels;
  const float *first = j->work, *second = first + c * spaced(c);
  multiply(tokens_of(b, j->x), b->count, c, first, spaced(c), c, take_gate, b);
  multiply(rows_of(b->room.narrow[0], spaced(c)), b->count, c, second, spaced(c), c, take_output, b);
}

INLINE void take_hidden(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const int64_t h = b->job->hidden;
  const vreal k = relu(sum);
  store(b->room.wide[0] + row * spaced(h) + channel_of(vector, h), k * k);
}

INLINE void take_receptance(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const pointwise_job *j = b->job;
  const vreal open = sigmoid(sum);
  store(b->room.narrow[0] + row * spaced(j->channels) + vector * LANES, open);
  if (j->sigmoid) store(j->sigmoid + place(b, row, vector), open);
}

INLINE void take_value(const void *context, int64_t row, int64_t vector, vreal sum) {
  const block *b = context;
  const pointwise_job *j = b->job;
  const int64_t at = place(b, row, vector), c = j->channels;
  const vreal mixed = load(b->room.narrow[0] + row * spaced(c) + vector * LANES) * sum;
  store(j->y + at, load(j->residual + at) + load(j->gamma + channel_of(vector, c)) * mixed);
  if (j->product) store(j->product + at, mixed);
}

/* y = residual + gamma * sigmoid(x second) * (relu(x first)^2 third) */
static void mix_channels(const block *b) {
  const pointwise_job *j = b->job;
  const int64_t c = j->channels, h = j->hidden;
  const float *first = j->work, *second = first + c * spaced(h), *third = second + c * spaced(c);
  const matrix x = tokens_of(b, j->x);
  multiply(x, b->count, c, first, spaced(h), h, take_hidden, b);
  multiply(x, b->count, c, second, spaced(c), c, take_receptance, b);
  multiply(rows_of(b->room.wide[0], spaced(h)), b->count, h, third, spaced(c), c, take_value, b);
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
