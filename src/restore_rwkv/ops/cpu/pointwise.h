/* Job of the token-wise products, its workspace, and its distribution over threads. */
#ifndef POINTWISE_H
#define POINTWISE_H

#include "products.h"
#include "schedule.h"

#define BLOCK 64 /* tokens that pass through all operations together, in the second cache */

typedef struct {
  int64_t tokens, channels, hidden; /* see pointwise_takes */
  int64_t threads, groups;          /* groups of blocks, each with sums of its own */
  launcher launch;                  /* NULL: this thread does all the work */
  const float *x, *z, *residual;    /* (tokens, channels) */
  const float *gamma;               /* (channels) */
  const float *first, *second, *third; /* weights, (outputs, inputs) */
  float *y, *y2;                    /* (tokens, channels); distinct from all other arrays */
  float *sigmoid, *product;         /* (tokens, channels): saved for the backward pass, or NULL */
  const float *gy, *gy2;            /* (tokens, channels); backward only, as the following */
  float *gx, *gz;                   /* (tokens, channels) */
  float *gfirst, *gsecond, *gthird; /* as the weights */
  float *ggamma;                    /* (channels) */
  float *work;                      /* pointwise_work floats: workspace */
  int64_t next, workers;            /* 0 */
} pointwise_job;

/* Workspace of a thread: rows of hidden channels, and of channels, for the tokens of a block. */
typedef struct {
  float *wide[2], *narrow[4];
} room;

/* Weights as the products of a job want them, at most these. */
INLINE int64_t weights_size(const pointwise_job *j) {
  const int64_t c = j->channels, h = j->hidden;
  return 2 * (c * spaced(h) + h * spaced(c) + c * spaced(c));
}

INLINE int64_t room_size(const pointwise_job *j) {
  return BLOCK * (2 * spaced(j->hidden) + 4 * spaced(j->channels));
}

INLINE int64_t sums_size(const pointwise_job *j) {
  const int64_t c = j->channels, h = j->hidden;
  return c * padded(h) + h * padded(c) + 2 * c * padded(c);
}

INLINE room room_of(pointwise_job *j) {
  const int64_t worker = __atomic_fetch_add(&j->workers, 1, __ATOMIC_RELAXED);
  float *at = j->work + weights_size(j) + worker * room_size(j);
  room r;
  for (int64_t i = 0; i < 2; i++, at += BLOCK * spaced(j->hidden)) r.wide[i] = at;
  for (int64_t i = 0; i < 4; i++, at += BLOCK * spaced(j->channels)) r.narrow[i] = at;
  return r;
}

INLINE float *sums_of(const pointwise_job *j, int64_t group) {
  return j->work + weights_size(j) + j->threads * room_size(j) + group * sums_size(j);
}

/* A block of tokens. */
typedef struct {
  const pointwise_job *job;
  int64_t token, count;
  room room;
  float *sums;
} block;

/* Acts on every block; the blocks of a group one after another, on one thread. */
INLINE void each_block(pointwise_job *j, void (*act)(const block *)) {
  const int64_t blocks = (j->tokens + BLOCK - 1) / BLOCK;
  block b = {.job = j, .room = room_of(j)};
  for (int64_t group; (group = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->groups;) {
    b.sums = sums_of(j, group);
    const int64_t end = (group + 1) * blocks / j->groups;
    for (int64_t i = group * blocks / j->groups; i < end; i++) {
      b.token = i * BLOCK;
      b.count = j->tokens - b.token < BLOCK ? j->tokens - b.token : BLOCK;
      act(&b);
    }
  }
}

INLINE matrix tokens_of(const block *b, const float *x) {
  return rows_of(x + b->token * b->job->channels, b->job->channels);
}

INLINE vreal sigmoid(vreal x) {
  const vmask positive = x > 0;
  const vreal e = exp_lanes((vreal)((vmask)x | INT32_MIN)); /* of -|x| */
  const vreal factor = (vreal)((positive & (vmask)((vreal){0} + 1)) | (~positive & (vmask)e));
  const vmask missing = x != x; /* NaN stays */
  return (vreal)((vmask)(factor / (1 + e)) | missing);
}

INLINE vreal relu(vreal x) {
  return (vreal)((vmask)x & ~(x < 0)); /* NaN stays */
}

#endif
