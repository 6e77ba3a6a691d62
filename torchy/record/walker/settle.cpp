#include "settle.h"

#include "interpret.h"

namespace torchy {

void settle_storage(c10::StorageImpl* storage, bool written, Reason reason,
                    const std::string& text) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::vector<std::shared_ptr<Session>> sessions;
    bool pending = false;
    {
      const Lock lock(shared_mutex);
      sessions = holders(storage, &pending);
    }
    if (sessions.empty() || !(pending || written)) return;
    for (auto& session : sessions)
      flush(*session, session == this_session ? reason : Reason::kOtherThread, text);
  }
}

void note_escape(c10::StorageImpl* storage) {
  WeakStorage weak(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage));
  const Lock lock(shared_mutex);
  auto& escaped = registry().escaped;
  if (escaped.size() >= 256 && (escaped.size() & (escaped.size() - 1)) == 0) {
    for (auto it = escaped.begin(); it != escaped.end();)
      it = it->second.use_count() == 0 ? escaped.erase(it) : std::next(it);
  }
  if (escaped.find(storage) == escaped.end()) escaped.emplace(storage, std::move(weak));
}

void watch_access() {
  on_access = [](c10::StorageImpl* storage) {
    settle_storage(storage, /*written=*/true, Reason::kMemory, "");
    if (!Paused::active()) note_escape(storage);
  };
}

}  // namespace torchy
