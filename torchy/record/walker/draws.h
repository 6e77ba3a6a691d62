// Ops that fill a tensor with random numbers run at once, as eager would draw them, but faster: the
// words of torch's generator are made by the block (twister.h), and what is made of them by
// vectors. A law is drawn so once it has been seen to give eager's bits here, and leave eager's
// state.
#pragma once

#include "kernels.h"

namespace torchy {

bool is_draw(const OpInfo& info);

// Whether an op makes a tensor, and has it filled by one of those.
bool makes_draw(const OpInfo& info);

// Gives an op a kernel that draws, if it is one of those; returns whether it is.
bool specialize_draws(OpInfo* info, Registrations& registrations);

}  // namespace torchy
