/* Bi-WKV attention on a CPU, forward and backward (eq. 8 of arXiv 2407.11087).
 *
 * Tokens are split into chunks of `chunk` tokens, and channels into blocks of LANES.
 *   1. summarise: for each chunk, the sums of e^k and e^k v, decayed to either edge;
 *   2. carry: a scan over chunks, in double, gives the sums that enter each chunk from either side;
 *   3. finish: for each chunk, two recurrences from those states give the outputs.
 * Tasks of steps 1 and 3 are independent, so a single long sequence uses all threads, and the
 * result does not depend on the number of threads. Every sum has its own logarithmic scale (its
 * largest exponent), so nothing overflows, and terms that underflow are negligible.
 * The decay is rounded once per step inside a chunk only; across chunks it is exact.
 * All steps of a pass run in one parallel region: a thread that finds no task left in a step
 * waits until the others have finished theirs.
 *
 * Compiled for float, and for double with -DDOUBLE; for float also with wider registers. Vectors are
 * as wide as a register, since compilers break up comparisons of wider vectors.
 * The library is loaded with ctypes: no Python, torch or OpenMP at link time. The caller may pass an
 * OpenMP launcher (GOMP_parallel of torch's own runtime), so that no second pool of threads competes
 * with the first.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "tiles.h"

#ifdef DOUBLE
#define REAL_MAX DBL_MAX
#define MAX_VALUE 0x1p976
#else
#define REAL_MAX FLT_MAX
#define MAX_VALUE 0x1p80f /* sums of larger values may overflow */
#endif

#define MAX_SPAN 16.0 /* weights of one chunk differ by at most e^16: far from overflow */

/* Computes the constants, at the start of a pass. */
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
      store_part(k->decay + c, rounded(exp_wide(-load_wide(k->w + c))));
      store_part(k->bonus + c, rounded(exp_wide(load_wide(k->u + c))));
    }
  }
}

INLINE const constants *constants_of(const job *j, place p) { return &j->constants[p.block]; }

/* Sets `overflow` if any lane of `mask` is set. */
INLINE void note_overflow(job *j, vmask mask) {
  uint64_t words[VECTOR / 8], any = 0;
  memcpy(words, &mask, sizeof words);
  for (int64_t i = 0; i < VECTOR / 8; i++) any |= words[i];
  if (any) __atomic_store_n(&j->overflow, 1, __ATOMIC_RELAXED);
}

/* Sums over a chunk, decayed to either edge. For the left edge, terms are multiplied by powers of
 * the decay, so that one loop computes both sums. */
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

/* Factor that is lost when an exponent is rounded to a scale of type `real`. Beyond 10^8 it can
 * exceed e^8, and is clipped there. */
INLINE vdouble rounded_away(vdouble exponent, part scale) {
  return exp_wide(clamp(exponent - widen(scale), 8));
}

/* Step 2 for some lanes of a block: the sums that enter each chunk, from the left (direction 1) or
 * from the right (-1). */
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
    const part scale = rounded(exponent);
    const vdouble rest = rounded_away(exponent, scale);
    if (direction > 0) store_part(out - LANES, load_part(in));
    store_part(out, scale);
    store_part(out + LANES, rounded(sum_a * rest));
    store_part(out + 2 * LANES, rounded(sum_b * rest));

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

/* Largest exponent of a chunk's own tokens, to which the bonus applies, and the factor on them. If
 * chunks are single tokens, the bonus may have any size and is added to the exponent. */
typedef struct {
  vreal scale, factor;
} own_weight;

INLINE own_weight own_weight_of(const job *j, const constants *k, vreal local) {
  own_weight own = {local, load(k->bonus)};
  if (j->chunk > 1) return own;
  for (int64_t c = 0; c < LANES; c += WIDE) {
    real *scale = (real *)&own.scale + c;
    const vdouble exponent = clamp(widen(load_part(scale)) + load_wide(k->u + c), REAL_MAX);
    store_part(scale, rounded(exponent));
    store_part((real *)&own.factor + c, rounded(rounded_away(exponent, rounded(exponent))));
  }
  return own;
}

/* Outputs of a chunk without the sums that enter from the left. Numerators (sum) and denominators
 * (total) share one scale, the largest of the entering sums' and the chunk's own: terms that
 * underflow there are negligible in both. */
typedef struct {
  vreal scale, a, b; /* a, b: entering from the left */
  tile total, sum;
} outputs;

/* Overwrites k with e^(k - scale); for a chunk of one token, which is in none of its sums, with 1. */
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

/* Adds the sums that enter one token from the left, and moves them past the token. */
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
 * the outputs, with scale -scale, and their sums. The gradients overwrite gy and k. */
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

/* The memory of gv and gk holds the gradients of numerators and denominators until step 3. */
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

/* Attention of a chunk, for step 3 of the backward pass. Every sum keeps its own scale, apart from
 * that of the outputs: a key that is negligible in one output can matter in another. */
typedef struct {
  vreal local, left_scale, right_scale, scale; /* of e; of the sums; of the outputs */
  vreal add_left, add_right;                   /* from e to the sums */
  vreal own;                                   /* from e to the outputs: weight of a token itself */
  vreal a, b;                                  /* sums entering from the left */
  tile right_a, right_b;                       /* sums over the tokens right of each token */
} attention;

INLINE void set_scales(attention *x, const job *j, const constants *k, const real *state) {
  const int lone = j->chunk == 1; /* then none of the chunk's sums contains its token */
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

/* Overwrites k with e^(k - local). */
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

/* Moves the sums that enter from the left past a token. */
INLINE void pass_token(attention *x, vreal e, vreal v, vreal decay) {
  e *= x->add_left;
  x->a = x->a * decay + e;
  x->b = x->b * decay + e * v;
}

/* e^exponent for an exponent that is the sum of the scales of keys and of output gradients. No
 * output gives a key a weight above 1, so the exponent is at most 3 * 8 in a chunk of one token (see
 * rounded_away; 32 more in others), unless scales exceed 10^8, where the rounding error is larger. */
INLINE vdouble pair_weight(const job *j, const vreal *a, const vreal *b, int64_t lane, vdouble decay) {
  const vdouble exponent =
      widen(load_part((const real *)a + lane)) + widen(load_part((const real *)b + lane)) - decay;
  return exp_wide(at_most(exponent, j->chunk == 1 ? 24 : 64));
}

INLINE vreal pair_weights(const job *j, vreal a, vreal b) {
  vreal weights;
  for (int64_t c = 0; c < LANES; c += WIDE)
    store_part((real *)&weights + c, rounded(pair_weight(j, &a, &b, c, (vdouble){})));
  return weights;
}

/* Sum of the output gradients that enters a chunk from one side. */
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

/* Stores the gradients of w/T and u/T from one block; sets `overflow` if they are not finite. */
INLINE void store_terms(job *j, place p, const attention *x, const gradient_sum *early,
                        const gradient_sum *late, vreal early_gw, vreal late_gw, vreal gu) {
  double *gw_terms = j->gw_terms + p.index * LANES, *gu_terms = j->gu_terms + p.index * LANES;
  vreal rounded_gw;
  for (int64_t c = 0; c < LANES; c += WIDE) {
    const vdouble w = load_wide(constants_of(j, p)->w + c);
    const vdouble gw = widen(load_part((const real *)&early_gw + c)) *
                           pair_weight(j, &x->right_scale, &early->scale, c, w) +
                       widen(load_part((const real *)&late_gw + c)) *
                           pair_weight(j, &x->left_scale, &late->scale, c, w);
    store_wide(gw_terms + c, gw);
    store_wide(gu_terms + c, widen(load_part((const real *)&gu + c)));
    store_part((real *)&rounded_gw + c, rounded(gw));
  }
  note_overflow(j, ((rounded_gw + gu) * 0 != 0));
}

/* Step 3 of the backward pass for one block; gv and gk overwrite a and k. */
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

/* Channels per block, on which the sizes of all buffers depend. */
int64_t bi_wkv_lanes(void) { return LANES; }

/* Number of tokens per chunk for which decay and bonus, divided by T, stay in range in a chunk. */
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

/* The passes return when the work is done; the caller owns all buffers of the job. */
void bi_wkv_forward(job *j) {
  pass p = {.job = j, .stop = &j->overflow};
  prepare(j);
  add_sums(&p, j);
  add_step(&p, finish, tasks_of(j));
  run(&p, j->launch, j->threads);
}

/* With `recompute`, first computes the state of the forward pass again. */
void bi_wkv_backward(job *j, int64_t recompute) {
  pass p = {.job = j, .stop = &j->overflow};
  prepare(j);
  if (recompute) add_sums(&p, j);
  add_step(&p, summarise_gradients, tasks_of(j));
  add_step(&p, carry_gradients, j->batch * blocks_of(j) * 2);
  add_step(&p, finish_gradients, tasks_of(j));
  add_step(&p, add_up, blocks_of(j));
  run(&p, j->launch, j->threads);
}
