/* Bi-WKV attention on a CPU, forward and backward (eq. 8 of arXiv 2407.11087).
 *
 * Tokens are cut into chunks of `chunk` tokens and channels into blocks of LANES.
 *   1. summarise: per chunk, the sums of e^k and e^k v decayed to either edge;
 *   2. carry: a scan over chunks, in double, gives what enters each chunk from left and right;
 *   3. finish: per chunk, two recurrences from those states give the outputs.
 * Chunks of the steps 1 and 3 are independent, so a single long sequence uses every thread, and
 * the result does not depend on their number. Every sum has its own logarithmic scale (the
 * largest exponent in it), so nothing overflows, and what underflows is negligible.
 * The decay is rounded once per step only inside a chunk; across chunks it is exact.
 *
 * Compiled for float, and for double with -DDOUBLE; for float also with wider registers: vectors of
 * LANES are cut to the registers of the target before any target_clones would see them.
 * The library is loaded with ctypes: no Python, no torch, no OpenMP at link time. The caller may
 * hand in an OpenMP launcher (GOMP_parallel of torch's own runtime), so that no second pool of
 * threads competes with the first.
 */
#include <float.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define MAX_CHUNK 64
#define STATES 7 /* per chunk and block: scale, then (scale, a, b) entering from left, right */

#define INLINE static inline __attribute__((always_inline))

typedef void (*launcher)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

typedef struct {
  void *data;
  int64_t stride[4]; /* in elements: batch, row, column, channel */
} image;

typedef struct {
  int64_t batch, rows, columns, channels; /* token t = row * columns + column */
  int64_t chunk;                          /* tokens per chunk, 1 .. MAX_CHUNK */
  int64_t threads;
  launcher launch;                        /* NULL: this thread does everything */
  const double *w, *u;                    /* (channels), already divided by T */
  image k, v, y;                          /* y: forward only */
  image gy, gk, gv;                       /* backward only */
  void *summary;                          /* (batch, chunks, blocks, 5, LANES): workspace */
  void *state;                            /* (batch, chunks, blocks, STATES, LANES): workspace */
  void *gradient_state;                   /* as state; backward only: workspace */
  double *gw, *gu;                        /* (batch, chunks, blocks, LANES): terms of the sums */
  int64_t next;                           /* next task; set to 0 by run() */
  int64_t overflow;                       /* out: 1 if y, or in the backward pass gk or gw, is not
                                             finite: then sums of values overflowed */
} job;

INLINE int64_t tokens_of(const job *j) { return j->rows * j->columns; }
INLINE int64_t chunks_of(const job *j) { return (tokens_of(j) + j->chunk - 1) / j->chunk; }
INLINE int64_t blocks_of(const job *j) { return (j->channels + LANES - 1) / LANES; }

static void run(job *j, void (*body)(void *), int64_t tasks) {
  j->next = 0;
  int64_t threads = j->threads < tasks ? j->threads : tasks;
  if (j->launch && threads > 1)
    j->launch(body, j, (unsigned)threads, 0);
  else
    body(j);
}

typedef double vdouble __attribute__((vector_size(8 * LANES)));
typedef int64_t vint64 __attribute__((vector_size(8 * LANES)));
typedef float vfloat __attribute__((vector_size(4 * LANES)));
typedef int32_t vint32 __attribute__((vector_size(4 * LANES)));

/* Lane by lane, mask ? a : b (C has no ?: for vectors). */
INLINE vfloat select_f32(vint32 mask, vfloat a, vfloat b) {
  return (vfloat)((mask & (vint32)a) | (~mask & (vint32)b));
}

INLINE vdouble select_f64(vint64 mask, vdouble a, vdouble b) {
  return (vdouble)((mask & (vint64)a) | (~mask & (vint64)b));
}

INLINE vdouble at_most(vdouble x, double limit) {
  const vdouble most = (vdouble){} + limit;
  return select_f64(x > most, most, x);
}

INLINE vdouble clamp(vdouble x, double limit) { return -at_most(-at_most(x, limit), limit); }

/* e^x = 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor series; 0 below e^-87. More
 * than e^64 is met only where sums cancel it, and not at all in exact arithmetic: cut off there. */
INLINE vfloat exp_f32(vfloat x) {
  const vint32 normal = x >= -87.0f;
  x = select_f32(normal & (x < 64.0f), x, (vfloat)(normal & (vint32)((vfloat){} + 64.0f)));
  const vfloat n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  const vfloat r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vfloat p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const vint32 bits = (__builtin_convertvector(n, vint32) + 127) << 23;
  return (vfloat)((vint32)(p * (vfloat)bits) & normal);
}

INLINE vdouble exp_f64(vdouble x) {
  const vint64 normal = x >= -708.0;
  x = select_f64(normal & (x < 64.0), x, (vdouble)(normal & (vint64)((vdouble){} + 64.0)));
  const vdouble n = (x * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0;
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
  const vint64 bits = (__builtin_convertvector(n, vint64) + 1023) << 52;
  return (vdouble)((vint64)(p * (vdouble)bits) & normal);
}

#ifdef DOUBLE
typedef double real;
typedef vdouble vreal;
#define REAL_MAX DBL_MAX
#define exp_real exp_f64
#define select_real select_f64
#else
typedef float real;
typedef vfloat vreal;
#define REAL_MAX FLT_MAX
#define exp_real exp_f32
#define select_real select_f32
#endif

/* One block of channels of one chunk of tokens. */
typedef vreal tile[MAX_CHUNK];

/* Where a task works: batch b, tokens first .. first + count - 1, channels channel .. + lanes - 1. */
typedef struct {
  int64_t b, chunk, block, first, count, channel, lanes, index;
} place;

INLINE vreal load(const real *p) {
  vreal x;
  memcpy(&x, p, sizeof x);
  return x;
}

INLINE vreal maximum(vreal a, vreal b) { return select_real(a > b, a, b); }

INLINE place next_place(const job *j, int64_t b, int64_t chunk, int64_t block) {
  const int64_t first = chunk * j->chunk, rest = tokens_of(j) - first;
  const int64_t channel = block * LANES, left = j->channels - channel;
  return (place){b, chunk, block, first, rest < j->chunk ? rest : j->chunk, channel,
                 left < LANES ? left : LANES, (b * chunks_of(j) + chunk) * blocks_of(j) + block};
}

/* Channels beyond the last read as 0: harmless, and never stored. */
INLINE void load_tile(tile tile, const image *from, const job *j, place p) {
  const int64_t *stride = from->stride;
  const real *base = (const real *)from->data + p.b * stride[0] + p.channel * stride[3];
  int64_t row = p.first / j->columns, column = p.first % j->columns;
  for (int64_t t = 0; t < p.count; t++) {
    const real *source = base + row * stride[1] + column * stride[2];
    if (stride[3] == 1 && p.lanes == LANES) {
      tile[t] = load(source);
    } else {
      real lane[LANES] = {0};
      for (int64_t c = 0; c < p.lanes; c++) lane[c] = source[c * stride[3]];
      tile[t] = load(lane);
    }
    if (++column == j->columns) column = 0, row++;
  }
}

INLINE void store_tile(const image *to, const tile tile, const job *j, place p) {
  const int64_t *stride = to->stride;
  real *base = (real *)to->data + p.b * stride[0] + p.channel * stride[3];
  int64_t row = p.first / j->columns, column = p.first % j->columns;
  for (int64_t t = 0; t < p.count; t++) {
    real *target = base + row * stride[1] + column * stride[2];
    if (stride[3] == 1 && p.lanes == LANES) {
      memcpy(target, &tile[t], sizeof tile[t]);
    } else {
      real lane[LANES];
      memcpy(lane, &tile[t], sizeof lane);
      for (int64_t c = 0; c < p.lanes; c++) target[c * stride[3]] = lane[c];
    }
    if (++column == j->columns) column = 0, row++;
  }
}

/* Per-channel constants of a block: w/T, the decay of one step e^(-w/T), u/T, the bonus e^(u/T). */
typedef struct {
  vdouble w, u;
  vreal decay, bonus;
} constants;

INLINE constants constants_of(const job *j, place p) {
  double w[LANES] = {0}, u[LANES] = {0};
  memcpy(w, j->w + p.channel, p.lanes * sizeof *w);
  memcpy(u, j->u + p.channel, p.lanes * sizeof *u);
  constants k;
  vdouble vw, vu;
  memcpy(&vw, w, sizeof vw);
  memcpy(&vu, u, sizeof vu);
  k.w = vw;
  k.u = vu;
  k.decay = __builtin_convertvector(exp_f64(-vw), vreal);
  k.bonus = __builtin_convertvector(exp_f64(vu), vreal);
  return k;
}

/* Sums of a and b over a chunk, decayed to the token after it and to the token before it. */
INLINE void local_sums(real *summary, vreal scale, const tile a, const tile b,
                       int64_t count, vreal decay) {
  vreal out[5] = {scale};
  for (int64_t t = 0; t < count; t++) {
    out[1] = out[1] * decay + a[t];
    out[2] = out[2] * decay + b[t];
  }
  for (int64_t t = count - 1; t >= 0; t--) {
    out[3] = out[3] * decay + a[t];
    out[4] = out[4] * decay + b[t];
  }
  memcpy(summary, out, sizeof out);
}

/* Step 1 of the forward pass. */
static void summarise(void *data) {
  job *j = data;
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j), tasks = j->batch * chunks;
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;)
    for (int64_t block = 0; block < blocks; block++) {
      const place p = next_place(j, task / chunks, task % chunks, block);
      const constants c = constants_of(j, p);
      tile e, ev;
      load_tile(e, &j->k, j, p);
      load_tile(ev, &j->v, j, p);
      vreal scale = e[0];
      for (int64_t t = 1; t < p.count; t++) scale = maximum(scale, e[t]);
      for (int64_t t = 0; t < p.count; t++) {
        e[t] = exp_real(e[t] - scale);
        ev[t] *= e[t];
      }
      local_sums((real *)j->summary + p.index * 5 * LANES, scale, e, ev, p.count, c.decay);
    }
}

/* What is lost where an exponent is rounded to a scale of type `real`; beyond 10^8, where that can
 * be more than e^8, it is cut off. */
INLINE vdouble rounded_away(vdouble exponent, vreal scale) {
  return exp_f64(clamp(exponent - __builtin_convertvector(scale, vdouble), 8));
}

/* Stores the sums a * e^exponent and b * e^exponent as scale, a, b. */
INLINE void store_sums(real *out, vdouble exponent, vdouble a, vdouble b) {
  const vreal scale = __builtin_convertvector(exponent, vreal);
  const vdouble rest = rounded_away(exponent, scale);
  const vreal narrow_a = __builtin_convertvector(a * rest, vreal);
  const vreal narrow_b = __builtin_convertvector(b * rest, vreal);
  memcpy(out, &scale, sizeof scale);
  memcpy(out + LANES, &narrow_a, sizeof scale);
  memcpy(out + 2 * LANES, &narrow_b, sizeof scale);
}

/* Step 2: what enters each chunk, from the left (direction 1) or from the right (-1). */
INLINE void carry(const job *j, real *state, int64_t task, int64_t direction) {
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j);
  vdouble exponent = (vdouble){} - __builtin_inf(); /* nothing yet */
  vdouble a = {}, b = {};
  for (int64_t i = 0; i < chunks; i++) {
    const int64_t chunk = direction > 0 ? i : chunks - 1 - i;
    const place p = next_place(j, task / blocks, chunk, task % blocks);
    const real *in = (const real *)j->summary + p.index * 5 * LANES;
    real *out = state + (p.index * STATES + (direction > 0 ? 1 : 4)) * LANES;
    if (direction > 0) memcpy(out - LANES, in, LANES * sizeof *in);
    store_sums(out, exponent, a, b);

    const int64_t sums = direction > 0 ? 1 : 3;
    const vdouble local = __builtin_convertvector(load(in), vdouble);
    const vdouble decay = constants_of(j, p).w * (double)p.count;
    const vdouble old = at_most(exponent - decay, REAL_MAX);
    exponent = select_f64(old > local, old, local);
    const vdouble keep = exp_f64(old - exponent), add = exp_f64(local - exponent);
    a = a * keep + __builtin_convertvector(load(in + sums * LANES), vdouble) * add;
    b = b * keep + __builtin_convertvector(load(in + (sums + 1) * LANES), vdouble) * add;
  }
}

static void carry_both(job *j, real *state) {
  const int64_t tasks = j->batch * blocks_of(j);
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;) {
    carry(j, state, task, 1);
    carry(j, state, task, -1);
  }
}

static void carry_states(void *data) { carry_both(data, ((job *)data)->state); }
static void carry_gradients(void *data) { carry_both(data, ((job *)data)->gradient_state); }

/* Attention of one chunk: outputs y; for the backward pass also the sums over the tokens before
 * (left) and after (right), each on its own scale, and the totals that y was divided by. */
typedef struct {
  vreal scale, local, left_scale, right_scale; /* of total and own; of e; of the sums */
  vreal own;                                   /* weight of a token itself: own * e */
  tile e, v, right_a, right_b, y;
  tile left_a, left_b, total; /* only where `backward` */
} attention;

/* Scales of a chunk. Where it is one token, no sum contains that token, whose own weight is on yet
 * another scale: there the bonus joins the exponent. */
INLINE void set_scales(attention *x, const job *j, constants c, const real *state) {
  const vreal left = load(state + LANES), right = load(state + 4 * LANES);
  const int lone = j->chunk == 1;
  x->local = load(state);
  x->left_scale = lone ? left : maximum(left, x->local);
  x->right_scale = lone ? right : maximum(right, x->local);
  const vdouble exponent = clamp(__builtin_convertvector(x->local, vdouble) + c.u, REAL_MAX);
  const vreal own_scale = lone ? __builtin_convertvector(exponent, vreal) : x->local;
  x->scale = maximum(own_scale, maximum(x->left_scale, x->right_scale));
  x->own = exp_real(own_scale - x->scale) *
           (lone ? __builtin_convertvector(rounded_away(exponent, own_scale), vreal) : c.bonus);
}

INLINE void attend(attention *x, const job *j, place p, constants c, int backward) {
  const real *state = (const real *)j->state + p.index * STATES * LANES;
  load_tile(x->e, &j->k, j, p);
  load_tile(x->v, &j->v, j, p);
  set_scales(x, j, c, state);
  for (int64_t t = 0; t < p.count; t++) x->e[t] = exp_real(x->e[t] - x->local);

  vreal enter = exp_real(load(state + 4 * LANES) - x->right_scale);
  vreal add = exp_real(x->local - x->right_scale);
  vreal a = load(state + 5 * LANES) * enter, b = load(state + 6 * LANES) * enter;
  for (int64_t t = p.count - 1; t >= 0; t--) {
    const vreal e = x->e[t] * add;
    x->right_a[t] = a;
    x->right_b[t] = b;
    a = a * c.decay + e;
    b = b * c.decay + e * x->v[t];
  }
  enter = exp_real(load(state + LANES) - x->left_scale);
  add = exp_real(x->local - x->left_scale);
  a = load(state + 2 * LANES) * enter;
  b = load(state + 3 * LANES) * enter;
  const vreal from_left = exp_real(x->left_scale - x->scale);
  const vreal from_right = exp_real(x->right_scale - x->scale);
  for (int64_t t = 0; t < p.count; t++) {
    const vreal e = x->e[t] * add, own = x->e[t] * x->own;
    const vreal total = a * from_left + x->right_a[t] * from_right + own;
    if (backward) {
      x->left_a[t] = a;
      x->left_b[t] = b;
      x->total[t] = total;
    }
    x->y[t] = (b * from_left + x->right_b[t] * from_right + own * x->v[t]) / total;
    a = a * c.decay + e;
    b = b * c.decay + e * x->v[t];
  }
}

/* Notes that some lane of `zero`, a sum of results times 0, is not 0: one result is not finite. */
static void note_overflow(job *j, vreal zero) {
  for (int64_t c = 0; c < LANES; c++)
    if (zero[c] != 0) __atomic_store_n(&j->overflow, 1, __ATOMIC_RELAXED);
}

/* Step 3 of the forward pass. */
static void finish(void *data) {
  job *j = data;
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j), tasks = j->batch * chunks;
  vreal zero = {};
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;)
    for (int64_t block = 0; block < blocks; block++) {
      const place p = next_place(j, task / chunks, task % chunks, block);
      attention x;
      attend(&x, j, p, constants_of(j, p), 0);
      for (int64_t t = 0; t < p.count; t++) zero += x.y[t] * 0;
      store_tile(&j->y, x.y, j, p);
    }
  note_overflow(j, zero);
}

/* Gradient of the numerator (a) and denominator (b) of every output of a chunk, on -x->scale. */
INLINE void output_gradients(tile a, tile b, const attention *x, const job *j,
                             place p) {
  load_tile(a, &j->gy, j, p);
  for (int64_t t = 0; t < p.count; t++) {
    a[t] /= x->total[t];
    b[t] = -a[t] * x->y[t];
  }
}

/* Step 1 of the backward pass: sums of the output gradients. */
static void summarise_gradients(void *data) {
  job *j = data;
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j), tasks = j->batch * chunks;
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;)
    for (int64_t block = 0; block < blocks; block++) {
      const place p = next_place(j, task / chunks, task % chunks, block);
      const constants c = constants_of(j, p);
      attention x;
      tile a, b;
      attend(&x, j, p, c, 1);
      output_gradients(a, b, &x, j, p);
      local_sums((real *)j->summary + p.index * 5 * LANES, -x.scale, a, b, p.count, c.decay);
    }
}

/* e^exponent for an exponent that is the sum of the scales of keys and of output gradients. No
 * output weighs a key by more than 1, so it is not above 3 * 8 in a chunk of one token (see
 * rounded_away; 32 more in others), unless it is above 10^8 and so wrong by more. */
INLINE vdouble pair_weight(const job *j, vreal a, vreal b, vdouble decay) {
  const vdouble exponent = __builtin_convertvector(a, vdouble) + __builtin_convertvector(b, vdouble);
  return exp_f64(at_most(exponent - decay, j->chunk == 1 ? 24 : 64));
}

/* Step 3 of the backward pass. */
static void finish_gradients(void *data) {
  job *j = data;
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j), tasks = j->batch * chunks;
  vreal zero = {};
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;)
    for (int64_t block = 0; block < blocks; block++) {
      const place p = next_place(j, task / chunks, task % chunks, block);
      const constants c = constants_of(j, p);
      const real *state = (const real *)j->gradient_state + p.index * STATES * LANES;
      attention x;
      tile a, b, later_a, later_b, gk, gv;
      attend(&x, j, p, c, 1);
      output_gradients(a, b, &x, j, p);

      const vreal left = load(state + LANES), right = load(state + 4 * LANES);
      const vreal left_scale = j->chunk == 1 ? left : maximum(left, -x.scale);
      const vreal right_scale = j->chunk == 1 ? right : maximum(right, -x.scale);
      vreal enter = exp_real(right - right_scale), add = exp_real(-x.scale - right_scale);
      vreal sum_a = load(state + 5 * LANES) * enter, sum_b = load(state + 6 * LANES) * enter;
      vreal right_gw = {}, left_gw = {}, gu = {};
      for (int64_t t = p.count - 1; t >= 0; t--) {
        later_a[t] = sum_a;
        later_b[t] = sum_b;
        right_gw += sum_a * x.left_b[t] + sum_b * x.left_a[t];
        sum_a = sum_a * c.decay + a[t] * add;
        sum_b = sum_b * c.decay + b[t] * add;
      }
      enter = exp_real(left - left_scale), add = exp_real(-x.scale - left_scale);
      sum_a = load(state + 2 * LANES) * enter;
      sum_b = load(state + 3 * LANES) * enter;
      const vdouble none = {};
      const vreal to_left =
          __builtin_convertvector(pair_weight(j, x.local, left_scale, none), vreal);
      const vreal to_right =
          __builtin_convertvector(pair_weight(j, x.local, right_scale, none), vreal);
      for (int64_t t = 0; t < p.count; t++) {
        const vreal own = x.own * x.e[t], e_left = x.e[t] * to_left, e_right = x.e[t] * to_right;
        left_gw += sum_a * x.right_b[t] + sum_b * x.right_a[t];
        gu += own * (a[t] * x.v[t] + b[t]);
        gv[t] = e_left * sum_a + e_right * later_a[t] + own * a[t];
        gk[t] = x.v[t] * gv[t] + (e_left * sum_b + e_right * later_b[t] + own * b[t]);
        zero += gk[t] * 0;
        sum_a = sum_a * c.decay + a[t] * add;
        sum_b = sum_b * c.decay + b[t] * add;
      }
      store_tile(&j->gk, gk, j, p);
      store_tile(&j->gv, gv, j, p);
      const vdouble wide_gu = __builtin_convertvector(gu, vdouble);
      const vdouble gw = __builtin_convertvector(left_gw, vdouble) *
                             pair_weight(j, x.right_scale, left_scale, c.w) +
                         __builtin_convertvector(right_gw, vdouble) *
                             pair_weight(j, x.left_scale, right_scale, c.w);
      memcpy(j->gw + p.index * LANES, &gw, sizeof gw);
      memcpy(j->gu + p.index * LANES, &wide_gu, sizeof wide_gu);
      zero += __builtin_convertvector(gw * 0 + wide_gu * 0, vreal);
    }
  note_overflow(j, zero);
}

/* Both return once the work is done; the caller owns every buffer of the job. */
void bi_wkv_forward(job *j) {
  const int64_t pieces = j->batch * chunks_of(j);
  run(j, summarise, pieces);
  run(j, carry_states, j->batch * blocks_of(j));
  run(j, finish, pieces);
}

/* Computes the states of the forward pass again: that costs less than it saves in memory. */
void bi_wkv_backward(job *j) {
  const int64_t pieces = j->batch * chunks_of(j);
  run(j, summarise, pieces);
  run(j, carry_states, j->batch * blocks_of(j));
  run(j, summarise_gradients, pieces);
  run(j, carry_gradients, j->batch * blocks_of(j));
  run(j, finish_gradients, pieces);
}
