/* The sandbox around a machine: what of its configuration must be reached after the doors are closed. */
#pragma once

#include "config.h"
#include "loop/loop.h"

/* Before files are read. What --sandbox leaves out is told on standard error. */
int confine_early(const struct config *config);

/* Of a new loop. */
int confine_ring(const struct config *config, struct loop *loop);

/* When all that was configured is open and there is one thread. On failure the process ends. */
int confine(const struct config *config);

/* On the threads themselves; the loop's when the vCPUs have theirs. */
void confine_vcpu(unsigned index);
void confine_loop(void);
void confine_opener(void);
