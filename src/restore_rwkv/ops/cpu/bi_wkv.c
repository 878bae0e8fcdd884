/* Bi-WKV attention on a CPU, forward and backward (eq. 8 of arXiv 2407.11087).
 *
 * Tokens are cut into chunks of `chunk` tokens and channels into blocks of LANES.
 *   1. summarise: per chunk, the sums of e^k and e^k v decayed to either edge;
 *   2. carry: a scan over chunks, in double, gives what enters each chunk from left and right;
 *   3. finish: per chunk, two recurrences from those states give the outputs.
 * Tasks of the steps 1 and 3 are independent, so a single long sequence uses every thread, and
 * the result does not depend on their number. Every sum has its own logarithmic scale (the
 * largest exponent in it), so nothing overflows, and what underflows is negligible.
 * The decay is rounded once per step only inside a chunk; across chunks it is exact.
 * All steps of a pass run in one parallel region: a thread that finds no task left in a step
 * waits until the others have done theirs.
 *
 * Compiled for float, and for double with -DDOUBLE; for float also with wider registers. Vectors are
 * as wide as a register, since compilers take comparisons of wider ones apart.
 * The library is loaded with ctypes: no Python, no torch, no OpenMP at link time. The caller may
 * hand in an OpenMP launcher (GOMP_parallel of torch's own runtime), so that no second pool of
 * threads competes with the first.
 */
#include <float.h>
#include <math.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif
#include <stdint.h>
#include <string.h>

#include "lanes.h"

#ifdef DOUBLE
#define REAL_MAX DBL_MAX
#define MAX_VALUE 0x1p976
#else
#define REAL_MAX FLT_MAX
#define MAX_VALUE 0x1p80f /* sums of larger values may overflow */
#endif

#define WIDE ((int64_t)(VECTOR / sizeof(double))) /* lanes that are worked on in double at a time */
#define MAX_CHUNK 64
#define MAX_SPAN 16.0 /* e^16 at most between the weights of one chunk: far from overflow */
#define GROUP 4       /* tiles per task */
#define SUMS 5        /* per chunk and block: scale, (a, b) decayed to the right edge, to the left */
#define STATES 7      /* per chunk and block: scale, (scale, a, b) entering from left, from right */

typedef struct {
  void *data;
  int64_t stride[4]; /* in elements: batch, row, column, channel */
} image;

/* Per-channel constants of a block: w/T, u/T, the decay of one step e^(-w/T), the bonus e^(u/T). */
typedef struct {
  double w[LANES], u[LANES];
  real decay[LANES], bonus[LANES];
} constants;

typedef struct {
  int64_t batch, rows, columns, channels; /* token t = row * columns + column */
  int64_t chunk;                          /* tokens per chunk, from bi_wkv_chunk_length */
  int64_t threads;
  launcher launch;      /* NULL: this thread does everything */
  const double *w, *u;  /* (channels), as trained */
  image k, v, y;        /* y: forward only; may be v */
  image gy, gk, gv;     /* backward only */
  constants *constants; /* (blocks): workspace */
  void *summary;        /* (batch, chunks, blocks, SUMS, LANES): workspace */
  void *state;          /* (batch, chunks, blocks, STATES, LANES): out of the forward pass, in of
                           the backward pass */
  void *gradient_state; /* as state; backward only: workspace */
  double *gw_terms, *gu_terms; /* (batch, chunks, blocks, LANES): workspace */
  double *gw, *gu;      /* (channels) */
  int64_t overflow;     /* out: 1 if sums of v may overflow, before y is written; in the backward
                           pass if gk, gw or gu is not finite */
} job;

INLINE int64_t tokens_of(const job *j) { return j->rows * j->columns; }
INLINE int64_t chunks_of(const job *j) { return (tokens_of(j) + j->chunk - 1) / j->chunk; }
INLINE int64_t blocks_of(const job *j) { return (j->channels + LANES - 1) / LANES; }

/* A step of a pass: independent tasks. */
typedef struct {
  void (*run)(job *, int64_t task);
  int64_t tasks, next, done;
} step;

typedef struct {
  job *job;
  step steps[6];
  int64_t count;
} pass;

INLINE void add_step(pass *p, void (*run)(job *, int64_t), int64_t tasks) {
  p->steps[p->count++] = (step){run, tasks, 0, 0};
}

/* Waits a moment; in a long wait the processor is left to others. */
INLINE void relax(int64_t waited) {
#if defined(__unix__) || defined(__APPLE__)
  if (waited % 1024 == 1023) sched_yield();
#endif
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* What each thread does. A task taken is a task being worked on, so the wait ends however many
 * threads there are. */
static void work(void *data) {
  pass *p = data;
  for (int64_t i = 0; i < p->count; i++) {
    step *s = &p->steps[i];
    if (__atomic_load_n(&p->job->overflow, __ATOMIC_RELAXED)) return;
    for (int64_t task; (task = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->tasks;) {
      s->run(p->job, task);
      __atomic_fetch_add(&s->done, 1, __ATOMIC_RELEASE);
    }
    for (int64_t i = 0; __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) < s->tasks; i++) relax(i);
  }
}

static void run(pass *p) { run_on(p->job->launch, p->job->threads, work, p); }

INLINE vreal maximum(vreal a, vreal b) {
  for (int64_t c = 0; c < LANES; c++) a[c] = a[c] > b[c] ? a[c] : b[c];
  return a;
}

INLINE vreal magnitude(vreal x) { return maximum(x, -x); }

typedef double vdouble __attribute__((vector_size(VECTOR)));
typedef int64_t vlong __attribute__((vector_size(VECTOR)));
typedef vdouble unaligned_double __attribute__((aligned(sizeof(double)), may_alias));
typedef real part __attribute__((vector_size(VECTOR * sizeof(real) / sizeof(double))));
typedef part unaligned_part __attribute__((aligned(sizeof(real)), may_alias));

INLINE vdouble load_wide(const double *p) { return *(const unaligned_double *)p; }
INLINE void store_wide(double *p, vdouble x) { *(unaligned_double *)p = x; }
INLINE part narrow(vdouble x) { return __builtin_convertvector(x, part); }
INLINE vdouble widen(part x) { return __builtin_convertvector(x, vdouble); }
INLINE part load_part(const real *p) { return *(const unaligned_part *)p; }
INLINE void store_part(real *p, part x) { *(unaligned_part *)p = x; }

/* Lane by lane, mask ? a : b (C has no ?: for vectors). */
INLINE vdouble choose(vlong mask, vdouble a, vdouble b) {
  return (vdouble)((mask & (vlong)a) | (~mask & (vlong)b));
}

INLINE vdouble at_most(vdouble x, double limit) {
  for (int64_t c = 0; c < WIDE; c++) x[c] = x[c] > limit ? limit : x[c];
  return x;
}

INLINE vdouble clamp(vdouble x, double limit) { return -at_most(-at_most(x, limit), limit); }

/* e^x = 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor series; 0 below e^-708. Adding
 * 1.5 * 2^52 + 1023 rounds to whole numbers and leaves the exponent field of 2^n in the low bits.
 * More than e^64 is met only where sums cancel it, and not at all in exact arithmetic: cut off. */
INLINE vdouble exp_wide(vdouble x) {
  const double round = 6755399441055744.0 + 1023;
  const vlong normal = x >= -708.0;
  x = at_most(x, 64);
  const vdouble shifted = x * 1.4426950408889634 + round, n = shifted - round;
  const vdouble r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  vdouble p = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0);
  p = p * r + (1.0 / 39916800.0);
  p = p * r + (1.0 / 3628800.0);
  p = p * r + (1.0 / 362880.0);
  p = p * r + (1.0 / 40320.0);
  p = p * r + (1.0 / 5040.0);
  p = p * r + (1.0 / 720.0);
  p = p * r + (1.0 / 120.0);
  p = p * r + (1.0 / 24.0);
  p = p * r + (1.0 / 6.0);
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return (vdouble)((vlong)(p * (vdouble)((vlong)shifted << 52)) & normal);
}

#ifdef DOUBLE /* else that of lanes.h */
INLINE vreal exp_lanes(vreal x) { return exp_wide(x); }
#endif

/* One block of channels of one chunk of tokens. */
typedef vreal tile[MAX_CHUNK];

/* Where work is done: batch b, tokens first .. first + count - 1, channels channel .. + lanes - 1. */
typedef struct {
  int64_t b, block, first, count, channel, lanes, index;
} place;

INLINE place place_of(const job *j, int64_t b, int64_t chunk, int64_t block) {
  const int64_t first = chunk * j->chunk, rest = tokens_of(j) - first;
  const int64_t channel = block * LANES, left = j->channels - channel;
  return (place){b, block, first, rest < j->chunk ? rest : j->chunk, channel,
                 left < LANES ? left : LANES, (b * chunks_of(j) + chunk) * blocks_of(j) + block};
}

/* The tiles of one task of the steps 1 and 3, side by side in memory: the blocks of a chunk and, where
 * tokens run down the columns of an image, the same chunk of columns beside it. Read or written
 * together they use whole stretches of memory, whichever way tokens run. */
typedef struct {
  int64_t count;
  place at[GROUP];
} group;

/* Columns beside each other per task (rows of `job`, which knows only the order of tokens). */
INLINE int64_t abreast(const job *j) {
  const int64_t *stride = j->k.stride, most = GROUP / blocks_of(j);
  if (stride[1] >= stride[2] || j->columns % j->chunk || most < 2) return 1;
  return most < j->rows ? most : j->rows;
}

INLINE int64_t lots_of(const job *j) {
  return abreast(j) == 1 ? chunks_of(j)
                         : (j->rows + abreast(j) - 1) / abreast(j) * (j->columns / j->chunk);
}

INLINE int64_t groups_of(const job *j) { return (blocks_of(j) + GROUP - 1) / GROUP; }
INLINE int64_t tasks_of(const job *j) { return j->batch * lots_of(j) * groups_of(j); }

INLINE group group_of(const job *j, int64_t task) {
  const int64_t groups = groups_of(j), wide = abreast(j);
  const int64_t lot = task / groups % lots_of(j), b = task / groups / lots_of(j);
  const int64_t first = task % groups * GROUP, rest = blocks_of(j) - first;
  const int64_t per_row = wide == 1 ? 1 : j->columns / j->chunk;
  group g = {0};
  for (int64_t i = 0; i < wide; i++) {
    const int64_t row = lot / per_row * wide + i, chunk = row * per_row + lot % per_row;
    if (chunk >= chunks_of(j)) break;
    for (int64_t block = first; block < first + (rest < GROUP ? rest : GROUP); block++)
      g.at[g.count++] = place_of(j, b, chunk, block);
  }
  return g;
}

/* Where the tokens of a tile lie: `at` walks along them. */
typedef struct {
  real *at;
  int64_t step, next_row, column, columns;
} walk;

INLINE walk walk_along(const image *image, const job *j, place p) {
  const int64_t *stride = image->stride, column = p.first % j->columns;
  real *at = (real *)image->data + p.b * stride[0] + p.channel * stride[3] +
             p.first / j->columns * stride[1] + column * stride[2];
  return (walk){at, stride[2], stride[1] - j->columns * stride[2], column, j->columns};
}

INLINE void next_token(walk *w) {
  w->at += w->step;
  if (++w->column == w->columns) w->column = 0, w->at += w->next_row;
}

/* Whether every tile of a group is of whole vectors; then their distances from the first. */
INLINE int is_packed(const image *image, const job *j, const group *g, int64_t *distance) {
  const real *first = walk_along(image, j, g->at[0]).at;
  for (int64_t i = 0; i < g->count; i++) {
    if (image->stride[3] != 1 || g->at[i].lanes < LANES) return 0;
    distance[i] = walk_along(image, j, g->at[i]).at - first;
  }
  return 1;
}

/* Channels beyond the last read as 0: harmless, and never stored. */
static void load_tiles(tile *tiles, const image *from, const job *j, const group *g) {
  int64_t distance[GROUP];
  if (is_packed(from, j, g, distance)) {
    walk w = walk_along(from, j, g->at[0]);
    for (int64_t t = 0; t < g->at[0].count; t++, next_token(&w))
      for (int64_t i = 0; i < g->count; i++) tiles[i][t] = load(w.at + distance[i]);
    return;
  }
  for (int64_t i = 0; i < g->count; i++) {
    walk w = walk_along(from, j, g->at[i]);
    for (int64_t t = 0; t < g->at[i].count; t++, next_token(&w)) {
      tiles[i][t] = (vreal){0};
      for (int64_t c = 0; c < g->at[i].lanes; c++) tiles[i][t][c] = w.at[c * from->stride[3]];
    }
  }
}

static void store_tiles(const image *to, tile *tiles, const job *j, const group *g) {
  int64_t distance[GROUP];
  if (is_packed(to, j, g, distance)) {
    walk w = walk_along(to, j, g->at[0]);
    for (int64_t t = 0; t < g->at[0].count; t++, next_token(&w))
      for (int64_t i = 0; i < g->count; i++) store(w.at + distance[i], tiles[i][t]);
    return;
  }
  for (int64_t i = 0; i < g->count; i++) {
    walk w = walk_along(to, j, g->at[i]);
    for (int64_t t = 0; t < g->at[i].count; t++, next_token(&w))
      for (int64_t c = 0; c < g->at[i].lanes; c++) w.at[c * to->stride[3]] = tiles[i][t][c];
  }
}

/* Fills the constants; the first thing that a pass does. */
static void prepare(job *j) {
  const double tokens = (double)tokens_of(j);
  j->overflow = 0;
  for (int64_t block = 0; block < blocks_of(j); block++) {
    constants *k = &j->constants[block];
    memset(k, 0, sizeof *k);
    for (int64_t c = 0; c < LANES && block * LANES + c < j->channels; c++) {
      k->w[c] = j->w[block * LANES + c] / tokens;
      k->u[c] = j->u[block * LANES + c] / tokens;
    }
    for (int64_t c = 0; c < LANES; c += WIDE) {
      store_part(k->decay + c, narrow(exp_wide(-load_wide(k->w + c))));
      store_part(k->bonus + c, narrow(exp_wide(load_wide(k->u + c))));
    }
  }
}

INLINE const constants *constants_of(const job *j, place p) { return &j->constants[p.block]; }

/* Notes that a lane of `mask` is set. */
INLINE void note_overflow(job *j, vmask mask) {
  uint64_t words[VECTOR / 8], any = 0;
  memcpy(words, &mask, sizeof words);
  for (int64_t i = 0; i < VECTOR / 8; i++) any |= words[i];
  if (any) __atomic_store_n(&j->overflow, 1, __ATOMIC_RELAXED);
}

/* Sums over a chunk, decayed to either edge. Towards the left edge, terms are weighed with powers of
 * the decay, so that one loop serves both. */
typedef struct {
  vreal right_a, right_b, left_a, left_b, power;
} edge_sums;

INLINE edge_sums no_sums(void) { return (edge_sums){.power = (vreal){} + 1}; }

INLINE void add_token(edge_sums *s, vreal a, vreal b, vreal decay) {
  s->right_a = s->right_a * decay + a;
  s->right_b = s->right_b * decay + b;
  s->left_a += a * s->power;
  s->left_b += b * s->power;
  s->power *= decay;
}

INLINE void store_sums(const job *j, place p, vreal scale, const edge_sums *s) {
  real *out = (real *)j->summary + p.index * SUMS * LANES;
  store(out, scale);
  store(out + LANES, s->right_a);
  store(out + 2 * LANES, s->right_b);
  store(out + 3 * LANES, s->left_a);
  store(out + 4 * LANES, s->left_b);
}

/* Step 1 of the forward pass for one block. */
static void summarise_block(job *j, place p, const tile k, const tile v) {
  const vreal decay = load(constants_of(j, p)->decay);
  vreal scale = k[0], largest = magnitude(v[0]);
  for (int64_t t = 1; t < p.count; t++) {
    scale = maximum(scale, k[t]);
    largest = maximum(largest, magnitude(v[t]));
  }
  edge_sums sums = no_sums();
  for (int64_t t = 0; t < p.count; t++) {
    const vreal e = exp_lanes(k[t] - scale);
    add_token(&sums, e, e * v[t], decay);
  }
  store_sums(j, p, scale, &sums);
  note_overflow(j, largest > MAX_VALUE);
}

static void summarise(job *j, int64_t task) {
  const group g = group_of(j, task);
  tile k[GROUP], v[GROUP];
  load_tiles(k, &j->k, j, &g);
  load_tiles(v, &j->v, j, &g);
  for (int64_t i = 0; i < g.count; i++) summarise_block(j, g.at[i], k[i], v[i]);
}

/* What is lost where an exponent is rounded to a scale of type `real`; beyond 10^8, where that can
 * be more than e^8, it is cut off. */
INLINE vdouble rounded_away(vdouble exponent, part scale) {
  return exp_wide(clamp(exponent - widen(scale), 8));
}

/* Step 2 for some lanes of a block: what enters each chunk, from the left (direction 1) or from the
 * right (-1). */
INLINE void carry(const job *j, real *state, int64_t b, int64_t block, int64_t lane,
                  int64_t direction) {
  const int64_t chunks = chunks_of(j), sums = direction > 0 ? 1 : 3;
  const vdouble w = load_wide(j->constants[block].w + lane), one = (vdouble){} + 1;
  vdouble exponent = (vdouble){} - INFINITY; /* nothing yet */
  vdouble sum_a = {}, sum_b = {};
  for (int64_t i = 0; i < chunks; i++) {
    const place p = place_of(j, b, direction > 0 ? i : chunks - 1 - i, block);
    const real *in = (const real *)j->summary + p.index * SUMS * LANES + lane;
    real *out = state + (p.index * STATES + (direction > 0 ? 1 : 4)) * LANES + lane;
    const part scale = narrow(exponent);
    const vdouble rest = rounded_away(exponent, scale);
    if (direction > 0) store_part(out - LANES, load_part(in));
    store_part(out, scale);
    store_part(out + LANES, narrow(sum_a * rest));
    store_part(out + 2 * LANES, narrow(sum_b * rest));

    const vdouble local = widen(load_part(in));
    const vdouble old = at_most(exponent - w * (double)p.count, REAL_MAX);
    const vlong older = old > local;
    exponent = choose(older, old, local);
    const vdouble less = exp_wide(choose(older, local, old) - exponent);
    const vdouble keep = choose(older, one, less), add = choose(older, less, one);
    sum_a = sum_a * keep + widen(load_part(in + sums * LANES)) * add;
    sum_b = sum_b * keep + widen(load_part(in + (sums + 1) * LANES)) * add;
  }
}

INLINE void carry_into(job *j, real *state, int64_t task) {
  const int64_t blocks = blocks_of(j), b = task / 2 / blocks, block = task / 2 % blocks;
  for (int64_t lane = 0; lane < LANES; lane += WIDE)
    if (task % 2)
      carry(j, state, b, block, lane, 1);
    else
      carry(j, state, b, block, lane, -1);
}

static void carry_sums(job *j, int64_t task) { carry_into(j, j->state, task); }
static void carry_gradients(job *j, int64_t task) { carry_into(j, j->gradient_state, task); }

/* The largest exponent of what a chunk weighs with its own bonus, and the factor on it. Where a chunk
 * is one token, the bonus is of any size and joins the exponent. */
typedef struct {
  vreal scale, factor;
} own_weight;

INLINE own_weight own_weight_of(const job *j, const constants *k, vreal local) {
  own_weight own = {local, load(k->bonus)};
  if (j->chunk > 1) return own;
  for (int64_t c = 0; c < LANES; c += WIDE) {
    real *scale = (real *)&own.scale + c;
    const vdouble exponent = clamp(widen(load_part(scale)) + load_wide(k->u + c), REAL_MAX);
    store_part(scale, narrow(exponent));
    store_part((real *)&own.factor + c, narrow(rounded_away(exponent, narrow(exponent))));
  }
  return own;
}

/* The outputs of a chunk up to what enters from the left. Numerators (sum) and denominators (total)
 * share one scale, the largest of what enters and of the chunk's own: what underflows there is
 * negligible in both. */
typedef struct {
  vreal scale, a, b; /* a, b: entering from the left */
  tile total, sum;
} outputs;

/* Puts e^(k - scale) where k was; the weight of a lone token, which enters no sum, is 1 there. */
INLINE void begin_outputs(outputs *o, const job *j, place p, tile k_then_e, const tile v) {
  const constants *k = constants_of(j, p);
  const vreal decay = load(k->decay);
  const real *state = (const real *)j->state + p.index * STATES * LANES;
  const vreal local = load(state), left = load(state + LANES), right = load(state + 4 * LANES);
  const own_weight own = own_weight_of(j, k, local);
  o->scale = maximum(own.scale, maximum(left, right));
  const vreal shift = j->chunk > 1 ? o->scale : local;
  const vreal bonus = j->chunk > 1 ? own.factor : own.factor * exp_lanes(own.scale - o->scale);
  vreal enter = exp_lanes(right - o->scale);
  vreal a = load(state + 5 * LANES) * enter, b = load(state + 6 * LANES) * enter;
  for (int64_t t = p.count - 1; t >= 0; t--) {
    const vreal e = exp_lanes(k_then_e[t] - shift), ev = e * v[t];
    k_then_e[t] = e;
    o->total[t] = bonus * e + a;
    o->sum[t] = bonus * ev + b;
    a = a * decay + e;
    b = b * decay + ev;
  }
  enter = exp_lanes(left - o->scale);
  o->a = load(state + 2 * LANES) * enter;
  o->b = load(state + 3 * LANES) * enter;
}

/* Adds what enters one token from the left, and moves on past it. */
INLINE void finish_output(outputs *o, int64_t t, vreal e, vreal v, vreal decay) {
  o->total[t] += o->a;
  o->sum[t] += o->b;
  o->a = o->a * decay + e;
  o->b = o->b * decay + e * v;
}

/* Step 3 of the forward pass for one block. */
static void finish_block(const job *j, place p, tile k_then_y, const tile v) {
  const vreal decay = load(constants_of(j, p)->decay);
  outputs o;
  begin_outputs(&o, j, p, k_then_y, v);
  for (int64_t t = 0; t < p.count; t++) {
    finish_output(&o, t, k_then_y[t], v[t], decay);
    k_then_y[t] = o.sum[t] / o.total[t];
  }
}

static void finish(job *j, int64_t task) {
  const group g = group_of(j, task);
  tile k[GROUP], v[GROUP];
  load_tiles(k, &j->k, j, &g);
  load_tiles(v, &j->v, j, &g);
  for (int64_t i = 0; i < g.count; i++) finish_block(j, g.at[i], k[i], v[i]);
  store_tiles(&j->y, k, j, &g);
}

/* Step 1 of the backward pass for one block: gradients of the numerators (a) and denominators (b) of
 * the outputs, on -scale, and their sums. They go where gy and k were. */
static void summarise_gradients_block(const job *j, place p, tile k_then_b, const tile v,
                                      tile gy_then_a) {
  const vreal decay = load(constants_of(j, p)->decay);
  outputs o;
  begin_outputs(&o, j, p, k_then_b, v);
  edge_sums sums = no_sums();
  for (int64_t t = 0; t < p.count; t++) {
    finish_output(&o, t, k_then_b[t], v[t], decay);
    const vreal inverse = 1 / o.total[t], a = gy_then_a[t] * inverse;
    const vreal b = -a * (o.sum[t] * inverse);
    gy_then_a[t] = a;
    k_then_b[t] = b;
    add_token(&sums, a, b, decay);
  }
  store_sums(j, p, -o.scale, &sums);
}

/* The gradients of numerators and denominators wait in the memory of gv and gk. */
static void summarise_gradients(job *j, int64_t task) {
  const group g = group_of(j, task);
  tile k[GROUP], v[GROUP], gy[GROUP];
  load_tiles(k, &j->k, j, &g);
  load_tiles(v, &j->v, j, &g);
  load_tiles(gy, &j->gy, j, &g);
  for (int64_t i = 0; i < g.count; i++)
    summarise_gradients_block(j, g.at[i], k[i], v[i], gy[i]);
  store_tiles(&j->gv, gy, j, &g);
  store_tiles(&j->gk, k, j, &g);
}

/* What step 3 of the backward pass needs of the attention of a chunk. Here every sum keeps a scale of its own
 * beside that of the outputs: a key that is negligible in one output can matter in another. */
typedef struct {
  vreal local, left_scale, right_scale, scale; /* of e; of the sums; of the outputs */
  vreal add_left, add_right;                   /* from e to the sums */
  vreal own;                                   /* from e to the outputs: weight of a token itself */
  vreal a, b;                                  /* sums entering from the left */
  tile right_a, right_b;                       /* sums of what is right of each token */
} attention;

INLINE void set_scales(attention *x, const job *j, const constants *k, const real *state) {
  const int lone = j->chunk == 1; /* then no sum of the chunk contains its token */
  const vreal left = load(state + LANES), right = load(state + 4 * LANES), none = {};
  x->local = load(state);
  x->left_scale = lone ? left : maximum(left, x->local);
  x->right_scale = lone ? right : maximum(right, x->local);
  const own_weight own = own_weight_of(j, k, x->local);
  x->scale = maximum(own.scale, maximum(x->left_scale, x->right_scale));
  x->own = own.factor * exp_lanes(own.scale - x->scale);
  x->add_left = lone ? none : exp_lanes(x->local - x->left_scale);
  x->add_right = lone ? none : exp_lanes(x->local - x->right_scale);
}

/* Puts e^(k - local) where k was. */
INLINE void attend(attention *x, const job *j, place p, tile k_then_e, const tile v) {
  const constants *k = constants_of(j, p);
  const vreal decay = load(k->decay);
  const real *state = (const real *)j->state + p.index * STATES * LANES;
  set_scales(x, j, k, state);
  vreal enter = exp_lanes(load(state + 4 * LANES) - x->right_scale);
  vreal a = load(state + 5 * LANES) * enter, b = load(state + 6 * LANES) * enter;
  for (int64_t t = p.count - 1; t >= 0; t--) {
    k_then_e[t] = exp_lanes(k_then_e[t] - x->local);
    x->right_a[t] = a;
    x->right_b[t] = b;
    const vreal e = k_then_e[t] * x->add_right;
    a = a * decay + e;
    b = b * decay + e * v[t];
  }
  enter = exp_lanes(load(state + LANES) - x->left_scale);
  x->a = load(state + 2 * LANES) * enter;
  x->b = load(state + 3 * LANES) * enter;
}

/* Moves what enters from the left past a token. */
INLINE void pass_token(attention *x, vreal e, vreal v, vreal decay) {
  e *= x->add_left;
  x->a = x->a * decay + e;
  x->b = x->b * decay + e * v;
}

/* e^exponent for an exponent that is the sum of the scales of keys and of output gradients. No
 * output weighs a key by more than 1, so it is not above 3 * 8 in a chunk of one token (see
 * rounded_away; 32 more in others), unless it is above 10^8 and so wrong by more. */
INLINE vdouble pair_weight(const job *j, const vreal *a, const vreal *b, int64_t lane, vdouble decay) {
  const vdouble exponent =
      widen(load_part((const real *)a + lane)) + widen(load_part((const real *)b + lane)) - decay;
  return exp_wide(at_most(exponent, j->chunk == 1 ? 24 : 64));
}

INLINE vreal pair_weights(const job *j, vreal a, vreal b) {
  vreal weights;
  for (int64_t c = 0; c < LANES; c += WIDE)
    store_part((real *)&weights + c, narrow(pair_weight(j, &a, &b, c, (vdouble){})));
  return weights;
}

/* What enters a chunk from one side of the output gradients. */
typedef struct {
  vreal scale, add, a, b; /* add: from the gradients of the chunk to this scale */
} gradient_sum;

INLINE gradient_sum enter_gradients(const job *j, const real *state, vreal scale) {
  const vreal entering = load(state);
  const vreal own = j->chunk == 1 ? entering : maximum(entering, scale);
  const vreal enter = exp_lanes(entering - own);
  const vreal add = j->chunk == 1 ? (vreal){} : exp_lanes(scale - own);
  return (gradient_sum){own, add, load(state + LANES) * enter, load(state + 2 * LANES) * enter};
}

INLINE void pass_gradient(gradient_sum *s, vreal a, vreal b, vreal decay) {
  s->a = s->a * decay + a * s->add;
  s->b = s->b * decay + b * s->add;
}

/* Gradients of w/T and u/T from one block; notes whether they are finite. */
INLINE void store_terms(job *j, place p, const attention *x, const gradient_sum *early,
                        const gradient_sum *late, vreal early_gw, vreal late_gw, vreal gu) {
  double *gw_terms = j->gw_terms + p.index * LANES, *gu_terms = j->gu_terms + p.index * LANES;
  vreal narrow_gw;
  for (int64_t c = 0; c < LANES; c += WIDE) {
    const vdouble w = load_wide(constants_of(j, p)->w + c);
    const vdouble gw = widen(load_part((const real *)&early_gw + c)) *
                           pair_weight(j, &x->right_scale, &early->scale, c, w) +
                       widen(load_part((const real *)&late_gw + c)) *
                           pair_weight(j, &x->left_scale, &late->scale, c, w);
    store_wide(gw_terms + c, gw);
    store_wide(gu_terms + c, widen(load_part((const real *)&gu + c)));
    store_part((real *)&narrow_gw + c, narrow(gw));
  }
  note_overflow(j, ((narrow_gw + gu) * 0 != 0));
}

/* Step 3 of the backward pass for one block; gv and gk go where a and k were. */
static void finish_gradients_block(job *j, place p, tile k_then_gk, const tile v, tile a_then_gv,
                                   const tile b) {
  const vreal decay = load(constants_of(j, p)->decay);
  const real *state = (const real *)j->gradient_state + p.index * STATES * LANES;
  attention x;
  attend(&x, j, p, k_then_gk, v);
  gradient_sum early = enter_gradients(j, state + LANES, -x.scale);
  gradient_sum late = enter_gradients(j, state + 4 * LANES, -x.scale);
  tile late_a, late_b;
  for (int64_t t = p.count - 1; t >= 0; t--) {
    late_a[t] = late.a;
    late_b[t] = late.b;
    pass_gradient(&late, a_then_gv[t], b[t], decay);
  }
  const vreal to_early = pair_weights(j, x.local, early.scale);
  const vreal to_late = pair_weights(j, x.local, late.scale);
  vreal early_gw = {}, late_gw = {}, gu = {};
  vmask overflow = {};
  for (int64_t t = 0; t < p.count; t++) {
    const vreal e = k_then_gk[t], a = a_then_gv[t], own = e * x.own;
    early_gw += early.a * x.right_b[t] + early.b * x.right_a[t];
    late_gw += late_a[t] * x.b + late_b[t] * x.a;
    gu += own * (a * v[t] + b[t]);
    const vreal to_left = e * to_early, to_right = e * to_late;
    const vreal gv = to_left * early.a + (to_right * late_a[t] + own * a);
    const vreal gk = v[t] * gv + (to_left * early.b + (to_right * late_b[t] + own * b[t]));
    a_then_gv[t] = gv;
    k_then_gk[t] = gk;
    overflow |= gk * 0 != 0;
    pass_token(&x, e, v[t], decay);
    pass_gradient(&early, a, b[t], decay);
  }
  note_overflow(j, overflow);
  store_terms(j, p, &x, &early, &late, early_gw, late_gw, gu);
}

static void finish_gradients(job *j, int64_t task) {
  const group g = group_of(j, task);
  tile k[GROUP], v[GROUP], a[GROUP], b[GROUP];
  load_tiles(k, &j->k, j, &g);
  load_tiles(v, &j->v, j, &g);
  load_tiles(a, &j->gv, j, &g);
  load_tiles(b, &j->gk, j, &g);
  for (int64_t i = 0; i < g.count; i++)
    finish_gradients_block(j, g.at[i], k[i], v[i], a[i], b[i]);
  store_tiles(&j->gk, k, j, &g);
  store_tiles(&j->gv, a, j, &g);
}

/* Last step of the backward pass: adds up the terms of one block, always in the same order. */
static void add_up(job *j, int64_t block) {
  const int64_t pieces = j->batch * chunks_of(j), blocks = blocks_of(j);
  double gw[LANES] = {0}, gu[LANES] = {0};
  for (int64_t piece = 0; piece < pieces; piece++) {
    const int64_t at = (piece * blocks + block) * LANES;
    for (int64_t c = 0; c < LANES; c++) {
      gw[c] += j->gw_terms[at + c];
      gu[c] += j->gu_terms[at + c];
    }
  }
  const double tokens = (double)tokens_of(j);
  for (int64_t c = 0; c < LANES && block * LANES + c < j->channels; c++) {
    j->gw[block * LANES + c] = gw[c] / -tokens;
    j->gu[block * LANES + c] = gu[c] / tokens;
  }
}

/* Channels per block, which the sizes of all buffers follow. */
int64_t bi_wkv_lanes(void) { return LANES; }

/* Tokens per chunk so that decay and bonus, divided by T, stay in range inside a chunk. */
int64_t bi_wkv_chunk_length(const double *w, const double *u, int64_t channels, int64_t tokens) {
  double steepest = 0, largest = 0;
  for (int64_t c = 0; c < channels; c++) {
    steepest = fabs(w[c]) > steepest ? fabs(w[c]) : steepest;
    largest = fabs(u[c]) > largest ? fabs(u[c]) : largest;
  }
  if (largest / (double)tokens > MAX_SPAN) return 1;
  int64_t chunk = MAX_CHUNK;
  while (chunk > 1 && (double)chunk * steepest / (double)tokens > MAX_SPAN) chunk /= 2;
  return chunk;
}

static void add_sums(pass *p, const job *j) {
  add_step(p, summarise, tasks_of(j));
  add_step(p, carry_sums, j->batch * blocks_of(j) * 2);
}

/* Both return once the work is done; the caller owns every buffer of the job. */
void bi_wkv_forward(job *j) {
  pass p = {.job = j};
  prepare(j);
  add_sums(&p, j);
  add_step(&p, finish, tasks_of(j));
  run(&p);
}

/* With `recompute` the state of the forward pass is made anew. */
void bi_wkv_backward(job *j, int64_t recompute) {
  pass p = {.job = j};
  prepare(j);
  if (recompute) add_sums(&p, j);
  add_step(&p, summarise_gradients, tasks_of(j));
  add_step(&p, carry_gradients, j->batch * blocks_of(j) * 2);
  add_step(&p, finish_gradients, tasks_of(j));
  add_step(&p, add_up, blocks_of(j));
  run(&p);
}
