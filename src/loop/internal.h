/* Between loop.c and libev.c only. */
#pragma once

#include "loop/loop.h"

struct loop_libev;

int loop_libev_new(struct loop *loop, struct loop_libev **ret_libev);
struct ev_loop *loop_libev_ev(struct loop_libev *libev);
void loop_libev_free(struct loop_libev *libev);
