// Forks: the child has the thread that forks, and no other. A mutex that another one has locked
// would stay locked for ever, so all are taken before, in the order in which they nest.
#pragma once

namespace torchy {

void guard_forks();

}  // namespace torchy
