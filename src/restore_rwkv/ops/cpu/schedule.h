/* Distribution of work over threads: the tasks of a step in any order, steps one after another. */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#include "vectors.h"

/* OpenMP's GOMP_parallel. */
typedef void (*launcher)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/* Runs `body` on several threads, or only on this one without a launcher. */
INLINE void run_on(launcher launch, int64_t threads, void (*body)(void *), void *data) {
  if (launch && threads > 1)
    launch(body, data, (unsigned)threads, 0);
  else
    body(data);
}

/* Data of the tasks; defined by the file that includes this one. */
typedef struct job job;

/* A step of a pass: independent tasks. */
typedef struct {
  void (*run)(job *, int64_t task);
  int64_t tasks, next, done;
} step;

/* The steps of one call; threads stop at the next step once *stop is set. */
typedef struct {
  job *job;
  const int64_t *stop;
  step steps[6];
  int64_t count;
} pass;

INLINE void add_step(pass *p, void (*run)(job *, int64_t), int64_t tasks) {
  p->steps[p->count++] = (step){run, tasks, 0, 0};
}

/* Waits a moment; a long wait yields the processor to other threads. */
INLINE void relax(int64_t waited) {
#if defined(__unix__) || defined(__APPLE__)
  if (waited % 1024 == 1023) sched_yield();
#endif
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Body of each thread. A task that is taken is being worked on, so the wait ends for any number of
 * threads. */
static inline void work(void *data) {
  pass *p = data;
  for (int64_t i = 0; i < p->count; i++) {
    step *s = &p->steps[i];
    if (__atomic_load_n(p->stop, __ATOMIC_RELAXED)) return;
    for (int64_t task; (task = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->tasks;) {
      s->run(p->job, task);
      __atomic_fetch_add(&s->done, 1, __ATOMIC_RELEASE);
    }
    for (int64_t waited = 0; __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) < s->tasks; waited++)
      relax(waited);
  }
}

INLINE void run(pass *p, launcher launch, int64_t threads) { run_on(launch, threads, work, p); }

#endif
