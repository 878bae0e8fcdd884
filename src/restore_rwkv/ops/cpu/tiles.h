/* Job of a call, and its tiles of tokens and channels: their place in memory, reading and
 * writing. */
#ifndef TILES_H
#define TILES_H

#include "schedule.h"
#include "vectors.h"

#define MAX_CHUNK 64
#define GROUP 4  /* tiles per task */
#define SUMS 5   /* per chunk and block: scale, (a, b) decayed to the right edge, to the left */
#define STATES 7 /* per chunk and block: scale, (scale, a, b) entering from left, from right */

typedef struct {
  void *data;
  int64_t stride[4]; /* in elements: batch, row, column, channel */
} image;

/* Per-channel constants of a block: w/T, u/T, the decay of one step e^(-w/T), the bonus e^(u/T). */
typedef struct {
  double w[LANES], u[LANES];
  real decay[LANES], bonus[LANES];
} constants;

struct job {
  int64_t batch, rows, columns, channels; /* token t = row * columns + column */
  int64_t chunk;                          /* tokens per chunk, from bi_wkv_chunk_length */
  int64_t threads;
  launcher launch;      /* NULL: this thread does all the work */
  const double *w, *u;  /* (channels), as trained */
  image k, v, y;        /* y: forward only; may be v */
  image gy, gk, gv;     /* backward only */
  constants *constants; /* (blocks): workspace */
  void *summary;        /* (batch, chunks, blocks, SUMS, LANES): workspace */
  void *state;          /* (batch, chunks, blocks, STATES, LANES): output of the forward pass,
                           input of the backward pass */
  void *gradient_state; /* as state; backward only: workspace */
  double *gw_terms, *gu_terms; /* (batch, chunks, blocks, LANES): workspace */
  double *gw, *gu;      /* (channels) */
  int64_t overflow;     /* output: 1 if sums of v may overflow, set before y is written; in the
                           backward pass, 1 if gk, gw or gu is not finite */
};

INLINE int64_t tokens_of(const job *j) { return j->rows * j->columns; }
INLINE int64_t chunks_of(const job *j) { return (tokens_of(j) + j->chunk - 1) / j->chunk; }
INLINE int64_t blocks_of(const job *j) { return (j->channels + LANES - 1) / LANES; }

/* One block of channels of one chunk of tokens. */
typedef vreal tile[MAX_CHUNK];

/* Place of a tile: batch b, tokens first .. first + count - 1, channels channel .. + lanes - 1. */
typedef struct {
  int64_t b, block, first, count, channel, lanes, index;
} place;

INLINE place place_of(const job *j, int64_t b, int64_t chunk, int64_t block) {
  const int64_t first = chunk * j->chunk, rest = tokens_of(j) - first;
  const int64_t channel = block * LANES, left = j->channels - channel;
  return (place){b, block, first, rest < j->chunk ? rest : j->chunk, channel,
                 left < LANES ? left : LANES, (b * chunks_of(j) + chunk) * blocks_of(j) + block};
}

/* Tiles of one task of steps 1 and 3, side by side in memory: the blocks of a chunk and, if tokens
 * run down the columns of an image, the same chunk of neighbouring columns. Reading or writing them
 * together uses contiguous stretches of memory in either direction. */
typedef struct {
  int64_t count;
  place at[GROUP];
} group;

/* Neighbouring columns per task (they are rows of `job`, which holds only the order of tokens). */
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

/* Iterator over the tokens of a tile; `at` is the address of the current one. */
typedef struct {
  real *at;
  int64_t step, next_row, column, columns;
} walk;

INLINE walk walk_along(const image *map, const job *j, place p) {
  const int64_t *stride = map->stride, column = p.first % j->columns;
  real *at = (real *)map->data + p.b * stride[0] + p.channel * stride[3] +
             p.first / j->columns * stride[1] + column * stride[2];
  return (walk){at, stride[2], stride[1] - j->columns * stride[2], column, j->columns};
}

INLINE void next_token(walk *w) {
  w->at += w->step;
  if (++w->column == w->columns) w->column = 0, w->at += w->next_row;
}

/* Returns whether all tiles of a group consist of whole vectors; if so, also sets their distances
 * from the first. */
INLINE int is_packed(const image *map, const job *j, const group *g, int64_t *distance) {
  const real *first = walk_along(map, j, g->at[0]).at;
  for (int64_t i = 0; i < g->count; i++) {
    if (map->stride[3] != 1 || g->at[i].lanes < LANES) return 0;
    distance[i] = walk_along(map, j, g->at[i]).at - first;
  }
  return 1;
}

/* Channels beyond the last are read as 0 and never stored. */
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

#endif
