/* A network card's end that is nowhere: its link is down. */
#pragma once

#include "net/backend.h"

/* -ENOMEM with a message. What the guest was offered by another end before, it is offered by this one. */
int none_open(unsigned pairs, struct net_backend **ret_backend);
