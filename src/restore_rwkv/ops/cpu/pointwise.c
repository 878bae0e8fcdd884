/* Matrix products of a block, fused with its element-wise operations, for tokens of few channels
 * (eq. 1-7 of arXiv 2407.11087). General libraries reach only half of the processor's speed on such
 * narrow matrices, and intermediate results go through memory; here TILE tokens at a time pass
 * through all operations in registers and the first cache. Wide products are left to the libraries.
 */
#include "schedule.h"
#include "vectors.h"

#ifndef DOUBLE

#define TILE (VECTOR == 64 ? 8 : 4) /* tokens; their accumulators, two vectors each, fit registers */
#define MAX_TILE 8
/* Above this, general libraries are as fast; with 16 registers of four numbers, always. */
#define MAX_HIDDEN (VECTOR == 64 ? 384 : VECTOR == 32 ? 128 : 0)
#define TOKENS_PER_TASK 512

typedef struct {
  int64_t tokens, channels, hidden; /* see pointwise_takes */
  int64_t threads;
  launcher launch;              /* NULL: this thread does all the work */
  const float *x, *z;           /* (tokens, channels) */
  const float *residual;        /* (tokens, channels) */
  const float *gamma;           /* (channels) */
  const float *first, *second, *third; /* weights, (inputs, outputs) */
  float *y, *y2;                /* (tokens, channels); distinct from all other arrays of the job */
  int64_t next;                 /* 0 */
} pointwise_job;

/* sums[i][n] = row i of a (TILE, depth) times `vectors` vectors of columns of w. */
INLINE void product(vreal sums[][2], const float *a, int64_t depth, const float *w, int64_t width,
                    int64_t vectors) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < TILE; i++)
    for (int64_t n = 0; n < vectors; n++) sums[i][n] = (vreal){0};
  for (int64_t k = 0; k < depth; k++) {
    const vreal left = load(w + k * width), right = load(w + k * width + (vectors - 1) * LANES);
#pragma GCC unroll 8
    for (int64_t i = 0; i < TILE; i++) {
      const float factor = a[i * depth + k];
      sums[i][0] += factor * left;
      if (vectors == 2) sums[i][1] += factor * right;
    }
  }
}

INLINE vreal squared_relu(vreal x) {
  for (int64_t c = 0; c < LANES; c++) x[c] = x[c] < 0 ? 0 : x[c]; /* NaN stays */
  return x * x;
}

INLINE vreal sigmoid(vreal x) {
  const vmask positive = x > 0;
  const vreal e = exp_lanes((vreal)((vmask)x | INT32_MIN)); /* of -|x| */
  const vreal factor = (vreal)((positive & (vmask)((vreal){0} + 1)) | (~positive & (vmask)e));
  const vmask missing = x != x; /* NaN stays */
  return (vreal)((vmask)(factor / (1 + e)) | missing);
}

/* y = x first, y2 = x second */
static void project(const pointwise_job *j, int64_t token) {
  const int64_t channels = j->channels;
  const float *x = j->x + token * channels;
  vreal sums[MAX_TILE][2];
  for (int64_t which = 0; which < 2; which++)
    for (int64_t n = 0; n < channels; n += LANES) {
      product(sums, x, channels, (which ? j->second : j->first) + n, channels, 1);
      float *y = (which ? j->y2 : j->y) + token * channels + n;
      for (int64_t i = 0; i < TILE; i++) store(y + i * channels, sums[i][0]);
    }
}

/* y = residual + gamma * ((sigmoid(x first) * z) second) */
static void gate(const pointwise_job *j, int64_t token) {
  const int64_t channels = j->channels;
  const float *x = j->x + token * channels, *z = j->z + token * channels;
  float gated[MAX_TILE * (MAX_HIDDEN + 1)];
  vreal sums[MAX_TILE][2];
  for (int64_t n = 0; n < channels; n += LANES) {
    product(sums, x, channels, j->first + n, channels, 1);
    for (int64_t i = 0; i < TILE; i++) {
      const int64_t at = i * channels + n;
      store(gated + at, sigmoid(sums[i][0]) * load(z + at));
    }
  }
  for (int64_t n = 0; n < channels; n += LANES) {
    product(sums, gated, channels, j->second + n, channels, 1);
    for (int64_t i = 0; i < TILE; i++) {
      const int64_t at = (token + i) * channels + n;
      store(j->y + at, load(j->residual + at) + load(j->gamma + n) * sums[i][0]);
    }
  }
}

/* y = residual + gamma * sigmoid(x second) * (relu(x first)^2 third) */
static void mix_channels(const pointwise_job *j, int64_t token) {
  const int64_t channels = j->channels, hidden = j->hidden;
  const float *x = j->x + token * channels;
  float k[MAX_TILE * (MAX_HIDDEN + 1)];
  vreal sums[MAX_TILE][2], gates[MAX_TILE][2];
  for (int64_t n = 0; n < hidden; n += 2 * LANES) {
    product(sums, x, channels, j->first + n, hidden, 2);
    for (int64_t i = 0; i < TILE; i++) {
      store(k + i * hidden + n, squared_relu(sums[i][0]));
      store(k + i * hidden + n + LANES, squared_relu(sums[i][1]));
    }
  }
  for (int64_t n = 0; n < channels; n += LANES) {
    product(gates, x, channels, j->second + n, channels, 1);
    product(sums, k, hidden, j->third + n, channels, 1);
    for (int64_t i = 0; i < TILE; i++) {
      const int64_t at = (token + i) * channels + n;
      const vreal mixed = load(j->gamma + n) * (sigmoid(gates[i][0]) * sums[i][0]);
      store(j->y + at, load(j->residual + at) + mixed);
    }
  }
}

INLINE void each_tile(pointwise_job *j, void (*act)(const pointwise_job *, int64_t token)) {
  const int64_t tasks = (j->tokens + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK, last = j->tokens - TILE;
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;) {
    const int64_t first = task * TOKENS_PER_TASK, end = first + TOKENS_PER_TASK;
    for (int64_t token = first; token < end && token < j->tokens; token += TILE)
      act(j, token < last ? token : last); /* the last tile may repeat tokens of the previous
                                              one, with the same result */
  }
}

static void project_all(void *data) { each_tile(data, project); }
static void gate_all(void *data) { each_tile(data, gate); }
static void mix_channels_all(void *data) { each_tile(data, mix_channels); }

/* Returns whether the kernels support tokens of this size. */
int64_t pointwise_takes(int64_t tokens, int64_t channels, int64_t hidden) {
  return tokens >= MAX_TILE && channels % LANES == 0 && hidden % (2 * LANES) == 0 &&
         channels <= MAX_HIDDEN && hidden <= MAX_HIDDEN;
}

/* Each returns when the work is done; the caller owns all buffers of the job. */
void pointwise_project(pointwise_job *j) { run_on(j->launch, j->threads, project_all, j); }
void pointwise_gate(pointwise_job *j) { run_on(j->launch, j->threads, gate_all, j); }
void pointwise_mix_channels(pointwise_job *j) {
  run_on(j->launch, j->threads, mix_channels_all, j);
}

#endif
