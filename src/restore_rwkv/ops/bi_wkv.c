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
  void *state;                            /* (batch, chunks, blocks, STATES, LANES) */
  void *summary;                          /* (batch, chunks, blocks, 5, LANES): workspace */
  void *gradient_state;                   /* as state, or NULL in the forward pass: workspace */
  double *gw, *gu;                        /* (batch, chunks, blocks, LANES): terms of the sums */
  int64_t next;                           /* next task; set to 0 by run() */
  int64_t overflow;                       /* out: 1 if some output is not finite */
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

INLINE vdouble clamp_f64(vdouble x, double limit) {
  const vdouble most = (vdouble){} + limit;
  x = select_f64(x > most, most, x);
  return select_f64(x < -most, -most, x);
}

/* e^x = 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor series; 0 below e^-87, e^88 at most. */
INLINE vfloat exp_f32(vfloat x) {
  const vint32 normal = x >= -87.0f;
  x = select_f32(normal & (x < 88.0f), x, (vfloat)(normal & (vint32)((vfloat){} + 88.0f)));
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
  x = select_f64(normal & (x < 709.0), x, (vdouble)(normal & (vint64)((vdouble){} + 709.0)));
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
  /* Steeper decays meet chunks of one token, where this factor is not used. */
  k.decay = __builtin_convertvector(exp_f64(clamp_f64(-vw, 80)), vreal);
  k.bonus = __builtin_convertvector(exp_f64(clamp_f64(vu, 80)), vreal);
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

/* Step 2: what enters each chunk. Both directions; scales stay representable in real. */
INLINE void carry(job *j, real *state, int64_t task, int64_t direction) {
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j);
  vreal scale = (vreal){} - (real)__builtin_inf(); /* nothing yet */
  vdouble a = {}, b = {};
  for (int64_t i = 0; i < chunks; i++) {
    const int64_t chunk = direction > 0 ? i : chunks - 1 - i;
    const place p = next_place(j, task / blocks, chunk, task % blocks);
    const real *in = (const real *)j->summary + p.index * 5 * LANES;
    real *out = state + (p.index * STATES + (direction > 0 ? 1 : 4)) * LANES;
    const vreal narrow_a = __builtin_convertvector(a, vreal);
    const vreal narrow_b = __builtin_convertvector(b, vreal);
    if (direction > 0) memcpy(out - LANES, in, sizeof scale);
    memcpy(out, &scale, sizeof scale);
    memcpy(out + LANES, &narrow_a, sizeof scale);
    memcpy(out + 2 * LANES, &narrow_b, sizeof scale);

    const int64_t sums = direction > 0 ? 1 : 3;
    const vreal local = load(in), local_a = load(in + sums * LANES);
    const vreal local_b = load(in + (sums + 1) * LANES);
    const vdouble old = __builtin_convertvector(scale, vdouble) -
                        constants_of(j, p).w * (double)p.count;
    const vdouble wide = __builtin_convertvector(local, vdouble);
    const vdouble largest = clamp_f64(select_f64(old > wide, old, wide), REAL_MAX);
    scale = __builtin_convertvector(largest, vreal);
    /* Rounding the scale to `real` is undone in the sums, unless it is beyond all measure. */
    const vdouble top = largest - clamp_f64(largest - __builtin_convertvector(scale, vdouble), 1);
    const vdouble keep = exp_f64(old - top), add = exp_f64(wide - top);
    a = a * keep + __builtin_convertvector(local_a, vdouble) * add;
    b = b * keep + __builtin_convertvector(local_b, vdouble) * add;
  }
}

static void carry_states(void *data) {
  job *j = data;
  real *state = j->gradient_state ? j->gradient_state : j->state;
  const int64_t tasks = j->batch * blocks_of(j);
  for (int64_t task; (task = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < tasks;) {
    carry(j, state, task, 1);
    carry(j, state, task, -1);
  }
}

/* Attention of one chunk on the scale `scale`: outputs y; for the backward pass also the sums over
 * the tokens before (left) and after (right), and the totals that y was divided by. */
typedef struct {
  vreal scale, bonus;
  tile e, v, right_a, right_b, y;
  tile k, left_a, left_b, total; /* only where `backward` */
} attention;

INLINE void attend(attention *x, const job *j, place p, constants c, int backward) {
  const real *state = (const real *)j->state + p.index * STATES * LANES;
  const vreal left = load(state + LANES), right = load(state + 4 * LANES);
  load_tile(x->e, &j->k, j, p);
  load_tile(x->v, &j->v, j, p);
  x->bonus = c.bonus;
  vreal local = load(state);
  if (j->chunk == 1) { /* only the token's own weight is left: its bonus joins the exponent */
    const vdouble wide = __builtin_convertvector(local, vdouble);
    local = __builtin_convertvector(clamp_f64(wide + c.u, REAL_MAX), vreal);
    x->bonus = (vreal){} + 1;
  }
  x->scale = maximum(local, maximum(left, right));
  for (int64_t t = 0; t < p.count; t++) {
    if (backward) x->k[t] = x->e[t];
    x->e[t] = exp_real((j->chunk == 1 ? local : x->e[t]) - x->scale);
  }
  vreal factor = exp_real(right - x->scale);
  vreal a = load(state + 5 * LANES) * factor, b = load(state + 6 * LANES) * factor;
  for (int64_t t = p.count - 1; t >= 0; t--) {
    x->right_a[t] = a;
    x->right_b[t] = b;
    a = a * c.decay + x->e[t];
    b = b * c.decay + x->e[t] * x->v[t];
  }
  factor = exp_real(left - x->scale);
  a = load(state + 2 * LANES) * factor;
  b = load(state + 3 * LANES) * factor;
  for (int64_t t = 0; t < p.count; t++) {
    const vreal own = x->bonus * x->e[t], total = a + x->right_a[t] + own;
    if (backward) {
      x->left_a[t] = a;
      x->left_b[t] = b;
      x->total[t] = total;
    }
    x->y[t] = (b + x->right_b[t] + own * x->v[t]) / total;
    a = a * c.decay + x->e[t];
    b = b * c.decay + x->e[t] * x->v[t];
  }
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
      for (int64_t t = 0; t < p.count; t++) zero += x.y[t] * 0; /* NaN once one is not finite */
      store_tile(&j->y, x.y, j, p);
    }
  for (int64_t c = 0; c < LANES; c++)
    if (zero[c] != 0) __atomic_store_n(&j->overflow, 1, __ATOMIC_RELAXED);
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

/* The gradient of w at a chunk of one token: each product has the scales of both its factors. */
INLINE vdouble lone_decay_gradient(const real *sums, const real *gradients, vdouble w) {
  vdouble s[STATES], g[STATES];
  for (int64_t i = 0; i < STATES; i++) {
    s[i] = __builtin_convertvector(load(sums + i * LANES), vdouble);
    g[i] = __builtin_convertvector(load(gradients + i * LANES), vdouble);
  }
  return exp_f64(s[1] + g[4] - w) * (g[5] * s[3] + g[6] * s[2]) +
         exp_f64(s[4] + g[1] - w) * (g[2] * s[6] + g[3] * s[5]);
}

/* Step 3 of the backward pass. */
static void finish_gradients(void *data) {
  job *j = data;
  const int64_t chunks = chunks_of(j), blocks = blocks_of(j), tasks = j->batch * chunks;
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
      const vreal outside = maximum(left, right); /* all that a chunk of one token needs */
      const vreal scale = j->chunk == 1 ? outside : maximum(-x.scale, outside);
      const vreal own = exp_real(-x.scale - scale), outer = exp_real(x.scale + scale);
      vreal factor = exp_real(right - scale);
      vreal sum_a = load(state + 5 * LANES) * factor, sum_b = load(state + 6 * LANES) * factor;
      vreal gw = {}, gu = {};
      for (int64_t t = p.count - 1; t >= 0; t--) {
        later_a[t] = sum_a;
        later_b[t] = sum_b;
        gw += sum_a * x.left_b[t] + sum_b * x.left_a[t];
        sum_a = sum_a * c.decay + a[t] * own;
        sum_b = sum_b * c.decay + b[t] * own;
      }
      factor = exp_real(left - scale);
      sum_a = load(state + 2 * LANES) * factor;
      sum_b = load(state + 3 * LANES) * factor;
      for (int64_t t = 0; t < p.count; t++) {
        const vreal e = exp_real(x.k[t] + scale); /* to the scale of the sums of gradients */
        const vreal bonus = x.bonus * x.e[t]; /* to the scale of a and b */
        gw += sum_a * x.right_b[t] + sum_b * x.right_a[t];
        gu += bonus * (a[t] * x.v[t] + b[t]);
        gv[t] = e * (sum_a + later_a[t]) + bonus * a[t];
        gk[t] = x.v[t] * gv[t] + (e * (sum_b + later_b[t]) + bonus * b[t]);
        sum_a = sum_a * c.decay + a[t] * own;
        sum_b = sum_b * c.decay + b[t] * own;
      }
      store_tile(&j->gk, gk, j, p);
      store_tile(&j->gv, gv, j, p);
      const real *sums = (const real *)j->state + p.index * STATES * LANES;
      const vdouble wide_gw = j->chunk == 1
                                  ? lone_decay_gradient(sums, state, c.w)
                                  : __builtin_convertvector(gw * c.decay * outer, vdouble);
      const vdouble wide_gu = __builtin_convertvector(gu, vdouble);
      memcpy(j->gw + p.index * LANES, &wide_gw, sizeof wide_gw);
      memcpy(j->gu + p.index * LANES, &wide_gu, sizeof wide_gu);
    }
}

/* Both return once the work is done; the caller owns every buffer of the job. */
void bi_wkv_forward(job *j) {
  const int64_t pieces = j->batch * chunks_of(j);
  run(j, summarise, pieces);
  run(j, carry_states, j->batch * blocks_of(j));
  run(j, finish, pieces);
}

void bi_wkv_backward(job *j) {
  const int64_t pieces = j->batch * chunks_of(j);
  run(j, summarise_gradients, pieces);
  run(j, carry_states, j->batch * blocks_of(j));
  run(j, finish_gradients, pieces);
}
